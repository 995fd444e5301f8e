"""``fedlora export``: runs and results as CSV or Parquet, and models for the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fedlora_kit.cli import completion
from fedlora_kit.cli.common import JsonFlag, Output, folder_of, print_json, profile_option
from fedlora_kit.cli.verbosity import warn
from fedlora_kit.errors import BadValue


def export(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|ITEM...",
            help="Keys of finished runs, or their beginnings; item ids, for the runs that their tables name.",
            autocompletion=completion.runs_and_items,
        ),
    ],
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", parser=folder_of("--to"), help="Where the files go.")
    ],
    csv: Annotated[bool, typer.Option("--csv", help="Rounds, scores and tables as CSV.")] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="The same as Parquet.")] = False,
    model: Annotated[
        bool, typer.Option("--model", help="The adapter, for AutoPeftModel, and a card.")
    ] = False,
    merged: Annotated[
        bool, typer.Option("--merged", help="The whole model, the adapter merged into it, with a card.")
    ] = False,
    profile: Annotated[str, profile_option("Whose results name an item's runs.")] = "smoke",
    output: Output = None,
    as_json: JsonFlag = False,
) -> None:
    """Write finished runs for other programs: as tables, or as a model.

    rounds: one row a round, with the fields in which the runs differ. scores: long form, one row a run,
    scored part, metric and moment. Of an item, also its tables. --model and --merged take one run; the
    folder loads with AutoPeftModel and AutoModel, and its README.md is a model card: method, data, epsilon,
    the base's licence.

    \b
    Examples:
      fedlora export ffa-lora/table1 --csv --to table1
      fedlora export 021893 0aa791 --parquet --to two
      fedlora export 021893 --model --to my-adapter

    \b
    JSON: one object with the key written (a list of paths).
    """
    from fedlora_kit.experiments.store import Store
    from fedlora_kit.papers.items import find
    from fedlora_kit.reporting.export import copy_tables, write_frames
    from fedlora_kit.reporting.hand_over import write_model
    from fedlora_kit.reporting.named_runs import finished_runs, is_key
    from fedlora_kit.reporting.outputs import item_folder

    if csv + parquet + model + merged != 1:
        raise BadValue("an export has one form", "give one of --csv, --parquet, --model, --merged")
    results = output or Path("figures")
    entries = finished_runs(runs, Store(), profile, results, warn)
    if model or merged:
        if len(entries) != 1:
            raise BadValue(f"{len(entries)} runs for one model", "name one run: `fedlora runs` lists them")
        written = write_model(entries[0], to, merged=merged)
    else:
        form: Literal["csv", "parquet"] = "csv" if csv else "parquet"
        written = write_frames(entries, to, form)
        items = [item for text in runs if not is_key(text) for item in find(text)]
        for item in items:
            place = to if len(items) == 1 else to / item.id.replace("/", "-")
            place.mkdir(exist_ok=True)
            written += copy_tables(item_folder(item.id, profile, results), place, form)
    if as_json:
        print_json({"written": [str(path) for path in written]})
        return
    typer.echo(f"{len(entries)} runs, {len(written)} files: {to}")
