"""``fedlora replay``: what the authors' released code drew, set beside their official logs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import typer

from fedlora_kit.cli import completion
from fedlora_kit.cli.common import Commands, JsonFlag, print_json, print_table

app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Replay what the authors' released code drew, and set it beside their official logs.",
)


@app.callback()
def _root() -> None: ...


@app.command("fed-hello")
def fed_hello(
    split: Annotated[
        str,
        typer.Option(
            help="iid, pat_20 (Non-IID 20/1.0) or pat_10 (Non-IID 10/1.0).",
            autocompletion=completion.one_of("iid", "pat_20", "pat_10"),
        ),
    ] = "iid",
    method: Annotated[
        str,
        typer.Option(
            help="exclusive or fed-hello.", autocompletion=completion.one_of("exclusive", "fed-hello")
        ),
    ] = "exclusive",
    rounds: Annotated[int, typer.Option(help="The first so many of the 500 rounds.")] = 500,
    freeze_by_substring: Annotated[
        bool,
        typer.Option(
            "--freeze-by-substring/--freeze-exactly",
            help="The released code's freezing defect (without layer 1, layers 10 and 11 freeze), or not.",
        ),
    ] = True,
    as_json: JsonFlag = False,
) -> None:
    """Replay an official CIFAR-100 run of Fed-HeLLo: cohort, training clients and layers of each round.

    No training: the released code draws all of it from one numpy stream with seed 1. Fed-HeLLo's rounds from
    51 on cannot be followed and are given as unknown. The last lines say how far the official log agrees.

    \b
    Example:
      fedlora replay fed-hello --split pat_10 --method exclusive --rounds 20

    \b
    JSON: one object with the keys
      split, method, freeze_by_substring   as asked for
      rounds      a list: round (from 0), known, cohort (in the order drawn), training_clients, allocated and
                  trained (client -> layers), median_layers; null where the round is unknown
      agreement   a list: what, matched, compared, misses (rounds)
      unknown     one sentence about the unknown rounds, or null
    """
    from fedlora_kit.papers.fed_hello.logs import agreements
    from fedlora_kit.papers.fed_hello.replay import UNKNOWN, Defects, replay

    played = replay(split, method, rounds, Defects(freeze_by_substring=freeze_by_substring))
    found = agreements(split, method, played)
    unknown = UNKNOWN if any(r.cohort is None for r in played) else None
    if as_json:
        asked = {"split": split, "method": method, "freeze_by_substring": freeze_by_substring}
        named = ("cohort", "training_clients", "allocated", "trained", "median_layers")
        rounds_ = [
            {
                "round": r.round_index,
                "known": r.cohort is not None,
                **{name: getattr(r, name) for name in named},
            }
            for r in played
        ]
        compared = ("what", "matched", "compared", "misses")
        agreed = [{name: getattr(one, name) for name in compared} for one in found]
        print_json({**asked, "rounds": rounds_, "agreement": agreed, "unknown": unknown})
        return
    rows = []
    for r in played:
        if r.cohort is None or r.trained is None:
            continue
        layers = "  ".join(f"{k}:{_spans(r.trained[k])}" for k in r.cohort if k in r.trained)
        rows.append(
            [str(r.round_index + 1), " ".join(map(str, r.cohort)), str(len(r.trained)), layers or "none"]
        )
    print_table(["round", "cohort", "train", "client:layers trained"], rows, right=(0, 2))
    if unknown:
        typer.echo(f"\n{unknown}.")
    typer.echo("\nAgainst the official log:")
    for agreement in found:
        missed = ", ".join(str(index + 1) for index in agreement.misses)
        misses = f"; not in {missed}" if missed else ""
        typer.echo(f"  {agreement}{misses}")


def _spans(layers: Sequence[int]) -> str:
    """Layers as spans.

    >>> _spans([0, 1, 2, 5, 9, 10])
    '0-2,5,9-10'
    """
    if not layers:
        return "none"
    starts = [layers[0], *(b for a, b in pairwise(layers) if b != a + 1)]
    ends = [*(a for a, b in pairwise(layers) if b != a + 1), layers[-1]]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))
