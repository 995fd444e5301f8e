"""``fedlora fetch``: a mirror for machines without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedlora_kit.cli.common import Items, Profile, Settings, folder_of, print_table
from fedlora_kit.cli.verbosity import say
from fedlora_kit.disk import disk_guard
from fedlora_kit.errors import FedloraError
from fedlora_kit.numerals import size

if TYPE_CHECKING:
    from fedlora_kit.fetching.fetch import Missed
    from fedlora_kit.fetching.plan import Wanted


def fetch(
    to: Annotated[
        Path,
        typer.Option("--to", metavar="DIR", parser=folder_of("--to"), help="The mirror: made, or completed."),
    ],
    profile: Profile,
    items: Items = None,
    settings: Settings = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be fetched.")] = False,
) -> None:
    """Build a mirror of the Hub with all that items need, on a machine that has a network.

    Models and data sets by their ids, at their pinned revisions; safetensors weights only, no code. Every
    file is compared with the Hub's digest, and listed in DIR/DIGESTS.json, with which loading compares it
    again. What cannot be had (gated, not there) is listed at the end with its remedy, and does not stop the
    rest; exit status 1. The same command goes on after that, and after an interruption: files that are
    there and fit are not fetched again, and files that were put there by hand are kept. On the other
    machine: FEDLORA_HUB=DIR.

    \b
    Examples:
      fedlora fetch --profile paper --to /data/hub --dry-run
      fedlora fetch fed-hello/table2 --profile small --to /data/hub
    """
    needed, hub = _wanted(items, profile, settings), to
    missed: list[Missed] = []
    if needed.pieces:
        missed = _from_the_hub(needed, hub, dry_run)
    else:
        typer.echo("nothing is needed from the Hub")
    _say_by_hand(needed, hub)
    if missed:
        causes = "".join(f"\n- {each.error}" for each in missed)
        raise FedloraError(
            f"{len(missed)} of {len(needed.pieces)} pieces cannot be had:{causes}",
            "when that is done, the same command brings what is missing",
        )


def _from_the_hub(needed: Wanted, hub: Path, dry_run: bool) -> list[Missed]:
    """List what there is and fetch it; what cannot be had."""
    from fedlora_kit.fetching.fetch import by_hand, look, missing
    from fedlora_kit.fetching.fetch import fetch as bring
    from fedlora_kit.fetching.hub_source import HubSource
    from fedlora_kit.hub_errors import Unreachable

    source = HubSource(say=say)
    survey = look(needed.pieces, source, hub)
    if len(survey.missed) == len(needed.pieces) and isinstance(survey.missed[0].error, Unreachable):
        _without_network(needed, hub)
        raise survey.missed[0].error
    todo = missing(survey.jobs, hub)
    left = {id(job): sum(target.size for owner, target in todo if owner is job) for job in survey.jobs}
    rows = [
        [job.piece.title, str(len(job.targets)), size(job.size), size(left[id(job)])] for job in survey.jobs
    ]
    rows += [[piece.title, "", "", "in the mirror"] for piece in survey.held]
    rows += [[each.piece.title, "", "", "cannot be had"] for each in survey.missed]
    print_table(["from the Hub", "files", "size", "to fetch"], rows, right=[1, 2, 3])
    typer.echo(f"\n{size(sum(target.size for _, target in todo))} to fetch into {hub}")
    for _, target in by_hand(survey.jobs, hub):
        typer.echo(f"kept: {target.place} was put there by hand; without it the Hub's would be fetched")
    if dry_run:
        return survey.missed
    with disk_guard(hub):
        hub.mkdir(parents=True, exist_ok=True)
    done, missed = bring(survey.jobs, hub, source, say, survey.missed)
    whole = f"; the mirror has all of it: FEDLORA_HUB={hub}" if not missed else ""
    typer.echo(f"{len(done)} files fetched{whole}")
    return missed


def _say_by_hand(needed: Wanted, hub: Path) -> None:
    for chore in needed.by_hand:
        if not chore.done(hub):
            typer.echo(f"by hand: {chore.text}")


def _wanted(items: list[str] | None, profile: str, settings: list[str] | None) -> Wanted:
    from fedlora_kit.batch.order import asked
    from fedlora_kit.fetching.plan import wanted
    from fedlora_kit.papers.runs_of import planned_items

    planned = planned_items(profile, asked(items, settings)).values()
    return wanted([spec for one in planned for spec in (*one.specs(), *one.like_chosen())])


def _without_network(needed: Wanted, hub: Path) -> None:
    """What would be fetched, as far as it is known without asking."""
    rows = [[piece.title, "?" if piece.about is None else size(piece.about)] for piece in needed.pieces]
    print_table(["from the Hub", "about"], rows, right=[1])
    _say_by_hand(needed, hub)
    typer.echo("\nThe Hub cannot be reached from here: exact sizes are not known, and nothing was fetched.")
