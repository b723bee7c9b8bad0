"""Each command: arguments to one operation, its result to text or JSON."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from preserve.cli import archives, comparing, probing
from preserve.cli.printing import folder_of, safe, say, settings_of, tell
from preserve.cli.progress import Lines
from preserve.documents.counted import all_are, counted, counted_of
from preserve.documents.plan import as_written
from preserve.documents.reading import parse_parameter
from preserve.documents.workflow import Value
from preserve.operations.folder import Folder

if TYPE_CHECKING:
    from preserve.operations.run import Outcome
    from preserve.scheduler.chain import Scheduler


def run_command(arguments: argparse.Namespace, scheduler: Scheduler) -> int:
    """Do what the parsed command line says and return the exit code."""
    if arguments.command == "run":
        return _run(arguments, scheduler)
    return {
        "validate": _validate,
        "lock": _lock,
        "status": _status,
        "log": _log,
        "shell": _shell,
        "archive": archives.archive,
        "show": archives.show,
        "verify": archives.verify,
        "replay": archives.replay,
        "diff": comparing.diff,
        "sign": archives.sign,
        "probe": probing.probe,
        "doctor": _doctor,
    }[arguments.command](arguments)


def _validate(arguments: argparse.Namespace) -> int:
    from preserve.operations.validate import validate  # noqa: PLC0415

    workflow, jobs = validate(folder_of(arguments))
    counts = (counted(len(workflow.steps), "step"), counted(jobs, "job"), counted(len(workflow.images), "image"))
    say(arguments, f"preserve.yaml is right: {', '.join(counts)}")
    return 0


def _lock(arguments: argparse.Namespace) -> int:
    from preserve.operations.lock import lock  # noqa: PLC0415

    with Lines(quiet=arguments.quiet) as progress:
        made, changed = lock(folder_of(arguments), settings_of(arguments), update=arguments.update, progress=progress)
    for name, pin in made.images.items():
        say(arguments, f"image {name}: {pin.reference} is {pin.manifest_digest}")
    if made.source is None:
        say(arguments, "note: no git commit here: the version of the code is not recorded")
    elif not made.source.clean:
        say(arguments, "note: the work tree has changes that are not committed")
    say(arguments, f"preserve.lock: {'written' if changed else 'nothing new'}")
    return 0


def _run(arguments: argparse.Namespace, scheduler: Scheduler) -> int:
    from preserve.operations.run import Options, run  # noqa: PLC0415

    def parameters(folder: Folder) -> Mapping[str, Value]:
        workflow = folder.workflow() if arguments.parameters else None
        return dict(parse_parameter(text, workflow) for text in arguments.parameters) if workflow else {}

    options = Options(
        jobs=arguments.jobs,
        keep_going=arguments.keep_going,
        no_cache=arguments.no_cache,
        dry_run=arguments.dry_run,
        only=tuple(arguments.step),
        trace_inputs=arguments.trace_inputs,
    )
    with Lines(quiet=arguments.quiet) as progress:
        outcome = run(
            folder_of(arguments),
            settings_of(arguments),
            options,
            scheduler=scheduler,
            parameters=parameters,
            progress=progress,
            say=lambda text: say(arguments, text),
        )
    for note in outcome.notes:
        say(arguments, f"note: {note}")
    if arguments.json:
        tell(_run_document(outcome))
    if not outcome.reasons:
        what = "no step has to run" if outcome.moved else "nothing to do"
        say(arguments, f"{what}: {all_are(len(outcome.records), 'step')} done")
    elif not options.dry_run:
        say(arguments, f"done: {counted_of(len(outcome.ran), len(outcome.records), 'step')} run")
    elif not arguments.json:
        print("\n".join(f"{step}: {reason}" for step, reason in outcome.reasons.items()))
    return 0


def _run_document(outcome: Outcome) -> dict[str, Any]:
    products = {product.path: product.sha256 for record in outcome.records.values() for product in record.products}
    return {
        "schema": "preserve/run/1",
        "reasons": dict(outcome.reasons),
        "products": products,
        "notes": list(outcome.notes),
    }


def _status(arguments: argparse.Namespace) -> int:
    from preserve.operations.status import status  # noqa: PLC0415

    run, plan, steps = status(folder_of(arguments))
    if arguments.json:
        rows = [{**asdict(step), "record": asdict(step.record) if step.record else None} for step in steps]
        tell({"schema": "preserve/status/1", "run": run.name, "parameters": dict(plan.parameters), "steps": rows})
        return 0
    print(f"run {run.name}  {safe(as_written(plan))}")
    width = max(len(step.step) for step in steps)
    for step in steps:
        seconds = f"{step.record.wall_seconds:9.2f} s" if step.record else " " * 11
        why = f"  {safe(step.record.failure or '')}" if step.record and step.state == "failed" else ""
        print(f"  {step.step:{width}}  {step.stage:14}  {step.state:11}{seconds}{why}".rstrip())
    for line in (line for step in steps for line in step.undeclared):
        print(f"note: {safe(line)}")
    return 0


def _log(arguments: argparse.Namespace) -> int:
    from preserve.operations.status import log  # noqa: PLC0415

    for path, stream in zip(log(folder_of(arguments), arguments.step), (sys.stdout, sys.stderr), strict=True):
        stream.flush()
        with path.open("rb") as source:
            if stream.isatty():
                stream.writelines(safe(line.decode(errors="replace")) for line in source)
            else:
                shutil.copyfileobj(source, stream.buffer)
        stream.flush()
    return 0


def _shell(arguments: argparse.Namespace) -> int:
    from preserve.operations.shell import shell  # noqa: PLC0415

    with Lines(quiet=True) as progress:
        return shell(
            folder_of(arguments),
            settings_of(arguments),
            arguments.step,
            progress=progress,
            say=lambda text: say(arguments, text),
        )


def _doctor(arguments: argparse.Namespace) -> int:
    from preserve.operations.doctor import doctor  # noqa: PLC0415

    facts = doctor(settings_of(arguments))
    if arguments.json:
        tell({"schema": "preserve/doctor/1", "engines": facts})
    else:
        for name, found in facts.items():
            print(f"{name}: {found['problem'] or 'works, version ' + str(found['version'])}")
            if found["problem"] is None and not found["limits_enforced"]:
                print("    memory and CPU limits are not enforced here")
    return 0 if any(found["problem"] is None for found in facts.values()) else 3
