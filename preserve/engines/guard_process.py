"""The guard: a process of its own that ends what a dead run leaves. Standard library only; run as a script.

It reads one JSON list per line: ``["+", kind, name]`` when a container is about to start, ``["-", kind, name]`` when
it is gone. At the end of its input, which is also what a kill -9 of its parent gives it, it ends what is left.
Kinds: ``docker`` (name of a container; the daemon is the second argument) and ``scratch`` (a run's temporary folder,
which every process of an Apptainer container carries in its environment). The first argument is the parent's session.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

PATIENCE = 10.0  # seconds for a daemon that does not answer
UNBORN = 2.0  # seconds in which a container may still come from a request that was under way


def main() -> int:
    """Read until the end of the input, then end what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when its parent does, not before
    left: dict[tuple[str, str], None] = {}
    for line in sys.stdin.buffer:
        if not line.endswith(b"\n"):
            break
        sign, kind, name = json.loads(line)
        if sign == "+":
            left[kind, name] = None
        else:
            left.pop((kind, name), None)
    for kind, name in left:
        if kind == "scratch":
            end_scratch(name, beside=int(sys.argv[1]))
    end_docker(sys.argv[2] if len(sys.argv) > 2 else "", [name for kind, name in left if kind == "docker"])
    return 0


def end_scratch(folder: str, *, beside: int | None = None) -> None:
    """Kill every process that carries ``folder`` in its environment (see ``kill_carriers``), then remove the folder."""
    end_carriers(folder, beside=beside)
    shutil.rmtree(folder, ignore_errors=True)


def end_carriers(text: str, *, beside: int | None = None) -> None:
    """Kill every process with ``text`` in its environment, and wait until there is none."""
    quiet = 0
    while quiet < 3:  # a process between fork and exec shows another environment: look again
        quiet = 0 if kill_carriers(text, beside=beside) else quiet + 1
        time.sleep(0.03)


def kill_carriers(text: str, *, beside: int | None) -> int:
    """Send SIGKILL to all processes with ``text`` in their environment, and to what they started; give how many.

    A file system in user space that an engine started for an image has lost the text: it is known as their child, or
    by their session, where that was made for them: its leader is one of them, or is gone and the session is not
    ``beside``, that of the process that started them (``None``: not known). What else a user's session has is spared.
    """
    wanted, carriers = os.fsencode(text), set[int]()
    for pid in processes():
        try:
            if wanted in Path(f"/proc/{pid}/environ").read_bytes():
                os.kill(pid, signal.SIGSTOP)  # it starts nothing more
                carriers.add(pid)
        except OSError:
            continue  # gone, or not ours
    table = states()
    seen = {table[pid][1] for pid in carriers if pid in table}
    own = {session for session in seen if session in carriers or (beside is not None and session not in table)}
    own -= {0, os.getsid(0), beside}
    doomed, more = set[int](), carriers | {pid for pid, (_, session) in table.items() if session in own}
    while more:
        doomed |= more
        more = {pid for pid, (parent, _) in table.items() if parent in more} - doomed
    return kill(doomed)


def kill_session(session: int) -> int:
    """Send SIGKILL to every living process of a session that is not our own; give how many there were."""
    if session in (0, os.getsid(0)):
        return 0
    return kill({pid for pid, (_, its) in states().items() if its == session})


def kill(pids: set[int]) -> int:
    """Send SIGKILL to processes that may be gone, or not ours; give how many were there."""
    found = 0
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            found += 1
        except OSError:
            continue
    return found


def states() -> dict[int, tuple[int, int]]:
    """Give parent and session of every living process, a zombie being dead already."""
    found = {}
    for pid in processes():
        try:
            # "pid (name) state ppid group session …", proc(5)
            words = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[:4]
        except OSError:
            continue
        if words[0] != b"Z":
            found[pid] = (int(words[1]), int(words[3]))
    return found


def processes() -> list[int]:
    """List the processes of this machine, this one left out."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]  # noqa: PTH208


def end_docker(host: str, names: list[str]) -> None:
    """Remove the containers, asking again while the daemon is busy or a container may still be created."""
    if not names:
        return
    started = time.monotonic()
    left = dict.fromkeys(names)
    while left and time.monotonic() - started < PATIENCE:
        for name in tuple(left):
            status = remove_container(host, name)
            if status == 204 or (status == 404 and time.monotonic() - started > UNBORN):
                del left[name]
        time.sleep(0.05)


def remove_container(host: str, name: str) -> int:
    """Kill and remove one container; give the HTTP status (0: the daemon did not answer)."""
    import http.client  # noqa: PLC0415 - slow to import, and most guards never need it
    import socket  # noqa: PLC0415

    class Local(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(PATIENCE)
            self.sock.connect(host.partition("://")[2])

    address = host.partition("://")[2]
    unix = host.startswith("unix://")
    connection = Local("localhost") if unix else http.client.HTTPConnection(address, timeout=PATIENCE)
    try:
        connection.request("DELETE", f"/containers/{name}?force=true&v=true")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
