"""FedLoRA-Optimizer's ablation: the pipeline against other structures, and which component each trains.

That an ablation compares the pipeline with another structure and finds it better is known from summaries
(SECOND); which structure, which score and all numbers are not (UNKNOWN).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from fedlora_kit.errors import UnknownName
from fedlora_kit.numerals import with_spread
from fedlora_kit.papers.fedlora_optimizer import setting as flo_setting
from fedlora_kit.papers.fedlora_optimizer.setting import Setting
from fedlora_kit.study.claims import Claim, Verdict, mean_difference
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.planned import Runs
from fedlora_kit.study.tasks import fitting

METHOD = "fedlora-optimizer"
COMPONENTS = ("A_M", "A_D", "B_M", "B_D")
#: structure -> what it sets in place of the method's defaults
STRUCTURES: dict[str, dict[str, Any]] = {
    "pipeline": {},
    "joint": {"structure": "joint"},
    "global only": {"local_trains": None},
    "local only": {"global_trains": None},
    "neither": {"global_trains": None, "local_trains": None},
}
#: which pairs of components are run
GRIDS = ("cross", "all")
#: what the global and the local optimisers train by default
GLOBAL, LOCAL = "A_D", "B_M"
#: column of `study.grid.results_frame` -> heading
SCORES = {
    "rouge_l": "global ROUGE-L",
    "local_rouge_l": "local ROUGE-L",
    "loss": "global loss",
    "local_loss": "local loss",
}
#: what is smaller in the smoke profile of this item and of open_choices, which run many variants
SMOKE: dict[str, Any] = {"steps": 2, "batch_size": 8, "eval_limit": 16, "client_holdout": 0.04}


def setting(item: str, profile: str, **changes: Any) -> Setting:
    """`setting.setting`, smaller in the smoke profile (`SMOKE`).

    Raises:
        UnknownName, BadValue: see there; or a task without ROUGE-L.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    made = flo_setting.setting(item, profile, **({**SMOKE, **given} if profile == "smoke" else given))
    fitting(item, made.task, answers=True, rouge=True)
    return made


def pairs(profile: str, grid: str | None = None) -> list[tuple[str, str]]:
    """Components (global, local) to run: "all" 16 pairs, or the "cross" through the default.

    Args:
        grid: None takes the cross in the profiles smoke and laptop, all pairs otherwise.

    Raises:
        UnknownName: no such grid.
    """
    wanted = grid or ("cross" if profile in ("smoke", "laptop") else "all")
    if wanted not in GRIDS:
        raise UnknownName("grid of components", wanted, GRIDS)
    return [
        (first, second)
        for first in COMPONENTS
        for second in COMPONENTS
        if wanted == "all" or first == GLOBAL or second == LOCAL
    ]


def cells(s: Setting, chosen: Sequence[tuple[str, str]]) -> list[Cell]:
    """Every structure with the default components, and the pipeline with every chosen pair; each run once.

    Coordinates: structure, global and local (the component trained, "none" where the optimiser is off).
    """
    made = []
    for structure, settings in STRUCTURES.items():
        parts = {"global": GLOBAL, "local": LOCAL}
        parts |= {k: "none" for k in parts if settings.get(f"{k}_trains", "") is None}
        made += [_cell(s, {"structure": structure, **parts}, seed, settings) for seed in s.seeds]
    for first, second in chosen:
        if (first, second) == (GLOBAL, LOCAL):
            continue
        settings = {"global_trains": first} if first != GLOBAL else {}
        settings |= {"local_trains": second} if second != LOCAL else {}
        place = {"structure": "pipeline", "global": first, "local": second}
        made += [_cell(s, place, seed, settings) for seed in s.seeds]
    return made


def _cell(s: Setting, place: dict[str, str], seed: int, settings: dict[str, Any]) -> Cell:
    return Cell(place, {}, seed, flo_setting.spec(s, METHOD, seed, **settings))


