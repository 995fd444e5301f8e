"""One line a notebook: on a terminal a live table, elsewhere plain lines that suit a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedlora_kit.batch.status import UNCHANGED, Status
from fedlora_kit.engines.stages import Training
from fedlora_kit.numerals import clock

Say = Callable[[str], object]
_HEARTBEAT = 30.0  # seconds between two plain lines of a notebook that goes on running


@dataclass
class Running:
    """A notebook under way. ``expected``: seconds the last ok run took; ``done``: share of cells behind us,
    0 to 1.
    """

    item: str
    since: float
    expected: float | None = None
    done: float = 0.0

    def elapsed(self) -> float:
        return time.monotonic() - self.since

    def remaining(self) -> float | None:
        """Estimated seconds: from the last run's time if there was one, else from the cells done so far."""
        if self.expected is not None:
            return max(0.0, self.expected - self.elapsed())
        return self.elapsed() * (1 - self.done) / self.done if self.done > 0 else None


class Reporter:
    """What `pipeline.reproduce` tells while it works, from one thread; this one says nothing."""

    def training(self, now: Training) -> None: ...
    def begin(self, total: int) -> None: ...
    def start(self, running: Running) -> None: ...
    def tick(self, running: list[Running], waiting: int) -> None: ...
    def end(self, status: Status) -> None: ...
    def close(self) -> None: ...


class PlainLines(Reporter):
    """A line when a notebook starts, ends, and every half minute between; likewise for the training."""

    def __init__(self, say: Say = print) -> None:
        self._say = say
        self._total = self._ended = 0
        self._spoken: dict[str, float] = {}
        self._trained: float | None = None

    def training(self, now: Training) -> None:
        last = self._trained
        if last is None or time.monotonic() - last >= _HEARTBEAT or now.ended == now.total:
            self._trained = time.monotonic()
            self._say(f"[{now.ended}/{now.total}] training runs: {now.times()}")

    def begin(self, total: int) -> None:
        self._total = total

    def start(self, running: Running) -> None:
        self._spoken[running.item] = time.monotonic()
        expected = f", last time {clock(running.expected)}" if running.expected is not None else ""
        self._say(f"[{self._ended}/{self._total}] {running.item}: running{expected}")

    def tick(self, running: list[Running], waiting: int) -> None:
        for one in running:
            if time.monotonic() - self._spoken[one.item] >= _HEARTBEAT:
                self._spoken[one.item] = time.monotonic()
                self._say(
                    f"[{self._ended}/{self._total}] {one.item}: {clock(one.elapsed())} elapsed, "
                    f"about {clock(one.remaining())} to go, {one.done:.0%} of its cells done"
                )

    def end(self, status: Status) -> None:
        self._ended += 1
        time_taken = "" if status.status == UNCHANGED else f" after {clock(status.seconds)}"
        reason = f": {status.error.splitlines()[0]}" if status.error else ""
        self._say(f"[{self._ended}/{self._total}] {status.item}: {status.status}{time_taken}{reason}")


class LiveTable(Reporter):
    """A live line a notebook, by rich."""

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._bars = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[times]}", markup=False),
            console=console,
        )
        self._tasks: dict[str, Any] = {}
        self._all: Any = None
        self._training: Any = None
        self._began = time.monotonic()

    def training(self, now: Training) -> None:
        if self._training is None:
            self._bars.start()
            self._training = self._bars.add_task("training runs", total=now.total, times="")
        times = f"{now.ended} of {now.total}, {now.times()}"
        self._bars.update(self._training, total=now.total, completed=now.ended, times=times)

    def begin(self, total: int) -> None:
        self._bars.start()
        if self._training is not None:
            self._bars.stop_task(self._training)
        self._began = time.monotonic()
        if total > 1:
            self._all = self._bars.add_task("all notebooks", total=total, times="")

    def start(self, running: Running) -> None:
        self._tasks[running.item] = self._bars.add_task(running.item, total=1.0, times="")

    def tick(self, running: list[Running], waiting: int) -> None:
        for one in running:
            left = one.remaining()
            # By time where the last run's is known (a cell may hold nearly all the work), else by cells.
            share = one.elapsed() / one.expected if one.expected else one.done
            times = f"{clock(one.elapsed())} elapsed, about {clock(left)} to go"
            self._bars.update(self._tasks[one.item], completed=min(share, 0.99), times=times)
        if self._all is not None:
            times = f"{clock(time.monotonic() - self._began)} elapsed, {waiting} waiting"
            self._bars.update(self._all, times=times)

    def end(self, status: Status) -> None:
        if status.item in self._tasks:
            times = f"{status.status} after {clock(status.seconds)}"
            self._bars.update(self._tasks[status.item], completed=1.0, times=times)
            self._bars.stop_task(self._tasks[status.item])
        else:
            task = self._bars.add_task(status.item, total=1.0, completed=1, times=status.status)
            self._bars.stop_task(task)
        if self._all is not None:
            self._bars.advance(self._all)

    def close(self) -> None:
        self._bars.stop()
