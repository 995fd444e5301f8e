"""What the benchmarks share: programs timed side by side in turn, ratios with quartiles, results as JSON."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

CPU = torch.device("cpu")


def options(document: str | None, repeats: int) -> argparse.Namespace:
    """The command line of a benchmark. One thread goes by CPU time, several by the clock."""
    parser = argparse.ArgumentParser(description=(document or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=repeats, help="measured rounds of all programs")
    parser.add_argument("--only", default="", help="cases whose name begins so")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    return given


def timed(program: Callable[[], object]) -> float:
    """CPU seconds of this process; with several threads, seconds by the clock."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    begun = clock()
    program()
    return clock() - begun


def in_turn(programs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds (see `timed`) of each program, ``repeats`` times each: all in turn, each time from another one.

    A first turn warms up and does not count.
    """
    names = list(programs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats + 1):
        shift = repeat % len(names)
        for name in names[shift:] + names[:shift]:
            spent = timed(programs[name])
            if repeat:
                seconds[name].append(spent)
    return seconds


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles of the paired ratios."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(over, under, strict=True)], n=4)
    return {"ratio": middle, "quartiles": [low, high], "repeats": len(over)}


def line(what: str, found: Mapping[str, Any], bar: str) -> None:
    """Print one ratio beside its bar."""
    low, high = found["quartiles"]
    print(f"  {what}: {found['ratio']:.3f} [{low:.3f}, {high:.3f}]   bar {bar}", flush=True)


def store(name: str, rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Keep the figures with what they were measured on."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "benchmark": name,
        "rows": list(rows),
        "device": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{library: version(library) for library in ("torch", "transformers", "peft", "opacus", "numpy")},
    }
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = [x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")]
    return found[0] if found else platform.machine()
