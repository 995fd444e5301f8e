"""Print the tables of docs/scale.md, "The papers, at their own size": the paper profile on two GPUs.

    python tools/plan_tables.py

By data sheets, with nothing in the store: the same as `fedlora plan --profile paper --gpu h200` and
`--gpu a100`, side by side and by number format.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.numerals import duration, size
from fedlora_kit.papers.items import ITEMS
from fedlora_kit.papers.runs_of import planned_items
from fedlora_kit.planning.gpus import gpu
from fedlora_kit.planning.rate import Rate, published_rate
from fedlora_kit.study.plan import Plan, PlannedRun, plan, totals

GPUS = ("h200", "a100")


def number_format(spec: RunSpec) -> str:
    """What decides a run's rate."""
    return "bf16" if "bf16" in (spec.precision, spec.model.dtype) else spec.precision


def rates(name: str, always: str = "") -> Callable[[RunSpec], Rate]:
    """The published rate for a run's own number format, or always for one."""
    sheet = gpu(name)
    if always:
        return lambda spec: published_rate(sheet, always)
    return lambda spec: published_rate(sheet, spec.precision, spec.model.dtype)


def by_format(made: Plan) -> dict[str, list[PlannedRun]]:
    """Number format -> the runs, shared ones once."""
    once = {(r.spec.canonical(), r.stage == "to be chosen"): r for one in made.items for r in one.runs}
    found: dict[str, list[PlannedRun]] = {}
    for run in once.values():
        found.setdefault(number_format(run.spec), []).append(run)
    return found


def hours(one: float) -> str:
    return duration(3600 * one)


def main() -> None:
    planned = planned_items("paper", {item.id: {} for item in ITEMS if item.notebook is not None})
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        own = [plan("paper", planned, rates(name), store) for name in GPUS]
        exact = [plan("paper", planned, rates(name, "fp32"), store) for name in GPUS]
    heads = [name.upper() for name in GPUS]
    print(f"| item | runs | FLOP | format | {' | '.join(heads)} | memory | up | store |")
    print("|---" * (7 + len(GPUS)) + "|")
    for several in zip(*(made.items for made in own), strict=True):
        if not several[0].runs:
            continue
        formats = "/".join(sorted({number_format(run.spec) for run in several[0].runs}))
        _row(several[0].item, formats, [one.totals for one in several])
    _row("all, shared runs once", "", [made.totals for made in own])
    print(f"\n{own[0].totals.to_be_chosen:,} of the runs wait for their item's grid\n")
    print(f"| runs | FLOP | {' | '.join(heads)} | {' | '.join(f'in fp32: {head}' for head in heads)} |")
    print("|---" * (2 + 2 * len(GPUS)) + "|")
    sums = [[totals(runs) for runs in by_format(made).values()] for made in (*own, *exact)]
    for name, row in zip(by_format(own[0]), zip(*sums, strict=True), strict=True):
        cells = " | ".join(hours(one.device_hours) for one in row)
        print(f"| {row[0].runs:,} in {name} | {row[0].flops:.1e} | {cells} |")


def _row(item: str, formats: str, sums: list) -> None:
    first, times = sums[0], " | ".join(hours(one.device_hours) for one in sums)
    cells = " | ".join(size(n) for n in (first.memory_bytes, first.bytes_up, first.store_bytes))
    print(f"| {item} | {first.runs} | {first.flops:.1e} | {formats} | {times} | {cells} |")


if __name__ == "__main__":
    main()
