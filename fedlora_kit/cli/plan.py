"""``fedlora plan``: what a reproduction needs before it is begun."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedlora_kit.cli import completion
from fedlora_kit.cli.common import Items, JsonFlag, Profile, Settings, print_json, print_table
from fedlora_kit.devices import check_device
from fedlora_kit.errors import BadValue
from fedlora_kit.numerals import duration, fixed, significant, size
from fedlora_kit.planning.gpus import SHARE

if TYPE_CHECKING:
    from fedlora_kit.study.plan import Plan, PlannedRun, Totals


def plan(
    items: Items = None,
    profile: Profile = "smoke",
    settings: Settings = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu",
            help="A GPU that is not at hand, by its data sheet: h200, h100, a100, l4, rtx-4090, ... "
            "Each run by its own number format (fp32, tf32, bf16).",
            autocompletion=completion.gpus,
        ),
    ] = None,
    share: Annotated[
        float, typer.Option("--share", help="With --gpu: what training reaches of the data sheet's peak.")
    ] = SHARE,
    tflops: Annotated[
        float | None,
        typer.Option(
            "--tflops",
            help="10^12 operations a second that the device reaches in training, in whatever number format. "
            "Default: measured on this machine.",
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            "--device", help="Device that is measured: auto, cpu, cuda.", autocompletion=completion.devices
        ),
    ] = "auto",
    check: Annotated[
        bool, typer.Option("--check", help="Estimate the store's finished runs, beside what they took.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show which runs items need, which the store has, and what the others cost.

    Nothing is trained or downloaded. Operations are counted from the runs' descriptions; times are those of
    one device, alone, one run after the other. An item that chooses learning rates names its table's runs
    only when its grid is finished; until then they are counted, as many and as large as they will be.

    \b
    Examples:
      fedlora plan --profile paper --gpu h200
      fedlora plan fed-hello/table2 --profile small --set rounds=100
      fedlora plan --check

    \b
    JSON: one object with the keys
      profile     as given
      rate        "measured", the given TFLOP/s, or the name of the GPU whose data sheet counts
      share       of the data sheet's peak; null without --gpu
      items       a list: item, note, totals, runs (stage "first", "chosen" or "to be chosen"; key or null;
                  status; seconds, cost (null where finished or unknown), problem; spec)
      total       over all items, shared runs once: runs, finished, failed, missing, to_be_chosen, unknown,
                  flops, device_hours, memory_bytes (largest run), bytes_up, bytes_down, store_bytes
      downloads   Hub id -> bytes (about), or null where that is not known
    with --check: a list, one object a kind of run (see `study.plan_check.by_kind`).
    """
    from fedlora_kit.batch.order import asked
    from fedlora_kit.experiments.store import Store
    from fedlora_kit.papers.runs_of import planned_items
    from fedlora_kit.study.plan import plan as make
    from fedlora_kit.study.rates import rates

    if gpu is not None and tflops is not None:
        raise BadValue("--gpu and --tflops", "leave one out")
    if tflops is None and gpu is None:
        check_device(device)
    rate_of = rates(tflops, device, gpu, share)
    if check:
        _check(Store(), rate_of, as_json)
        return
    made = make(profile, planned_items(profile, asked(items, settings)), rate_of)
    if as_json:
        print_json(_as_json(made, gpu or tflops or "measured", share if gpu else None))
        return
    _print(made, _how(tflops, gpu, share))


def _how(tflops: float | None, gpu: str | None, share: float) -> str:
    if gpu is not None:
        return f"at {share:g} of the peak that the data sheet of {gpu} names for each run's number format"
    return "measured on this machine" if tflops is None else f"at {tflops:g} TFLOP/s, as given"


def _as_json(made: Plan, rate: str | float, share: float | None) -> dict[str, Any]:
    return {
        "profile": made.profile,
        "rate": rate,
        "share": share,
        "items": [
            {"item": i.item, "note": i.note, "totals": asdict(i.totals), "runs": [_run(r) for r in i.runs]}
            for i in made.items
        ],
        "total": asdict(made.totals),
        "downloads": dict(made.downloads),
    }


