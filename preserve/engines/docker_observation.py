"""What is seen of a running container of Docker's from outside."""

from __future__ import annotations

from docker import APIClient

from preserve.engines.network import NetworkCounter
from preserve.engines.usage import Usage
from preserve.interfaces import Execution


class Observation:
    """What is seen of a running container from outside; empty for a daemon on another machine."""

    def __init__(self, client: APIClient, name: str) -> None:
        state = client.inspect_container(name)
        pid = state["State"]["Pid"] if client.base_url.startswith("http+docker://localhost") else 0
        self._usage = Usage(state["Id"], pid)
        network = state["HostConfig"]["NetworkMode"]
        self._network = NetworkCounter.of_process(pid) if pid and network == "none" else None
        self._attempts: int | None = None

    def __enter__(self) -> Observation:
        return self

    def __exit__(self, *_: object) -> None:
        self._usage.close()
        if self._network is not None:
            self._attempts = self._network.read_and_close()

    def sample(self) -> None:
        """Read the counters once."""
        self._usage.sample()

    def execution(self, *, exit_code: int, timed_out: bool, stopped: bool) -> Execution:
        """Give what was seen, after the ``with`` block, with how the command ended."""
        return Execution(
            exit_code=exit_code,
            cpu_seconds=self._usage.cpu_seconds,
            peak_memory=self._usage.peak_memory,
            network_attempts=self._attempts,
            timed_out=timed_out,
            stopped=stopped,
        )
