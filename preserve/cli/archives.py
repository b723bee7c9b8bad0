"""The commands about archives: archive, show, verify, replay, sign."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preserve.cli.comparing import show_comparison
from preserve.cli.printing import folder_of, safe, say, settings_of, shown_bytes, tell
from preserve.cli.progress import Lines
from preserve.documents.counted import some
from preserve.documents.plan import as_written
from preserve.errors import UserError

if TYPE_CHECKING:
    from preserve.documents.archive import Contents
    from preserve.operations.show import Shown


def archive(arguments: argparse.Namespace) -> int:
    """Make an archive of a run."""
    from preserve.operations.archive import Choices, archive  # noqa: PLC0415

    folder = folder_of(arguments)
    target = Path(arguments.output or f"{folder.root.resolve().name}.crate.zip").absolute()
    choices = Choices(
        run=arguments.run,
        without=frozenset(arguments.without),
        leave_out=tuple(arguments.leave_out),
        allow_dirty=arguments.allow_dirty,
    )
    with Lines(quiet=arguments.quiet) as progress:
        made = archive(folder, settings_of(arguments), target, choices, progress=progress)
    for note in made.notes:
        say(arguments, f"note: {note}")
    say(arguments, f"{made.path.name}: {shown_bytes(made.size)}, {made.completeness}")
    if arguments.json:
        document = {"archive": str(made.path), "archive_id": made.archive_id, "completeness": made.completeness}
        tell({"schema": "preserve/archived/1", "size": made.size, **document})
    else:
        print(made.archive_id)
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Print what an archive holds."""
    from preserve.operations.show import show  # noqa: PLC0415

    shown = show(Path(arguments.archive))
    if arguments.json:
        tell(_shown_document(shown))
    else:
        print("\n".join(_shown_lines(shown)))
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Say whether an archive is intact."""
    from preserve.operations.verify import Choices, verify  # noqa: PLC0415

    choices = Choices(
        deep=arguments.deep,
        allowed_signers=_path(arguments.allowed_signers),
        require_signature=arguments.require_signature,
        search_path=settings_of(arguments).search_path,
    )
    with Lines(quiet=arguments.quiet) as progress:
        found = verify(Path(arguments.archive), choices, progress=progress)
    if arguments.json:
        tell(found.to_json())
    else:
        for finding in found.findings:
            print(safe(str(finding)))
        held = "" if found.completeness == "unknown" else f"; {found.completeness}"
        print(safe(f"{arguments.archive}: {found.trust}{held}"))
        if found.left_out:
            print(safe(f"left out, results known by their fingerprints: {some(found.left_out, 8)}"))
        if found.intact and not choices.deep:
            print("not looked into: what the layers of images unpack to, the code's history (--deep does)")
        print(f"archive id: {found.archive_id or 'none'}")
        if found.archive_id is None and not Path(arguments.archive).is_dir():
            print("if another program packed it again: unzip it, and verify the folder")
    return 0 if found.intact else 1


def replay(arguments: argparse.Namespace) -> int:
    """Replay an archive and give the verdict."""
    from preserve.operations.replay import replay  # noqa: PLC0415
    from preserve.operations.replay_choices import Choices  # noqa: PLC0415

    if os.geteuid() == 0:
        say(arguments, "note: you are root; somebody else's programs are better replayed as an ordinary user")
    choices = Choices(
        only=tuple(arguments.only),
        start=arguments.start,
        parameters=tuple(arguments.parameters),
        inputs=dict(_replacement(text) for text in arguments.inputs),
        keep=_path(arguments.keep),
        network=arguments.allow_network,
        jobs=arguments.jobs,
        allowed_signers=_path(arguments.allowed_signers),
        require_signature=arguments.require_signature,
    )
    with Lines(quiet=arguments.quiet) as progress:
        done = replay(
            Path(arguments.archive),
            settings_of(arguments),
            choices,
            progress=progress,
            say=lambda text: say(arguments, text),
        )
    comparison = done.comparison
    if arguments.json:
        tell(comparison.to_json())
    else:
        show_comparison(arguments, comparison)
    if done.folder is not None:
        again = "".join(f" -p {shlex.quote(text)}" for text in arguments.parameters)
        say(arguments, f"the replayed analysis: {done.folder} (to go on there: preserve run -C {done.folder}{again})")
    return 0 if comparison.passed or comparison.recast else 1


def sign(arguments: argparse.Namespace) -> int:
    """Sign an archive."""
    from preserve.operations.sign import sign  # noqa: PLC0415

    say(arguments, "verifying it first: every byte")
    signed = sign(Path(arguments.archive), Path(arguments.key), settings_of(arguments))
    done = "signed" if signed.added else "was signed already"
    say(arguments, f"{arguments.archive} {done} with key {signed.fingerprint} ({signed.name})")
    print(signed.archive_id)
    return 0


def _replacement(text: str) -> tuple[str, Path]:
    path, equals, file = text.partition("=")
    if not equals or not path or not file:
        raise UserError(f"--input {text}: not of the form PATH=FILE", hint="--input data/masses.txt=other.txt")
    return path, Path(file)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _shown_lines(shown: Shown) -> list[str]:
    contents, plan = shown.contents, shown.contents.plan
    lines = [
        safe(plan.title),
        *(f"  {safe(author.name)}" for author in plan.authors),
        f"archive id    {shown.archive_id}",
        f"size          {shown_bytes(shown.size)}, {contents.completeness}",
        f"left out      {', '.join((*sorted(contents.without), *_left_out(contents))) or 'nothing'}",
        f"signatures    {', '.join(shown.signed_with) or 'none'}" + (" (not checked)" if shown.signed_with else ""),
    ]
    engines = {f"{record.engine.name} {record.engine.version}" for record in contents.records.values()}
    source = plan.source
    lines += [
        f"run ended     {contents.ended[:19]} UTC, on {safe(', '.join(sorted(engines)))}",
        f"parameters    {safe(as_written(plan))}",
        f"code          {f'git commit {source.commit}' if source else 'not under git'}"
        + (", with uncommitted changes" if contents.patched else ""),
    ]
    if contents.parent:
        lines.append(f"made from     {contents.parent}")
    width = max(len(step.id) for step in plan.steps)
    lines.append("steps")
    for step in plan.steps:
        record = contents.records[step.id]
        lines.append(
            f"  {step.id:{width}}  {step.stage:14}  {record.wall_seconds:9.2f} s  "
            f"{step.image} {plan.images[step.image].manifest_digest[:19]}"
        )
    lines.append("results")
    for path in contents.results:
        pin = contents.pins[path]
        outside = "" if contents.holds(path) else "  (not inside)"
        lines.append(f"  {safe(path)}  {shown_bytes(pin.size)}  {pin.sha256}{outside}")
    return lines


def _left_out(contents: Contents) -> list[str]:
    return [safe(some(sorted(contents.left_out), 3))] if contents.left_out else []


def _shown_document(shown: Shown) -> dict[str, Any]:
    contents, plan = shown.contents, shown.contents.plan
    steps = [
        {
            "step": step.id,
            "stage": step.stage,
            "image": plan.images[step.image].manifest_digest,
            "wall_seconds": contents.records[step.id].wall_seconds,
            "products": {p.path: {"sha256": p.sha256, "size": p.size} for p in contents.records[step.id].products},
        }
        for step in plan.steps
    ]
    return {
        "schema": "preserve/shown/1",
        "title": plan.title,
        "authors": [author.name for author in plan.authors],
        "archive_id": shown.archive_id,
        "size": shown.size,
        "completeness": contents.completeness,
        "without": sorted(contents.without),
        "left_out": sorted(contents.left_out),
        "parent": contents.parent,
        "parameters": dict(plan.parameters),
        "commit": plan.source.commit if plan.source else None,
        "ended": contents.ended,
        "inputs": {path: {"sha256": pin.sha256, "size": pin.size} for path, pin in plan.inputs.items()},
        "signed_with": list(shown.signed_with),
        "steps": steps,
        "results": list(contents.results),
    }
