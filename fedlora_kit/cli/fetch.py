"""``fedlora fetch``: a mirror for machines without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedlora_kit.cli import completion
from fedlora_kit.cli.common import Items, Settings, print_table
from fedlora_kit.cli.plan import size_text
from fedlora_kit.cli.verbosity import say
from fedlora_kit.errors import BadValue, UnknownName

if TYPE_CHECKING:
    from fedlora_kit.batch.fetch_plan import Wanted


def fetch(
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The mirror: made, or completed.")],
    profile: Annotated[
        str,
        typer.Option(
            "--profile", "-p", help="small or paper; smoke needs nothing.", autocompletion=completion.profiles
        ),
    ],
    items: Items = None,
    settings: Settings = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be fetched.")] = False,
) -> None:
    """Build a mirror of the Hub with all that items need, on a machine that has a network.

    Models and data sets by their ids, at their pinned revisions; safetensors weights only, no code. Every
    file is compared with the Hub's digest, and listed in DIR/DIGESTS.json, with which loading compares it
    again. After an interruption the same command goes on: files that are there and fit are not fetched
    again. On the other machine: FEDLORA_HUB=DIR.

    \b
    Examples:
      fedlora fetch --profile paper --to /data/hub --dry-run
      fedlora fetch fed-hello/table2 --profile small --to /data/hub
    """
    from fedlora_kit.batch.fetch import fetch as bring
    from fedlora_kit.batch.fetch import look, missing
    from fedlora_kit.batch.hub_source import HubSource, Unreachable

    needed = _wanted(items, profile, settings)
    hub = to.expanduser().resolve()
    if hub.exists() and not hub.is_dir():
        raise BadValue(f"--to {to} is no folder", "name a folder, there or not")
    if needed.pieces:
        source = HubSource()
        try:
            jobs = look(needed.pieces, source)
        except Unreachable:
            _without_network(needed)
            raise
        todo = missing(jobs, hub)
        rows = [
            [
                job.piece.title,
                str(len(job.targets)),
                size_text(job.size),
                size_text(sum(target.size for owner, target in todo if owner is job)),
            ]
            for job in jobs
        ]
        print_table(["from the Hub", "files", "size", "to fetch"], rows, right=[1, 2, 3])
        typer.echo(f"\n{size_text(sum(target.size for _, target in todo))} to fetch into {hub}")
        if not dry_run:
            hub.mkdir(parents=True, exist_ok=True)
            done = bring(jobs, hub, source, say)
            typer.echo(f"{len(done)} files fetched; the mirror has all of it: FEDLORA_HUB={hub}")
    else:
        typer.echo("nothing is needed from the Hub")
    for sentence in needed.by_hand:
        typer.echo(f"by hand: {sentence}")


def _wanted(items: list[str] | None, profile: str, settings: list[str] | None) -> Wanted:
    from fedlora_kit.batch.fetch_plan import wanted
    from fedlora_kit.batch.parameters import parse_settings, resolve
    from fedlora_kit.batch.pool import PROFILES
    from fedlora_kit.papers.items import ITEMS, find
    from fedlora_kit.papers.runs_of import planned_runs

    if profile not in PROFILES:
        raise UnknownName("profile", profile, PROFILES)
    given = parse_settings(settings or [])
    if "profile" in given:
        raise BadValue("'profile' cannot be set with --set", "use --profile")
    specs = []
    for item in find(items) if items else ITEMS:
        if item.notebook is not None:
            planned = planned_runs(item.id, profile, **resolve(item, given))
            specs += [*planned.specs(), *planned.like_chosen()]
    return wanted(specs)


def _without_network(needed: Wanted) -> None:
    """What would be fetched, as far as it is known without asking."""
    rows = [[piece.title, "?" if piece.about is None else size_text(piece.about)] for piece in needed.pieces]
    print_table(["from the Hub", "about"], rows, right=[1])
    for sentence in needed.by_hand:
        typer.echo(f"by hand: {sentence}")
    typer.echo("\nThe Hub cannot be reached from here: exact sizes are not known, and nothing was fetched.")
