"""preserve shell: a shell in a step's own container, its inputs in place."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

from preserve.digest import FilePin
from preserve.errors import Interrupted, UserError
from preserve.interfaces import Progress
from preserve.operations.folder import Folder, look, materials
from preserve.operations.places import Settings, bring, choose_engine
from preserve.operations.run_step import lay_out, remove_work, request_of


def shell(folder: Folder, settings: Settings, step: str, *, progress: Progress, say: Callable[[str], None]) -> int:
    """Open /bin/sh where ``step`` would run, with its environment; what is written there is thrown away.

    Of a step with ``for_each`` without a job named, the first job is taken. ``say`` takes lines for the user.

    Raises:
        UserError: there is no such step, what it reads is not made yet, or there is no terminal.
        DigestMismatch: an input is not what preserve.lock pins.
        MachineError: no engine.
        Interrupted: the terminal was closed, or the shell ended by SIGTERM.
    """
    if not sys.stdin.isatty():
        raise UserError("a shell needs a terminal", hint="to run something in a step's container, make it a step")
    hashes = folder.hashes()
    situation = look(folder, hashes, {})
    chosen = next((s for s in situation.plan.steps if step in (s.id, s.name)), None)
    if chosen is None:
        known_steps = ", ".join(s.id for s in situation.plan.steps[:20])
        raise UserError(f"there is no step {step!r}", hint=f"one of: {known_steps}")
    known: dict[str, FilePin] = dict(situation.pins)
    for path in sorted(p for s in situation.plan.steps for p in s.outputs if (folder.root / p).exists()):
        found = [folder.root / path] if not path.endswith("/") else sorted((folder.root / path).rglob("*"))
        known.update({f.relative_to(folder.root).as_posix(): hashes.pin(f) for f in found if f.is_file()})
    read = materials(chosen, known)
    if read is None:
        raise UserError(f"what step {chosen.id} reads is not made yet", hint="run: preserve run")
    engine, _ = choose_engine(folder, settings)
    image = situation.plan.images[chosen.image]
    bring(image, folder, settings, progress)
    engine.load(image, folder.layout)
    say(f"the container of {chosen.id}: what is written in it is thrown away; the step's own command is")
    say(f"    {shlex.join(chosen.command)}")
    work = Path(tempfile.mkdtemp(dir=folder.state, prefix="shell-"))
    try:
        mounts = lay_out(chosen, {a.path: folder.root / a.path for a in read}, work / "step")
        request = replace(
            request_of(situation.plan, chosen, mounts, label=f"shell/{work.name}"),
            command=("/bin/sh",),
            environment={**chosen.environment, "PS1": f"{chosen.id}:$PWD$ "},
            resources=replace(chosen.resources, time=None),
            interactive=True,
        )
        with _until_closed():
            return engine.run(request, stdout=sys.stdout.buffer, stderr=sys.stderr.buffer).exit_code
    finally:
        remove_work(work)


@contextlib.contextmanager
def _until_closed() -> Iterator[None]:
    """Let a closed terminal and SIGTERM be an exception, so that what was laid out is taken away."""

    def close(number: int, frame: FrameType | None) -> None:
        raise Interrupted(f"the shell was ended by {signal.Signals(number).name}")

    before = {number: signal.signal(number, close) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
