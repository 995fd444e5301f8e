"""``fedlora show`` and ``compare``: one run, or two beside each other. They change nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from fedlora_kit import numerals
from fedlora_kit.cli import completion
from fedlora_kit.cli.common import JsonFlag, print_json, print_table

_CHART = 60  # bars of a curve


def show(
    run: Annotated[
        str,
        typer.Argument(help="A run's key, or enough of its beginning.", autocompletion=completion.run_keys),
    ],
    rows: Annotated[
        int, typer.Option("--rows", min=0, help="Rounds to print, evenly over the run; 0: all.")
    ] = 12,
    as_json: JsonFlag = False,
) -> None:
    """Show one run of the store: description, history, privacy, provenance.

    Also of a run that is under way, was interrupted or failed, up to its last checkpoint.

    \b
    Examples:
      fedlora show 021893
      fedlora show 021893 --json | jq .results.scores

    \b
    JSON: one object with the keys
      key, status  as in `fedlora runs`
      path         the run's folder, or null while it is unfinished
      spec         the description
      results      the summary, or null
      history      a list: one object a round (round counts from 0)
      privacy      the ledger, or null without DP
      provenance   versions, commit, device, time, memory; null while it is unfinished
      failure      what went wrong in a failed run, or null
    """
    from fedlora_kit.experiments.store import Store
    from fedlora_kit.reporting import one_run

    store = Store()
    found = one_run.record(one_run.find_key(run, store), store)
    if as_json:
        print_json(found)
        return
    place = f", {found['path']}" if found["path"] else ""
    typer.echo(f"run {found['key']}: {found['status']}{place}")
    if found["failure"]:
        typer.echo(f"  {found['failure'].get('error', 'unknown error')}")
    _section("Description", [list(line) for line in one_run.description(found["spec"] or {})])
    _results(found["results"] or {})
    _history(found["history"], rows)
    _privacy(found["privacy"])
    _provenance(found["provenance"] or {})


def compare(
    a: Annotated[str, typer.Argument(metavar="RUN", help="A run's key.", autocompletion=completion.run_keys)],
    b: Annotated[str, typer.Argument(metavar="RUN", help="Another's.", autocompletion=completion.run_keys)],
    as_json: JsonFlag = False,
) -> None:
    """Compare two runs: what differs in their descriptions, and their results.

    \b
    Example:
      fedlora compare 021893 0aa791

    \b
    JSON: one object with the keys
      a, b          the two keys
      description   a list of what differs: field (dotted), a, b; "absent" where one lacks the field
      results       a list: field, a, b, difference (b - a)
      same_adapter  whether the final adapters are equal bit for bit; null where that is unknown
      provenance    a list of what differs, as description; without times and memory
    """
    from fedlora_kit.experiments.store import Store
    from fedlora_kit.reporting import one_run, two_runs

    store = Store()
    records = [one_run.record(one_run.find_key(text, store), store) for text in (a, b)]
    found = two_runs.compare(records[0], records[1])
    if as_json:
        print_json(found)
        return
    one, two = found["a"], found["b"]
    if one == two:
        typer.echo(f"Both are run {one}.")
        return
    typer.echo("Descriptions\n")
    if found["description"]:
        _pairs(found["description"], one, two)
    else:
        typer.echo("  equal; the keys differ by the source, the data or the libraries (see below)")
    lacking = [r["key"] for r in records if not r["results"]]
    if lacking:
        typer.echo(f"\nNo results yet: {', '.join(lacking)} is not finished")
    if len(lacking) < 2:
        typer.echo("\nResults\n")
        texts = [
            (r["field"], *(one_run.number(r[k]) for k in ("a", "b", "difference"))) for r in found["results"]
        ]
        rows = [[field, first, second, numerals.signed(gap)] for field, first, second, gap in texts]
        print_table(["", one, two, "difference"], rows, right=(1, 2, 3))
        if found["same_adapter"]:
            typer.echo("\nThe final adapters are equal bit for bit.")
    if found["provenance"]:
        typer.echo("\nProvenance\n")
        _pairs(found["provenance"], one, two)


def _pairs(rows: Sequence[Mapping[str, Any]], one: str, two: str) -> None:
    from fedlora_kit.reporting.one_run import shortened

    print_table(["", one, two], [[r["field"], shortened(r["a"]), shortened(r["b"])] for r in rows])


def _section(title: str, rows: Sequence[Sequence[str]]) -> None:
    typer.echo(f"\n{title}\n")
    width = max((len(row[0]) for row in rows), default=0)
    for name, text in rows:
        typer.echo(f"  {name:<{width}}  {text}")


def _results(results: Mapping[str, Any]) -> None:
    from fedlora_kit.reporting.one_run import number, score_rows

    rows = score_rows(results)
    if rows:
        typer.echo("\nResults\n")
        print_table(["scored on", "metric", "final", "mean of last 10 rounds", "best"], rows, right=(2, 3))
    named = {"trained_parameters": "trained parameters", "sent_parameters": "sent a client and round"}
    named["bytes_up"] = "bytes up in all"
    counts = [f"{number(results[k])} {words}" for k, words in named.items() if results.get(k) is not None]
    if sizes := results.get("client_sizes"):
        counts.append(f"clients of {min(sizes):,} to {max(sizes):,} examples")
    if counts:
        typer.echo(f"\n  {'; '.join(counts)}")


def _history(history: Sequence[Mapping[str, Any]], rows: int) -> None:
    import sys

    from fedlora_kit.reporting.one_run import history_table, number, spark
    from fedlora_kit.reporting.runs import curves

    if not history:
        return
    header, table = history_table(history, rows)
    note = f", {len(table)} of {len(history)} rounds" if len(table) < len(history) else ""
    typer.echo(f"\nHistory{note}\n")
    print_table(header, table, right=range(len(header)))
    drawn = {name: [v for _, v in curve] for name, curve in curves(history, _CHART).items() if len(curve) > 1}
    if drawn:
        plain = "utf" not in (getattr(sys.stdout, "encoding", None) or "").lower()
        typer.echo()
        width = max(map(len, drawn))
        for name, values in drawn.items():
            ends = f"{number(values[0])} -> {number(values[-1])}"
            span = f"(least {number(min(values))}, most {number(max(values))})"
            typer.echo(f"  {name:<{width}}  {spark(values, plain)}  {ends} {span}")


def _privacy(privacy: Mapping[str, Any] | None) -> None:
    if not privacy:
        typer.echo("\nPrivacy: none (trained without DP)")
        return
    from fedlora_kit.reporting.one_run import number

    names = {
        "epsilon": "ε spent (largest over the clients)",
        "target_epsilon": "ε asked for",
        "delta": "δ",
        "sigma": "noise multiplier σ (largest)",
        "clip": "clipping norm C",
        "sample_rate": "sampling rate q (largest)",
        "steps": "steps T",
        "sampling": "sampling",
        "unit": "unit of privacy",
        "accountant": "accountant",
    }
    rows = [[words, number(privacy[key])] for key, words in names.items() if privacy.get(key) is not None]
    if clients := privacy.get("clients"):
        spent = [client["epsilon"] for client in clients]
        rows.append(["clients", f"{len(clients)}, ε from {number(min(spent))} to {number(max(spent))}"])
    _section("Privacy", rows)


def _provenance(provenance: Mapping[str, Any]) -> None:
    if not provenance:
        return
    git, device = provenance.get("git") or {}, provenance.get("device") or {}
    versions = {k: v for k, v in (provenance.get("versions") or {}).items() if v}
    memory = provenance.get("peak_memory_bytes") or {}
    commit = f"{str(git.get('commit'))[:12]}{', with changes' if git.get('dirty') else ''}" if git else ""
    resumed = provenance.get("resumed_after_round")
    lines = {
        "began": provenance.get("started_utc"),
        "took": numerals.duration(provenance["wall_seconds"]) if "wall_seconds" in provenance else None,
        "resumed": f"after round {resumed + 1}" if resumed is not None else None,
        "device": _device_text(device, provenance.get("devices") or []),
        "memory": ", ".join(f"{numerals.size(v)} ({k})" for k, v in memory.items() if v),
        "commit": commit,
        "source": str(provenance.get("source") or "")[:16],
        "data": provenance.get("data"),
        "backbone": provenance.get("model"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    _section("Provenance", [[name, str(text)] for name, text in lines.items() if text])


def _device_text(device: Mapping[str, Any], parts: Sequence[Sequence[Any]]) -> str:
    words = [str(device[name]) for name in ("type", "name") if device.get(name)]
    if "deterministic" in device:
        words.append(f"(driver {device.get('driver')}, CUDA {device.get('cuda')},")
        words.append(f"{'' if device['deterministic'] else 'not '}deterministic)")
    text = " ".join(words)
    before = [f"{kind} from round {first + 1}" for first, kind in parts[:-1]]
    return f"{text}; before: {', '.join(before)}" if before else text
