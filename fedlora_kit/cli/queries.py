"""``fedlora list``, ``noise`` and ``runs``: what there is, and a calculator. They change nothing."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fedlora_kit.cli import completion
from fedlora_kit.cli.common import JsonFlag, print_json, print_table
from fedlora_kit.cli.verbosity import warn
from fedlora_kit.errors import BadValue
from fedlora_kit.numerals import significant


def list_items(as_json: JsonFlag = False) -> None:
    """List the tables, figures and lessons there are.

    \b
    JSON: a list of objects with the keys
      id          as `fedlora reproduce` takes it, such as "ffa-lora/table1"
      paper       "ffa-lora", "fedlora-optimizer", "fed-hello"; "" for a lesson
      kind        "table", "figure" or "lesson"
      title       what it shows
      notebook    its file under notebooks/, or null while it is planned
      foundation  how well the paper's content is known here
    """
    from fedlora_kit.papers.items import all_items

    keys = ("id", "paper", "kind", "title", "notebook", "foundation")
    records = [{key: getattr(item, key) for key in keys} for item in all_items()]
    if as_json:
        print_json(records)
        return
    rows = [[r["id"], r["kind"], r["notebook"] or "planned", r["title"], r["foundation"]] for r in records]
    print_table(["id", "kind", "notebook", "title", "known from"], rows)


def noise(
    epsilon: Annotated[float, typer.Option(help="Privacy budget ε over all steps: positive.")],
    delta: Annotated[float, typer.Option(help="δ: between 0 and 1, and below 1/examples.")],
    batch: Annotated[int, typer.Option(help="Expected batch size B, in examples.")],
    examples: Annotated[int, typer.Option(help="Examples n of the client.")],
    steps: Annotated[int, typer.Option(help="Steps T: rounds × local steps.")],
    accountant: Annotated[
        str,
        typer.Option(
            help="rdp, or prv (tighter and slower; for ε up to some hundreds).",
            autocompletion=completion.one_of("rdp", "prv"),
        ),
    ] = "rdp",
    as_json: JsonFlag = False,
) -> None:
    """Find the noise multiplier σ of DP-SGD for a privacy budget.

    Poisson sampling with rate q = B/n, example-level privacy, T steps composed by one accountant. The noise
    that is added to a sum of clipped gradients has the standard deviation σ·C, C being the clipping norm.

    \b
    Example, FFA-LoRA's SST-2 (3 clients, 10 local steps, 1000 rounds):
      fedlora noise --epsilon 6 --delta 1e-5 --batch 200 --examples 22450 --steps 10000

    \b
    JSON: one object with the keys noise_multiplier, sample_rate, epsilon_target, epsilon_spent, delta,
    batch, examples, steps, accountant, library, warnings (a list of sentences).
    """
    for name, value in (("--batch", batch), ("--examples", examples), ("--steps", steps)):
        if value < 1:
            raise BadValue(f"{name} {value}", "at least 1")
    if batch > examples:
        raise BadValue(
            f"--batch {batch} is larger than --examples {examples}", "a batch is drawn from the examples"
        )
    from importlib import metadata

    from fedlora_kit.privacy.noise import epsilon_of, noise_multiplier

    rate = batch / examples
    sigma = noise_multiplier(epsilon, delta, rate, steps, accountant)
    spent = epsilon_of(sigma, delta, rate, steps, accountant)
    software = "opacus" if accountant == "prv" else "fedlora-kit"
    library = f"{software} {metadata.version(software)}"
    warning = (
        f"delta {delta:g} is not below 1/examples = {significant(1 / examples, 3)}: the usual rule is "
        "delta < 1/n, since at delta = 1/n a mechanism may publish a whole example at random and still "
        "keep to it"
    )
    warnings = [warning] if delta >= 1 / examples else []
    for text in warnings:
        warn(text)
    if as_json:
        found = {"noise_multiplier": sigma, "sample_rate": rate}
        found |= {"epsilon_target": epsilon, "epsilon_spent": spent, "delta": delta}
        given = {"batch": batch, "examples": examples, "steps": steps, "accountant": accountant}
        print_json({**found, **given, "library": library, "warnings": warnings})
        return
    typer.echo(f"noise multiplier  {significant(sigma)}")
    typer.echo(f"sample rate q     {significant(rate, 6)}  ({batch} of {examples} examples, Poisson)")
    typer.echo(f"spends            ε = {significant(spent)} at δ = {delta:g} in {steps} steps")
    typer.echo(f"accountant        {accountant} ({library})")


def runs(as_json: JsonFlag = False) -> None:
    """List the store of training runs.

    \b
    JSON: a list of objects with the keys
      key      16 hex digits, the folder under data/runs
      status   "finished", "running", "interrupted" or "failed"
      spec     the run's whole description, or null
      results  the scores of a finished run, or null
      failure  what went wrong in a failed one, or null
    """
    from fedlora_kit.experiments.store import Store

    store = Store()
    records: list[dict[str, Any]] = [
        {"key": e.key, "status": "finished", "spec": e.spec, "results": e.results, "failure": None}
        for e in store.entries()
    ]
    records += [
        {"key": u.key, "status": u.status, "spec": u.spec, "results": None, "failure": u.failure}
        for u in store.unfinished()
    ]
    if as_json:
        print_json(records)
        return
    rows = []
    for record in records:
        spec = record["spec"] or {}
        epsilon = (spec.get("privacy") or {}).get("epsilon", "none" if spec else "?")
        named = (("method", "name"), ("data", "task"), ("model", "backbone"))
        what = [str((spec.get(part) or {}).get(field, "?")) for part, field in named]
        rows.append([str(record["key"]), record["status"], *what, str(epsilon), str(spec.get("seed", "?"))])
    print_table(["key", "status", "method", "task", "backbone", "ε", "seed"], rows)
    finished = sum(record["status"] == "finished" for record in records)
    before = "\n" if rows else ""
    typer.echo(f"{before}{finished} finished, {len(records) - finished} not, in {store.root}")
