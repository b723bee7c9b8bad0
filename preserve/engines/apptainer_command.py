"""What a container of Apptainer's is given: the isolation of docs/reference/isolation.md in Apptainer's words."""

from __future__ import annotations

from pathlib import Path

from preserve.engines import environment
from preserve.engines.apptainer_program import Program
from preserve.engines.prepared import STARTED, PreparedImage
from preserve.interfaces import Mount, RunRequest

SPECIAL = ("HOME", "PATH", "LD_LIBRARY_PATH", "PREPEND_PATH", "APPEND_PATH")  # the engine treats these its own way


def argv(
    program: Program, image: PreparedImage, request: RunRequest, scratch: Path, *, limits: bool
) -> tuple[str, ...]:
    """Give the argv of one container; ``limits``: whether they can be enforced here."""
    options = ["--containall", "--no-home", "--cleanenv", "--no-eval", "--no-privs"]
    options += ["--hostname", request.host_name, "--workdir", str(scratch / "work")]
    options += ["--pwd", request.working_folder]
    mounts = [Mount(source=image.files / name, target=f"/etc/{name}") for name in ("passwd", "group")]
    if not request.network:
        options += ["--net", "--network", "none", "--no-mount", "bind-paths"]
        mounts += [Mount(source=image.files / name, target=f"/etc/{name}") for name in environment.OFFLINE_FILES]
    mounts.append(Mount(source=scratch / "started", target=STARTED, read_only=False))
    for mount in (*mounts, *request.mounts):
        options += ["--mount", mount_option(mount)]
    if limits:
        options += ["--memory", str(request.resources.memory), "--memory-swap", str(request.resources.memory)]
        options += ["--cpus", str(request.resources.cpus), "--pids-limit", "4096"]
    return (program.path, "--silent", "exec", *options, str(image.path), *request.command)


def mount_option(mount: Mount) -> str:
    """Give ``--mount``'s value: one CSV record (RFC 4180), so that no character of a path means anything."""
    fields = [
        "type=bind",
        f"source={mount.source}",
        f"destination={mount.target}",
        *(["ro"] if mount.read_only else []),
    ]
    return ",".join(f'"{field.replace(chr(34), 2 * chr(34))}"' for field in fields)


def start_script(flavour: str) -> str:
    """Give the shell lines that the engine's own interpreter runs in the container in place of its start-up scripts.

    It hands over at once: nothing but the request's variables is exported, and no shell of the image is needed.
    """
    special = "".join(
        f'if test -v PRESERVE_{name}; then export {name}="${{PRESERVE_{name}}}"; else unset {name}; fi\n'
        f"unset PRESERVE_{name}\n"
        for name in SPECIAL
    )
    return (
        f'source "/.inject-{flavour}-env.sh"\n'
        f"{special}"
        "unset PWD OLDPWD OPTIND SINGULARITY_APPNAME\n"
        f'echo started > "{STARTED}"\n'
        'if ! command -v "$1" > /dev/null; then\n'
        '    case "$1" in */*)\n'  # no search on PATH
        '        if test -f "$1"; then\n'
        '            echo "$1: not executable" >&2\n'
        "            exit 126\n"
        "        fi\n"
        "    esac\n"
        '    echo "$1: not found in the image" >&2\n'
        "    exit 127\n"
        "fi\n"
        'exec "$@"\n'
    )