def structures(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of the five structures, with the default components where an optimiser is on."""
    on = (results["structure"] != "pipeline") | ((results["global"] == GLOBAL) & (results["local"] == LOCAL))
    return results[on]


def table(results: pd.DataFrame, rows: Sequence[str]) -> pd.DataFrame:
    """Text table "mean ± std" over seeds: ``rows``, then a column a score (ROUGE-L in %, loss in nats).

    A cell with failed runs says how many are left out.
    """

    def text(values: pd.Series) -> str:
        good = values.dropna()
        note = f" ({len(values) - len(good)} diverged)" if len(good) < len(values) else ""
        if good.empty:
            return f"diverged{note}"
        return with_spread(good.mean(), good.std(ddof=1)) + note

    named = results.rename(columns=SCORES)
    made = named.groupby(list(rows), sort=False)[list(SCORES.values())].agg(text)
    return made.reset_index()


def claims() -> list[Claim]:
    """What is known of the ablation, as predicates over `study.grid.results_frame`.

    The local optimisers run after the last round and are never averaged, so the global adapter is the same
    with and without them: the pipeline and "global only" are told apart by the local score alone.
    """
    found = []
    for other in STRUCTURES:
        if other == "pipeline":
            continue
        for score in ("local_rouge_l",) if other == "global only" else ("rouge_l", "local_rouge_l"):
            extra = "; it takes extra steps and the server's examples" if other == "neither" else ""
            found.append(
                Claim(
                    f"pipeline_above_{other.replace(' ', '_')}_{_side(score)}",
                    f"the pipeline is better than {_in_words(other)}, by {SCORES[score]}{extra}",
                    "ablation",
                    "SECOND: that another structure is worse; which one, the score and the numbers UNKNOWN",
                    _judge(score, {"structure": "pipeline"}, {"structure": other}, structures),
                )
            )
    for optimiser, own, score in (("global", GLOBAL, "rouge_l"), ("local", LOCAL, "local_rouge_l")):
        fixed = {
            "structure": "pipeline",
            **({"local": LOCAL} if optimiser == "global" else {"global": GLOBAL}),
        }
        for other in COMPONENTS:
            if other != own:
                found.append(
                    Claim(
                        f"{optimiser}_{own}_above_{other}",
                        f"the {optimiser} optimiser should train {own} rather than {other}, "
                        f"by {SCORES[score]}",
                        "abstract: the roles of A's direction and B's magnitude",
                        "SEEN as the design; the comparison is DERIVED from it; numbers UNKNOWN",
                        _judge(score, {**fixed, optimiser: own}, {**fixed, optimiser: other}, None),
                    )
                )
    return found


def _side(score: str) -> str:
    return "local" if score.startswith("local") else "global"


def _in_words(structure: str) -> str:
    return {
        "joint": "one joint stage",
        "global only": "the global optimiser alone",
        "local only": "the local optimisers alone",
        "neither": "neither optimiser",
    }[structure]


def _judge(score: str, better: dict[str, str], worse: dict[str, str], rows: Any) -> Any:
    def on(results: pd.DataFrame) -> Verdict:
        kept = results if rows is None else rows(results)
        return mean_difference(kept, score, better=better, worse=worse, within=["task"])

    return on


def deviations(s: Setting) -> list[str]:
    """What is the kit's own, and what the comparison is not."""
    return [
        "That the paper has an ablation is known from a summary; the structures, components, scores and data "
        "here are the kit's reading of it.",
        'The structures differ in cost and data. In comparison to "neither", FedLoRA-Optimizer takes extra '
        f"steps ({s.steps} at the server after each round, {s.steps} at each client at the end) and has "
        f"server data: {s.server_examples} examples that the clients do not have, set aside in every "
        'structure. "joint" trains at the clients after each round, on their own examples only.',
        "Every component trains with AdamW at one rate. A step moves each entry by about the rate, so it "
        "turns a unit direction of n entries by about rate * sqrt(n) and changes a magnitude m by rate / m: "
        "directions move the factor further in a step, the more so the wider the model. Comparisons between "
        "components are in part comparisons of rates; none was tuned.",
        "The other structures differ too: the pipeline has the server's steps and examples more than "
        '"local only", and the clients\' last steps more than "global only"; "joint" takes as many steps as '
        "there are clients times rounds.",
        '"neither" still averages the components apart; it is not FedIT.',
        "The local optimisers run at the end and send nothing: what they train does not touch the global "
        "score, so those rows repeat each other.",
        *flo_setting.deviations(s),
        *small_run(s),
    ]


def small_run(s: Setting) -> list[str]:
    """How little the smoke profile scores, if it is that."""
    if s.backbone != "kit/instruct-tiny":
        return []
    scored = "all" if s.eval_limit is None else f"{s.eval_limit}"
    return [
        f"A smoke run: {s.rounds} rounds of {s.steps} steps, {scored} test examples scored and "
        f"{100 * s.client_holdout:g} % of each client's as its own, after the last round only. A few "
        "examples more or less right are several points of ROUGE-L.",
    ]


def runs(profile: str, grid: str | None = None, **parameters: Any) -> Runs:
    """A run for each pair of components, pipeline and seed."""
    s = setting("fedlora-optimizer/ablation", profile, **parameters)
    return Runs(tuple(cells(s, pairs(profile, grid))))