def _run(run: PlannedRun) -> dict[str, Any]:
    names = ("stage", "key", "status", "seconds", "cost", "problem")
    told = {name: getattr(run, name) for name in names}
    told["cost"] = None if run.cost is None else asdict(run.cost)
    return {**told, "spec": run.spec.model_dump(mode="json")}


def _print(made: Plan, how: str) -> None:
    rows = [[one.item, *_cells(one.totals)] for one in made.items]
    total = made.totals
    headers = ["item", "runs", "done", "to train", "FLOP", "time", "memory", "up", "down", "store"]
    print_table(headers, [*rows, ["all, shared runs once", *_cells(total)]], right=range(1, len(headers)))
    typer.echo("")
    for one in made.items:
        if one.note:
            typer.echo(f"{one.item}: {one.note}")
    if total.to_be_chosen:
        typer.echo(f"{total.to_be_chosen} of the runs wait for their item's grid, which chooses their rates")
    if total.failed:
        typer.echo(f"{total.failed} runs failed before and count as done, as notebooks count them")
    if total.unknown:
        problems = sorted({run.problem for one in made.items for run in one.runs if run.problem})
        typer.echo(f"{total.unknown} runs could not be estimated and are in no sum: {'; '.join(problems)}")
    if made.downloads:
        sizes = [f"{name} {'?' if n is None else size(n)}" for name, n in made.downloads.items()]
        typer.echo(f"to download, about: {', '.join(sizes)}")
    if any(run.cost is not None and run.cost.known != "data" for one in made.items for run in one.runs):
        typer.echo("some data is not on this machine: its sizes are the published ones")
    typer.echo(f"time of one device, {how}; memory of the largest run, on the device")


def _cells(t: Totals) -> list[str]:
    if not t.runs:
        return ["none", *[""] * 8]
    counts = [str(t.runs), str(t.finished + t.failed), str(t.missing)]
    if not t.missing:
        return [*counts, *[""] * 6]
    sizes = map(size, (t.memory_bytes, t.bytes_up, t.bytes_down, t.store_bytes))
    return [*counts, significant(t.flops, 2), duration(3600 * t.device_hours), *sizes]


def _check(store: Any, rate_of: Any, as_json: bool) -> None:
    from fedlora_kit.study.plan_check import FACTOR, by_kind, compare_with_records

    found = compare_with_records(store, rate_of)
    if found.runs.empty:
        raise BadValue(
            f"{store.root} holds no finished run to compare with ({len(found.skipped)} skipped)",
            "run an item first: fedlora reproduce start_here",
        )
    table = by_kind(found.runs)
    if as_json:
        print_json(table.to_dict("records"))
        return
    rows = [
        [
            *(row["backbone"], row["task"], row["private"], str(row["runs"])),
            *(fixed(row["wall"], 1), fixed(row["seconds"], 1), fixed(row["ratio"])),
            *(f"{fixed(row['low'])} to {fixed(row['high'])}", fixed(row["quiet"])),
            *(f"{fixed(100 * row['within'], 0)} %", fixed(row["up"]), fixed(row["disk"])),
        ]
        for row in table.to_dict("records")
    ]
    headers = ["backbone", "task", "", "runs", "took s", "estimate s", "ratio", "range", "undisturbed"]
    print_table([*headers, "within 2", "sent", "stored"], rows, right=range(3, 12))
    good = int(table["ratio"].between(1 / FACTOR, FACTOR).sum())
    typer.echo(f"\n{good} of {len(table)} kinds of runs have their median within a factor of {FACTOR:g}.")
    typer.echo("ratio: estimate / wall time, median; undisturbed: of the fastest tenth of the runs")
    if found.skipped:
        why = "; ".join(sorted(set(found.skipped.values())))
        typer.echo(f"{len(found.skipped)} runs could not be compared: {why}")
