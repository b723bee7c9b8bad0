"""Steps against the engines' own floor: W1, a chain of 5; W2, a fan of 100 and a merge, two at a time.

The floor is a bare loop of `docker run` or `apptainer exec` with the same image and isolation, as far as their words
reach: `docker run` cannot say what spares the daemon its networks (docs/decisions/0011). Both are timed in turn
in one run, so that the ratios hold on a machine whose speed drifts. Usage: python benchmarks/steps.py [ROUNDS]
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

STEP = "  - {{name: {name}, stage: processing, image: tiny, {more}command: [/bin/busybox, touch, {out}]}}\n"
HEAD = "format: 1\ntitle: floor\nimages: {tiny: {build: image/}}\nsteps:\n"
RECIPE = "debian: {suite: bookworm, packages: [busybox-static]}\n"
MERGE = (
    "  - {name: merge, stage: assembly, image: tiny, inputs: ['o/*'], outputs: [m/x], "
    "command: [/bin/busybox, touch, m/x]}\n"
)


def chain(length: int) -> str:
    """Each step reads what the one before it made."""
    steps = []
    for number in range(length):
        before = f"inputs: [o{number - 1}/x], " if number else ""
        steps.append(STEP.format(name=f"s{number}", more=f"{before}outputs: [o{number}/x], ", out=f"o{number}/x"))
    return HEAD + "".join(steps)


def fan(width: int) -> str:
    """Steps that read nothing, and one that reads all they made."""
    outs = [f"o/{number}" for number in range(width)]
    steps = [STEP.format(name=f"s{n}", more=f"outputs: [{out}], ", out=out) for n, out in enumerate(outs)]
    return HEAD + "".join(steps) + MERGE


def preserve(*arguments: str) -> str:
    """Run the command; give its stdout."""
    done = subprocess.run([sys.executable, "-m", "preserve", *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def floor_command(engine: str, folder: Path, out: Path) -> list[str]:
    """One bare container with the isolation of a step (docs/reference/isolation.md), as one would write it by hand."""
    touch = ["/bin/busybox", "touch", "/work/x"]
    if engine == "docker":
        lock = json.loads((folder / "preserve.lock").read_text())
        hard = (
            "--rm --pull never --network none --dns 192.0.2.1 --ipc private --shm-size 1g --read-only --tmpfs /tmp "
            "--cap-drop ALL --init --hostname preserve --log-driver none --pids-limit 4096 --cpu-period 100000 "
            "--cpu-quota 100000 --ulimit core=0:0 --ulimit nofile=1024:4096"
        )
        limits = ["--security-opt", "no-new-privileges", "--user", f"{os.getuid()}:{os.getgid()}"]
        mount = ["--mount", f"type=bind,source={out},target=/work", "--workdir", "/work"]
        return ["docker", "run", *hard.split(), *limits, *mount, lock["images"]["tiny"]["config_digest"], *touch]
    image = next((folder / ".preserve/images/apptainer/images").glob("*-folder")) / "image"
    hard = (
        "--containall --no-home --cleanenv --no-eval --net --network none --no-mount bind-paths --no-privs --uts "
        "--hostname preserve --pwd /work"
    )
    return [
        "apptainer",
        "-q",
        "exec",
        *hard.split(),
        "--mount",
        f"type=bind,source={out},target=/work",
        str(image),
        *touch,
    ]


def floor(engine: str, folder: Path, counts: tuple[int, ...], jobs: int) -> None:
    """Run bare containers, ``jobs`` at a time: as many as each of ``counts``, which wait for one another."""
    out = folder / "floor"
    out.mkdir(exist_ok=True)
    command = floor_command(engine, folder, out)
    with ThreadPoolExecutor(jobs) as pool:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        for count in counts:
            for done in pool.map(lambda _: subprocess.run(command, check=False, **quiet), range(count)):
                done.check_returncode()


def timed(call: object, *arguments: object) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call(*arguments)  # type: ignore[operator]
    return time.perf_counter() - start


def main() -> None:
    """Print, for each engine and work load, the median ratio to the floor and the seconds above it."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    top = Path(tempfile.mkdtemp(prefix="preserve-bench-"))
    try:
        for name, text, counts, jobs in (("W1", chain(5), (5,), 1), ("W2", fan(100), (100, 1), 2)):
            for engine in ("docker", "apptainer"):
                folder = top / f"{name}-{engine}"
                (folder / "image").mkdir(parents=True)
                (folder / "image/image.yaml").write_text(RECIPE)
                (folder / "preserve.yaml").write_text(text)
                preserve("lock", "-q", "-C", str(folder))
                run = ("run", "-q", "--no-cache", "-C", str(folder), "-j", str(jobs), "--engine", engine)
                preserve(*run)
                pairs = [(timed(preserve, *run), timed(floor, engine, folder, counts, jobs)) for _ in range(rounds)]
                ratio = statistics.median(ours / bare for ours, bare in pairs)
                above = statistics.median(ours - bare for ours, bare in pairs)
                print(f"{name} {engine:10} {ratio:5.2f} x floor   {above:+6.2f} s", flush=True)
    finally:
        shutil.rmtree(top, ignore_errors=True)


if __name__ == "__main__":
    main()
