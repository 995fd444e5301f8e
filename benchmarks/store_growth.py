"""How the store, a table and the report grow with the runs.

    python benchmarks/store_growth.py [--repeats 3]

A temporary store is filled with 100, 1,000 and 10,000 finished runs: one is trained (a second), the others
are entries of the same files under descriptions and keys of their own, one a seed. Then, with all of them:

* list: `fedlora runs`;
* keys: the keys of a table of all of these runs (`RunSpec.key`);
* table: its results out of the store (`run_all`, which compares every file with its manifest, and
  `results_frame`);
* report: the table by its cells, written as an item's outputs, and the page that shows them;
* one: one run out of the store, by its key.

Printed: CPU time a run (of "one": in all), and what it is of that with a tenth of the runs: 1 where time is
linear.
"""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent))
import pandas as pd
from pairs import options, store, timed

from fedlora_kit.batch.status import Status, digests, write_status
from fedlora_kit.cli.queries import runs
from fedlora_kit.experiments import entry as entries
from fedlora_kit.experiments.run import run
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Entry, Store
from fedlora_kit.reporting.outputs import ItemOutputs
from fedlora_kit.reporting.page import write_page
from fedlora_kit.running.many import run_all
from fedlora_kit.study.grid import Cell, mean_std_table, results_frame

SIZES = (100, 1_000, 10_000)


def description(seed: int) -> RunSpec:
    """A small run; those of the store differ by their seeds."""
    return RunSpec.parse(
        {
            "model": {"backbone": "kit/text-tiny", "lora": {"rank": 2, "alpha": 4}},
            "data": {"task": "polarity", "train_limit": 60, "eval_limit": 30},
            "split": {"partitioner": "iid", "clients": 3},
            "method": {"name": "lora"},
            "local": {"lr": 0.01, "steps": 1, "batch_size": 4},
            "rounds": {"rounds": 10},
            "seed": seed,
        }
    )


def fill(root: Path, trained: Entry, specs: Sequence[RunSpec]) -> None:
    """The trained run's files as an entry of every description; the adapter is linked, not copied."""
    parts: dict[str, entries.Content] = {
        name: trained.path / name for name in ("results.json", "provenance.json", "history.jsonl")
    }
    for path in (trained.path / "adapter").iterdir():
        parts[f"adapter/{path.name}"] = lambda to, path=path: os.link(path, to)  # type: ignore[misc]
    with mock.patch("os.fsync"):  # a store of a minute need not survive a power cut
        for spec in specs:
            key = spec.key()
            if not (root / key).exists():
                entries.build(root / key, key, {"spec.json": spec.model_dump(mode="json"), **parts})


def report(folder: Path, results: pd.DataFrame) -> None:
    """Write an item's tables, as its notebook does, and the page."""
    outputs = ItemOutputs("store/growth", "smoke", folder)
    outputs.table(results, "results")
    outputs.table(mean_std_table(results, ["method", "lr"], "task"))
    write_status(outputs.folder, Status(outputs.item_id, "ok", files=digests(outputs.folder)))
    write_page(folder, "smoke")


def programs(folder: Path, root: Path, specs: Sequence[RunSpec]) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    # five seeds a cell, as the tables have them
    cells = [Cell({"method": "lora", "lr": str(i // 5)}, {}, i % 5, spec) for i, spec in enumerate(specs)]
    place = Store(root)
    held: dict[str, pd.DataFrame] = {}

    def listed() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            runs()

    def table() -> None:
        done = zip(cells, run_all([cell.spec for cell in cells], store=place), strict=True)
        held["results"] = results_frame(list(done), {"polarity": {"polarity": "validation"}})

    middle = specs[len(specs) // 2].key()
    return {
        "list": listed,
        "keys": lambda: [spec.key() for spec in specs],
        "table": table,
        "report": lambda: report(folder, held["results"]),
        "one": lambda: place.load(middle),
    }


def again(program: Callable[[], object], calls: int) -> None:
    """Call it so many times."""
    for _ in range(calls):
        program()


def main() -> None:
    """Print the figures and store them."""
    given = options(__doc__, 3)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder, root = Path(name), Path(name) / "runs"
        os.environ["FEDLORA_RUNS"] = str(root)
        trained = run(description(0), device="cpu")
        before: dict[str, float] = {}
        for size in SIZES:
            specs = [description(seed) for seed in range(size)]
            fill(root, trained, specs)
            print(f"{size} runs", flush=True)
            for what, program in programs(folder, root, specs).items():
                # a small store several times over: its times would be too short to be known well
                calls = max(1, min(20, 1000 // size)) if what != "one" else 20
                if what not in before:
                    program()  # what is imported and read once
                several = partial(again, program, calls)
                each = [
                    timed(several) / (calls if what == "one" else calls * size) for _ in range(given.repeats)
                ]
                middle = statistics.median(each)
                growth = middle / before[what] if what in before else None
                before[what] = middle
                shown = "" if growth is None else f", {growth:.2f} of that with a tenth"
                print(f"  {what}: {1000 * middle:.3f} ms{shown}", flush=True)
                rows.append({"runs": size, "what": what, "seconds": middle, "all": each, "growth": growth})
    store("store_growth", rows, given.out)


if __name__ == "__main__":
    main()
