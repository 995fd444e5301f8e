"""What the benchmarks share: programs timed side by side in turn, ratios with quartiles, results as JSON.

Each program runs in a process of its own, so that a setting that one of them makes (the kit tells the C
library to keep freed memory) is not a present to the others.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

CPU = torch.device("cpu")
_threads = 1  # of a program; this process, which is forked, computes with one


def options(document: str | None, repeats: int) -> argparse.Namespace:
    """The command line of a benchmark. One thread goes by CPU time, several by the clock."""
    parser = argparse.ArgumentParser(description=(document or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=repeats, help="measured rounds of all programs")
    parser.add_argument("--only", default="", help="cases whose name begins so")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    given = parser.parse_args()
    global _threads
    _threads = given.threads
    torch.set_num_threads(1)
    return given


def timed(program: Callable[[], object]) -> float:
    """CPU seconds of this process; with several threads, seconds by the clock."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    begun = clock()
    program()
    return clock() - begun


def in_turn(programs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds (see `timed`) of each program, ``repeats`` times each: all in turn, each time from another one.

    Each in a fork of this process. A first turn warms up and does not count.
    """
    names = list(programs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    context = multiprocessing.get_context("fork")
    lines: dict[str, Connection] = {}
    for name in names:
        lines[name], theirs = context.Pipe()
        context.Process(target=_answer, args=(programs[name], theirs), daemon=True).start()
        theirs.close()
    for repeat in range(repeats + 1):
        shift = repeat % len(names)
        for name in names[shift:] + names[:shift]:
            lines[name].send(None)
            spent = lines[name].recv()
            if repeat:
                seconds[name].append(spent)
    for line in lines.values():
        line.close()
    return seconds


def _answer(program: Callable[[], object], line: Connection) -> None:
    """Run the program as often as asked, and tell the seconds; EOFError at the other side if it fails."""
    torch.set_num_threads(_threads)
    with contextlib.suppress(EOFError):
        while True:
            line.recv()
            line.send(timed(program))


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
        "threads": _threads,
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
