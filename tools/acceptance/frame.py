"""Checks one after the other within a time: each on its own, and what is known is written after each."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from fedlora_kit.devices import release

Status = Literal["passed", "failed", "skipped", "not run"]


class Skipped(Exception):
    """A check that says nothing here; the message is the reason."""


class TimeIsUp(Exception):
    """A check took all the time that was left, or many times what it should."""


@dataclass
class Figure:
    """A measured value; with a bar, whether it held."""

    name: str
    value: Any
    unit: str = ""
    bar: str = ""
    holds: bool | None = None


@dataclass
class Result:
    """One check: what it found, and how it ended."""

    name: str
    about: str
    status: Status = "not run"
    reason: str = ""
    seconds: float = 0.0
    figures: list[Figure] = field(default_factory=list)


@dataclass
class Bench:
    """What every check is given.

    Attributes:
        device: resolved; a GPU's has an index.
        tiny: the smoke profile's sizes, to try the script itself.
        folder: for files that a check needs.
        rates: number format -> measured operations a second of a large product, from the check "ceilings".
        name: of the device.
        result: of the check that runs.
    """

    device: torch.device
    tiny: bool
    folder: Path
    rates: dict[str, float] = field(default_factory=dict)
    name: str = "CPU"
    result: Result = field(default_factory=lambda: Result("", ""))

    @property
    def profile(self) -> str:
        """Whose sizes the papers' runs have."""
        return "smoke" if self.tiny else "paper"

    def note(self, name: str, value: Any, unit: str = "") -> None:
        """Keep a value without a verdict."""
        self.result.figures.append(Figure(name, value, unit))

    def at_most(self, name: str, value: float, bar: float, unit: str = "") -> None:
        """Keep a value that must not exceed the bar; NaN does."""
        self.result.figures.append(Figure(name, value, unit, f"<= {bar:.7g}", bool(value <= bar)))

    def at_least(self, name: str, value: float, bar: float, unit: str = "") -> None:
        """Keep a value that must reach the bar; NaN does not."""
        self.result.figures.append(Figure(name, value, unit, f">= {bar:.7g}", bool(value >= bar)))

    def equal(self, name: str, value: Any, wanted: Any) -> None:
        """Keep a value that must be another one."""
        self.result.figures.append(Figure(name, value, "", f"= {wanted}", value == wanted))


@dataclass(frozen=True)
class Check:
    """A question to a device.

    Attributes:
        seconds: what it takes on a large GPU, about: it is begun only if so much time is left.
        on_cpu: why it says nothing on a CPU; empty if it does.
        in_tiny: the same of the tiny form.
    """

    name: str
    about: str
    seconds: float
    body: Callable[[Bench], None]
    on_cpu: str = ""
    in_tiny: str = ""

    def run(self, bench: Bench, left: float) -> Result:
        """The result, whatever happens but an interruption by the user."""
        result = bench.result = Result(self.name, self.about)
        began = time.perf_counter()
        try:
            if bench.device.type == "cpu" and self.on_cpu:
                raise Skipped(self.on_cpu)
            if bench.tiny and self.in_tiny:
                raise Skipped(self.in_tiny)
            if left < (1 if bench.tiny else self.seconds):
                result.reason = f"{left:.0f} s were left, it takes about {self.seconds:g}"
                return result
            with _at_most(min(left, 4 * self.seconds + 20)):
                self.body(bench)
        except Skipped as skipped:
            result.status, result.reason = "skipped", str(skipped)
        except Exception as error:
            text = str(error).strip() or "no message"
            result.status, result.reason = "failed", f"{type(error).__name__}: {text[:600]}"
        else:
            missed = [figure.name for figure in result.figures if figure.holds is False]
            result.status = "failed" if missed else "passed"
            result.reason = f"not held: {', '.join(missed)}" if missed else ""
        result.seconds = time.perf_counter() - began
        return result


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Break off what takes longer, at its next step in Python. Only a main thread can be told so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise TimeIsUp(f"broken off after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_all(checks: Sequence[Check], bench: Bench, minutes: float, out: Path) -> list[Result]:
    """Every check in turn, as far as the time goes; both files are complete after each."""
    end = time.monotonic() + 60 * minutes
    if bench.device.type == "cuda":
        bench.name = torch.cuda.get_device_name(bench.device)
    results = [Result(check.name, check.about, reason="not reached") for check in checks]
    for place, check in enumerate(checks):
        results[place] = check.run(bench, end - time.monotonic())
        write(results, bench, out)
        with suppress(RuntimeError):  # a kernel that broke leaves a GPU that answers nothing more
            release()
    return results


def write(results: Sequence[Result], bench: Bench, out: Path) -> None:
    """``acceptance.json`` and ``acceptance.md``, each replaced in one go."""
    found = {
        "device": str(bench.device),
        "name": bench.name,
        "tiny": bench.tiny,
        "checks": [asdict(result) for result in results],
    }
    for file, text in (
        ("acceptance.json", json.dumps(found, indent=1, default=str)),
        ("acceptance.md", _table(results, bench.name, bench.tiny)),
    ):
        fresh = out / f".{file}"
        fresh.write_text(text + "\n", encoding="utf-8")
        fresh.replace(out / file)


def _table(results: Sequence[Result], name: str, tiny: bool) -> str:
    lines = [
        f"# Acceptance on {name}{', tiny form' if tiny else ''}",
        "",
        "| check | question | end | seconds |",
        "|---|---|---|---|",
    ]
    for r in results:
        end = f"**{r.status}**" + (f": {_cell(r.reason)}" if r.reason else "")
        lines.append(f"| {r.name} | {r.about} | {end} | {r.seconds:.1f} |")
    for r in (r for r in results if r.figures):
        lines += ["", f"## {r.name}", "", "| figure | value | bar | |", "|---|---|---|---|"]
        for f in r.figures:
            held = {True: "holds", False: "**missed**", None: ""}[f.holds]
            lines.append(f"| {_cell(f.name)} | {_cell(_number(f.value))} {f.unit} | {f.bar} | {held} |")
    return "\n".join(lines)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
