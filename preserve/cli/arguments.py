"""The command line as the user writes it. Imports nothing but argparse, so that --help is quick."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from preserve import __version__

Add = Callable[[argparse.ArgumentParser], None]

EXIT_CODES = """exit codes: 0 done; 1 a finding; 2 your file or command line is wrong; 3 this machine (engine, disk);
4 a step failed; 5 bytes are not what their digest says; 130 interrupted, run again to go on"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read a command line (``None``: the process's own); a wrong one ends the process with exit code 2."""
    top = parser()
    arguments, rest = top.parse_known_args(argv)
    if rest:
        step = arguments.command == "run" and not rest[0].startswith("-")
        top.error(f"unrecognized arguments: {' '.join(rest)}" + (f" (a step: run --step {rest[0]})" if step else ""))
    return arguments


def parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    top = argparse.ArgumentParser(
        prog="preserve",
        description="Declare, lock and run a physics analysis in pinned containers, and record what it did.",
        epilog="a first run: preserve lock && preserve run\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _folder(top)
    top.add_argument("--version", action="version", version=f"preserve {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, example, add) in _COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example: {example}",
        )
        _folder(command, default=argparse.SUPPRESS)  # what stands before the command holds
        level = command.add_mutually_exclusive_group()
        level.add_argument("-q", "--quiet", action="store_true", help="say only what is wrong")
        level.add_argument("-v", "--verbose", action="store_true", help="say more")
        add(command)
    return top


def _folder(command: argparse.ArgumentParser, *, default: str | None = None) -> None:
    what = "the analysis folder (default: the one that you are in)"
    command.add_argument("-C", dest="folder", metavar="FOLDER", default=default, help=what)


def _nothing(command: argparse.ArgumentParser) -> None:
    """Add no options."""


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def _engine(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--engine", choices=("docker", "apptainer"), help="what runs the containers (default: Docker, else Apptainer)"
    )
    command.add_argument(
        "--sif", action="store_true", help="with Apptainer: one SIF file per image, no unpacked folder"
    )


def _jobs(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-j", "--jobs", type=_positive, default=1, metavar="N", help="CPUs to use at a time (default: 1)"
    )


def _several(command: argparse.ArgumentParser, flag: str, *, dest: str, metavar: str, summary: str) -> None:
    """Add an option that may be given several times."""
    command.add_argument(flag, dest=dest, action="append", default=[], metavar=metavar, help=summary)


def _archive_file(command: argparse.ArgumentParser) -> None:
    command.add_argument("archive", metavar="ARCHIVE")


def _lock(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--update",
        nargs="*",
        metavar="IMAGE",
        help="resolve these images anew and take the present commit's time; without a name: all, and remote inputs too",
    )


def _run(command: argparse.ArgumentParser) -> None:
    _jobs(command)
    _engine(command)
    _several(command, "-p", dest="parameters", metavar="NAME=VALUE", summary="set a parameter for this run")
    _several(command, "--step", dest="step", metavar="NAME", summary="only this step and what it needs")
    command.add_argument(
        "-k", "--keep-going", action="store_true", help="after a failure, run what does not depend on it"
    )
    command.add_argument("--no-cache", action="store_true", help="run every step, whatever is known")
    command.add_argument(
        "--trace-inputs", action="store_true", help="watch the steps that run, and name declared inputs they never open"
    )
    command.add_argument(
        "-n", "--dry-run", action="store_true", help="say which steps would run and why, and do nothing"
    )
    _json(command)


def _log(command: argparse.ArgumentParser) -> None:
    command.add_argument("step", metavar="STEP")


def _shell(command: argparse.ArgumentParser) -> None:
    command.add_argument("step", metavar="STEP")
    _engine(command)


def _archive(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", nargs="?", metavar="RUN", help="a run by its folder's name (default: the last one)")
    command.add_argument("-o", "--output", metavar="FILE", help="the archive (default: FOLDER.crate.zip, here)")
    command.add_argument(
        "--without",
        action="append",
        default=[],
        choices=("images", "inputs", "intermediates"),
        help="leave these out: they stay known by digest; may be given several times",
    )
    command.add_argument(
        "--leave-out",
        action="append",
        default=[],
        metavar="GLOB",
        help="leave out the products (results too) that this names: they stay known by digest, results by their "
        "fingerprint too; may be given several times",
    )
    command.add_argument(
        "--allow-dirty", action="store_true", help="archive code that is not committed, as a patch beside the history"
    )
    _json(command)


def _show(command: argparse.ArgumentParser) -> None:
    _archive_file(command)
    _json(command)


def _signers(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--allowed-signers", metavar="F", help="whose signatures count: a file as ssh-keygen(1) describes it"
    )
    command.add_argument(
        "--require-signature", action="store_true", help="without a good signature of an allowed signer: refused"
    )


def _verify(command: argparse.ArgumentParser) -> None:
    _archive_file(command)
    command.add_argument("--deep", action="store_true", help="unpack image layers and the code's history to check them")
    _signers(command)
    _json(command)


def _replay(command: argparse.ArgumentParser) -> None:
    _archive_file(command)
    _jobs(command)
    _engine(command)
    _several(command, "--only", dest="only", metavar="STEP", summary="run just this step anew")
    command.add_argument(
        "--from", dest="start", metavar="STEP", help="begin with this step, with archived products before it"
    )
    _several(command, "-p", dest="parameters", metavar="NAME=VALUE", summary="recast: another parameter")
    _several(command, "--input", dest="inputs", metavar="PATH=FILE", summary="recast: another input")
    command.add_argument("--keep", metavar="FOLDER", help="work in this new folder and leave all there")
    command.add_argument("--allow-network", action="store_true", help="let steps that declare it reach your network")
    _signers(command)
    _json(command)


def _diff(command: argparse.ArgumentParser) -> None:
    what = "a run (its folder, or its name), an archive, a folder or a file"
    command.add_argument("recorded", metavar="A", help=f"what is taken as recorded: {what}")
    command.add_argument("found", metavar="B", help="what is compared with it")
    command.add_argument(
        "--policy", metavar="F", help="judge by the rules in this file instead: a YAML of the form of results:"
    )
    _json(command)


def _sign(command: argparse.ArgumentParser) -> None:
    _archive_file(command)
    command.add_argument(
        "--key", required=True, metavar="K", help="your private SSH key, or a public one that ssh-agent holds"
    )


def _probe(command: argparse.ArgumentParser) -> None:
    command.add_argument("steps", nargs="*", metavar="STEP", help="only these steps (default: all of the last run)")
    _engine(command)
    command.add_argument(
        "--calibrate", action="store_true", help="propose rules for results: ten times what was measured"
    )
    _json(command)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number, at least 1, not {text!r}")
    return int(text)


_COMMANDS: dict[str, tuple[str, str, Add]] = {
    "validate": ("check preserve.yaml; all faults at once", "preserve validate -C examples/zpeak", _nothing),
    "lock": (
        "pin every image, input and the code's commit in preserve.lock",
        "preserve lock --update scikit-hep",
        _lock,
    ),
    "run": ("run what is not yet done, and record everything", "preserve run -j 2 --engine apptainer", _run),
    "status": ("say what ran, how long it took, what failed", "preserve status --json", _json),
    "log": ("print what a step printed", "preserve log fit", _log),
    "shell": ("open a shell in a step's own container, its inputs in place", "preserve shell fit", _shell),
    "archive": (
        "make one self-contained file of a run",
        "preserve archive -o zpeak.crate.zip",
        _archive,
    ),
    "show": ("say what is in an archive, without unpacking it", "preserve show zpeak.crate.zip", _show),
    "verify": (
        "say whether an archive is intact, complete and signed; needs no engine",
        "preserve verify zpeak.crate.zip --allowed-signers signers",
        _verify,
    ),
    "replay": (
        "run what an archive holds again, offline, and say whether the results are the same",
        "preserve replay zpeak.crate.zip --engine apptainer -j 2",
        _replay,
    ),
    "diff": (
        "compare two runs, archives, folders or files by what they contain",
        "preserve diff zpeak.crate.zip .preserve/runs/20261123T090000.000000Z --policy looser.yaml",
        _diff,
    ),
    "sign": ("sign an archive with an SSH key", "preserve sign zpeak.crate.zip --key ~/.ssh/id_ed25519", _sign),
    "probe": (
        "say which step is not reproducible, and under which variation",
        "preserve probe fit --calibrate",
        _probe,
    ),
    "doctor": ("say what this machine can do and what is missing", "preserve doctor", _json),
}
