"""What the user sees of a long command: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from preserve.cli.printing import safe


class Lines:
    """A ``Progress`` that writes to stderr: one line a step, and on a terminal a bar for bytes."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._since: dict[str, float] = {}

    def __enter__(self) -> Lines:
        """Start the display."""
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console  # noqa: PLC0415  (a tenth of a second, only for a terminal)
            from rich.progress import Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415
            from rich.table import Column  # noqa: PLC0415

            # on a narrow terminal the name gives way, not the time; lines that stay are wrapped by the terminal alone
            name = Column(overflow="ellipsis", no_wrap=False)
            self._bars = Progress(
                TextColumn("{task.description}", markup=False, table_column=name),
                TextColumn("{task.fields[amount]}", markup=False),
                TimeElapsedColumn(),
                console=Console(stderr=True, soft_wrap=True),
                transient=True,
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the display down."""
        if self._bars is not None:
            self._bars.stop()

    def step_started(self, step: str) -> None:
        """Show the step as running."""
        if self._bars is not None:
            self._tasks[step] = self._bars.add_task(step, amount="running")

    def step_finished(self, step: str, *, outcome: str, seconds: float) -> None:
        """Leave a line: step, outcome, seconds."""
        line = f"  {step}: {outcome}, {seconds:.2f} s"
        if self._bars is not None:
            if step in self._tasks:
                self._bars.remove_task(self._tasks.pop(step))
                self._bars.refresh()  # else it is shown as running below the line that says it is done
            self._bars.console.print(line, markup=False, highlight=False)
        elif not self._quiet:
            print(line, file=sys.stderr, flush=True)

    def bytes_done(self, what: str, done: int, total: int | None) -> None:
        """Show how far a transfer is and how long the rest may take (terminal only)."""
        if self._bars is None:
            return
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(safe(what), amount="")
            self._since[what] = time.monotonic()
        amount = f"{done / 1e6:.1f}" + (f" of {total / 1e6:.1f}" if total else "") + " MB"
        if total and done:
            amount += f", {(time.monotonic() - self._since[what]) * (total - done) / done:.0f} s left"
        self._bars.update(self._tasks[what], amount=amount)
        if total is not None and done >= total:
            self._bars.remove_task(self._tasks.pop(what))
