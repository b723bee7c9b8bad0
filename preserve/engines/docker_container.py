"""What a container of Docker's is given: the isolation of docs/reference/isolation.md in Docker's words."""

from __future__ import annotations

import secrets
from pathlib import Path

from docker import APIClient
from docker.types import HostConfig, LogConfig, Ulimit
from docker.types import Mount as DockerMount

from preserve.engines import environment
from preserve.errors import MachineError
from preserve.interfaces import Mount, RunRequest

TEMPORARY = dict.fromkeys(("/tmp", "/var/tmp"), "rw,exec,nosuid,nodev,size=8g,mode=1777")  # noqa: S108


def host_config(client: APIClient, request: RunRequest, files: tuple[Mount, ...]) -> HostConfig:
    """Give limits, mounts (``files`` are those of /etc) and what the container may not do."""
    resources = request.resources
    mounts = [
        DockerMount(mount.target, str(mount.source), type="bind", read_only=mount.read_only)
        for mount in (*files, *request.mounts)
    ]
    return client.create_host_config(
        network_mode="host" if request.network else "none",
        read_only=True,
        tmpfs=TEMPORARY,
        shm_size="1g",
        mounts=mounts,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        ipc_mode="private",
        init=True,  # reaps orphans and passes signals on; without it the command is process 1 and ignores them
        pids_limit=4096,
        mem_limit=resources.memory,
        memswap_limit=resources.memory,
        cpu_period=100_000,
        cpuset_cpus=",".join(map(str, request.cpus_allowed)) or None,
        cpu_quota=100_000 * resources.cpus,  # unlike NanoCpus not refused on a machine with fewer CPUs
        ulimits=[Ulimit(name="core", soft=0, hard=0), Ulimit(name="nofile", soft=1024, hard=4096)],
        log_config=LogConfig(type="none"),  # the streams are ours; the daemon keeps no second copy
    )


def write_own_files(cache: Path, host_name: str) -> tuple[Mount, ...]:
    """Write what a container without network finds in /etc; any user in it may read them."""
    folder = cache.absolute() / "etc" / host_name
    texts = {**environment.OFFLINE_FILES, "hostname": f"{host_name}\n"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            beside = folder / f"{name}.{secrets.token_hex(6)}"
            beside.write_text(text)
            beside.chmod(0o644)
            beside.replace(folder / name)
    except OSError as error:
        raise MachineError(f"cannot write {folder}: {error.strerror}", hint="make room there") from error
    return tuple(Mount(source=folder / name, target=f"/etc/{name}") for name in texts)
