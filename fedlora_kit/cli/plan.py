"""``fedlora plan``: what a reproduction needs before it is begun."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedlora_kit.cli import completion
from fedlora_kit.cli.common import Items, JsonFlag, Settings, print_json, print_table
from fedlora_kit.cli.devices import check_device
from fedlora_kit.errors import BadValue, UnknownName

if TYPE_CHECKING:
    from fedlora_kit.experiments.spec import RunSpec
    from fedlora_kit.planning.plan import Plan, Totals
    from fedlora_kit.planning.rate import Rate


def plan(
    items: Items = None,
    profile: Annotated[
        str,
        typer.Option("--profile", "-p", help="smoke, small or paper.", autocompletion=completion.profiles),
    ] = "smoke",
    settings: Settings = None,
    tflops: Annotated[
        float | None,
        typer.Option(
            "--tflops",
            help="10^12 operations a second that the device reaches in training (a third to a half of its "
            "data sheet's). Default: measured on this machine.",
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
      fedlora plan --profile paper --tflops 150
      fedlora plan fed-hello/table2 --profile small --set rounds=100
      fedlora plan --check

    \b
    JSON: one object with the keys
      profile     as given
      rate        "measured" or the given TFLOP/s
      items       a list: item, note, totals, runs (stage "first", "chosen" or "to be chosen"; key or null;
                  status; seconds, cost (null where finished or unknown), problem; spec)
      total       over all items, shared runs once: runs, finished, failed, missing, to_be_chosen, unknown,
                  flops, device_hours, memory_bytes (largest run), bytes_up, bytes_down, store_bytes
      downloads   Hub id -> bytes (about), or null where that is not known
    with --check: a list, one object a kind of run (see `planning.plan_check.by_kind`).
    """
    from fedlora_kit.batch.parameters import parse_settings, resolve
    from fedlora_kit.batch.pool import PROFILES
    from fedlora_kit.experiments.store import Store
    from fedlora_kit.papers.items import ITEMS, find
    from fedlora_kit.papers.runs_of import planned_items
    from fedlora_kit.planning.plan import plan as make

    if tflops is None:
        check_device(device)
    rate_of = rates(tflops, device)
    if check:
        _check(Store(), rate_of, as_json)
        return
    if profile not in PROFILES:
        raise UnknownName("profile", profile, PROFILES)
    given = parse_settings(settings or [])
    if "profile" in given:
        raise BadValue("'profile' cannot be set with --set", "use --profile")
    chosen = [item for item in (find(items) if items else ITEMS) if item.notebook is not None]
    parameters = {item.id: resolve(item, given) for item in chosen}
    made = make(profile, planned_items(profile, parameters), rate_of)
    if as_json:
        print_json(_as_json(made, tflops))
        return
    _print(made, tflops)


def rates(tflops: float | None, device: str) -> Any:
    """The speed for a run: as given, or measured once for each shape of backbone."""
    from fedlora_kit.data.tasks import get_task
    from fedlora_kit.planning.rate import given_rate, measured_rate
    from fedlora_kit.planning.shapes import shape_of

    if tflops is not None:
        fixed = given_rate(tflops)
        return lambda spec: fixed

    def measured(spec: RunSpec) -> Rate:
        kind = get_task(spec.data.task)
        labels = 0 if kind.modality == "causal" else kind.num_labels
        return measured_rate(shape_of(spec.model.backbone), labels, device)

    return measured


def _as_json(made: Plan, tflops: float | None) -> dict[str, Any]:
    return {
        "profile": made.profile,
        "rate": "measured" if tflops is None else tflops,
        "items": [
            {
                "item": one.item,
                "note": one.note,
                "totals": asdict(one.totals),
                "runs": [
                    {
                        "stage": run.stage,
                        "key": run.key,
                        "status": run.status,
                        "seconds": run.seconds,
                        "cost": None if run.cost is None else asdict(run.cost),
                        "problem": run.problem,
                        "spec": run.spec.model_dump(mode="json"),
                    }
                    for run in one.runs
                ],
            }
            for one in made.items
        ],
        "total": asdict(made.totals),
        "downloads": dict(made.downloads),
    }


def _print(made: Plan, tflops: float | None) -> None:
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
        sizes = [f"{name} {'?' if n is None else size_text(n)}" for name, n in made.downloads.items()]
        typer.echo(f"to download, about: {', '.join(sizes)}")
    if any(run.cost is not None and run.cost.known != "data" for one in made.items for run in one.runs):
        typer.echo("some data is not on this machine: its sizes are the published ones")
    how = "measured on this machine" if tflops is None else f"at {tflops:g} TFLOP/s, as given"
    typer.echo(f"time of one device, {how}; memory of the largest run, on the device")


def _cells(t: Totals) -> list[str]:
    if not t.runs:
        return ["none", "", "", "", "", "", "", "", ""]
    if not t.missing:
        return [str(t.runs), str(t.finished + t.failed), "0", "", "", "", "", "", ""]
    return [
        str(t.runs),
        str(t.finished + t.failed),
        str(t.missing),
        f"{t.flops:.1e}",
        time_text(3600 * t.device_hours),
        size_text(t.memory_bytes),
        size_text(t.bytes_up),
        size_text(t.bytes_down),
        size_text(t.store_bytes),
    ]


def time_text(seconds: float) -> str:
    """Seconds for a reader: 12 s, 5 min, 20 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.0f} h"


def size_text(number: float) -> str:
    """Bytes for a reader: 13 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if number >= 10 or unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _check(store: Any, rate_of: Any, as_json: bool) -> None:
    from fedlora_kit.planning.plan_check import FACTOR, by_kind, compare_with_records

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
            row["backbone"],
            row["task"],
            row["private"],
            str(row["runs"]),
            f"{row['wall']:.1f}",
            f"{row['seconds']:.1f}",
            f"{row['ratio']:.2f}",
            f"{row['low']:.2f} to {row['high']:.2f}",
            f"{row['quiet']:.2f}",
            f"{100 * row['within']:.0f} %",
            f"{row['up']:.2f}",
            f"{row['disk']:.2f}",
        ]
        for row in table.to_dict("records")
    ]
    headers = [
        "backbone",
        "task",
        "",
        "runs",
        "took s",
        "estimate s",
        "ratio",
        "range",
        "undisturbed",
        "within 2",
    ]
    print_table([*headers, "sent", "stored"], rows, right=range(3, 12))
    good = int(table["ratio"].between(1 / FACTOR, FACTOR).sum())
    typer.echo(f"\n{good} of {len(table)} kinds of runs have their median within a factor of {FACTOR:g}.")
    typer.echo("ratio: estimate / wall time, median; undisturbed: of the fastest tenth of the runs")
    if found.skipped:
        why = "; ".join(sorted(set(found.skipped.values())))
        typer.echo(f"{len(found.skipped)} runs could not be compared: {why}")
