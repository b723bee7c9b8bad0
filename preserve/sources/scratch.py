"""A git repository of our own for one task: no configuration, hooks, refs or attributes but those given here."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from preserve.errors import MachineError

SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"
GIB = 1 << 30
_SETTINGS = {
    "core.bigFileThreshold": "32m",  # larger files are not held in memory, and no deltas are sought for them
    # Three shortcuts through the history: stale ones err, and the order in a pack follows them.
    "core.commitGraph": "false",
    "core.multiPackIndex": "false",
    "pack.useBitmaps": "false",
    "core.hooksPath": "/dev/null",
    "core.packedGitLimit": "256m",
    "protocol.allow": "never",
    "protocol.file.allow": "always",
    "transfer.fsckObjects": "true",
    "gc.auto": "0",
    "maintenance.auto": "false",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one git command may use: address space in bytes, processor time in seconds."""

    memory: int
    cpu_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a git command ended (``exit_code`` negative: by that signal), and what it printed."""

    exit_code: int
    output: bytes
    messages: str

    @property
    def reason(self) -> str:
        """Its last message, without git's own ``fatal:`` and ``error:``."""
        lines = [line.strip() for line in self.messages.splitlines() if line.strip()]
        chosen = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines
        if not chosen:
            return f"exit code {self.exit_code}" if self.exit_code >= 0 else f"ended by signal {-self.exit_code}"
        return chosen[0].partition(": ")[2] or chosen[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """A bare repository. ``folder`` is also the home of the git that works in it."""

    folder: Path
    search_path: str = SEARCH_PATH
    limits: Limits | None = None

    def borrow(self, objects: Path) -> None:
        """Let the repository read the objects of another, whose settings and refs it does not see."""
        quoted = str(objects).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        (self.folder / "objects" / "info").mkdir(exist_ok=True)
        (self.folder / "objects" / "info" / "alternates").write_text(f'"{quoted}"\n')

    def git(self, *command: str, chunks: Iterable[bytes] = (), stdout: BinaryIO | None = None) -> Answer:
        """Run a git command on the repository, ``chunks`` its standard input.

        Raises:
            MachineError: git is not installed.
        """
        settings = (part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}"))
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as messages:
            code = self._run(("git", *settings, *command), chunks, stdout or output, messages)
            output.seek(0)
            messages.seek(0)
            text = messages.read(1 << 16).decode(errors="replace")
            return Answer(exit_code=code, output=output.read(), messages=text)

    def _run(self, argv: tuple[str, ...], chunks: Iterable[bytes], stdout: BinaryIO, messages: BinaryIO) -> int:
        process = self._start(argv, stdout, messages)
        try:
            if self.limits is not None:
                _limit(process.pid, self.limits)
            assert process.stdin is not None  # noqa: S101  (it is a pipe)
            with contextlib.suppress(BrokenPipeError), process.stdin as stdin:  # git says itself why it ended
                for chunk in chunks:
                    stdin.write(chunk)
            return process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _start(self, argv: tuple[str, ...], stdout: BinaryIO, messages: BinaryIO) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                argv,
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=messages,
            )
        except OSError as error:
            raise MachineError(f"git cannot be started: {error.strerror}", hint="apt install git") from error

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": self.search_path,
            "HOME": str(self.folder),
            "LC_ALL": "C",
            "TZ": "UTC",
            "GIT_DIR": str(self.folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_TERMINAL_PROMPT": "0",
        }


@contextlib.contextmanager
def scratch_repository(
    inside: Path | None = None, *, sample: str, search_path: str = SEARCH_PATH, limits: Limits | None = None
) -> Iterator[Scratch]:
    """Yield an empty repository in a private folder (in ``inside``), gone at the end.

    ``sample`` is an object id of the kind it is to have: 40 hexadecimal digits for SHA-1, 64 for SHA-256.

    Raises:
        MachineError: git is not installed, or there is no room.
    """
    kind = "sha256" if len(sample) == 64 else "sha1"
    with tempfile.TemporaryDirectory(dir=inside, prefix="git-") as name:
        made = Scratch(folder=Path(name), search_path=search_path, limits=limits)
        answer = made.git("init", "--quiet", "--bare", "--template=", f"--object-format={kind}")
        if answer.exit_code != 0:
            raise MachineError(f"git init in {name} failed: {answer.reason}", hint="git 2.29 or newer is needed")
        yield made


def _limit(pid: int, limits: Limits) -> None:
    for kind, most in ((resource.RLIMIT_AS, limits.memory), (resource.RLIMIT_CPU, limits.cpu_seconds)):
        hard = resource.prlimit(pid, kind)[1]
        ceiling = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, kind, (ceiling, ceiling))
