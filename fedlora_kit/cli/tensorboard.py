"""``fedlora tensorboard``: the histories of finished runs for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedlora_kit.cli import completion
from fedlora_kit.cli.common import JsonFlag, Output, folder_of, print_json, profile_option
from fedlora_kit.cli.verbosity import say, warn


def tensorboard(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN|ITEM]...",
            help="Keys of runs, or their beginnings; item ids, for the runs that their tables name. "
            "None: every finished run.",
            autocompletion=completion.runs_and_items,
        ),
    ] = None,
    logdir: Annotated[
        Path | None,
        typer.Option(
            "--logdir",
            metavar="DIR",
            parser=folder_of("--logdir"),
            help="Where to write. Default: data/cache/tensorboard.",
        ),
    ] = None,
    profile: Annotated[str, profile_option("Whose results name an item's runs.")] = "smoke",
    output: Output = None,
    as_json: JsonFlag = False,
) -> None:
    """Write finished runs of the store as TensorBoard event files.

    Each run gets a folder: its history's columns as scalars over the rounds, counted from 1, and its
    description as text. A run that has its folder is not written again. Needs the extra: pip install
    'fedlora-kit[tensorboard]'.

    \b
    Examples:
      fedlora tensorboard start_here
      fedlora tensorboard 021893 0aa791 --logdir /tmp/two
      tensorboard --logdir data/cache/tensorboard

    \b
    JSON: one object with the keys logdir; written and kept (folders under it: new ones, and those that were
    there).
    """
    from fedlora_kit import paths
    from fedlora_kit.experiments.store import Store
    from fedlora_kit.reporting.event_files import need_tensorboard, write_runs
    from fedlora_kit.reporting.named_runs import finished_runs

    store = Store()
    place = logdir or paths.data_dir() / "cache" / "tensorboard"
    entries = finished_runs(runs or [], store, profile, output or Path("figures"), warn)
    need_tensorboard()
    written, kept = write_runs(entries, place)
    if as_json:
        names = {"written": written, "kept": kept}
        print_json({"logdir": str(place), **{k: [path.name for path in v] for k, v in names.items()}})
        return
    typer.echo(f"{len(written)} runs written, {len(kept)} were there: {place}")
    say(f"to look at them: tensorboard --logdir {place}")
