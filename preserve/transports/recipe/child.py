"""Child processes of a build: an argv, a whitelisted environment, and errors that say what the child said."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from preserve.errors import MachineError

_PASSED = frozenset(
    (
        *("PATH", "HOME", "TMPDIR", "APT_CONFIG", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
        *("http_proxy", "https_proxy", "no_proxy", "all_proxy"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
    )
)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def allowed(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of a caller's environment that apt and pip may see: where to look, proxies, certificates, ``PIP_*``."""
    kept = {name: text for name, text in environment.items() if name in _PASSED or name.startswith("PIP_")}
    return {"PATH": _PATH, **kept, "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def call(
    argv: tuple[str, ...],
    *,
    environment: Mapping[str, str],
    folder: Path,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in ``folder`` and wait; without ``stdout`` its output is in the answer, as its messages always are.

    Raises:
        MachineError: there is no such program, or it may not be executed.
    """
    try:
        return subprocess.run(
            argv,
            env=dict(environment),
            cwd=folder,
            stdin=stdin or subprocess.DEVNULL,
            stdout=stdout or subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
        )
    except FileNotFoundError as error:
        raise MachineError(f"{argv[0]} is not installed on this machine") from error
    except OSError as error:
        raise MachineError(
            f"{argv[0]} cannot be executed: {error.strerror}",
            hint="programs must be allowed in the cache folder (it may lie on a disk mounted noexec)",
        ) from error


def said(process: subprocess.CompletedProcess[bytes], *, prefix: str = "") -> str:
    """The last lines of a child's messages, only those beginning with ``prefix`` where there are any."""
    lines = [line.rstrip() for line in process.stderr.decode(errors="replace").splitlines() if line.strip()]
    chosen = [line for line in lines if line.startswith(prefix)] or lines
    return "\n".join(chosen[-12:]) or f"exit code {process.returncode}, no message"
