"""How far each choice that FedLoRA-Optimizer's sources leave open moves the result, one at a time.

The kit's own question: the error bar of the replication that comes from what the paper does not say.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fedlora_kit.looks import DOUBLE, GREY, REFERENCE, of_method
from fedlora_kit.numerals import fixed, rounded, signed
from fedlora_kit.papers.fedlora_optimizer import ablation, setting
from fedlora_kit.papers.fedlora_optimizer.setting import Setting
from fedlora_kit.study.claims import Claim, Verdict, mean_difference
from fedlora_kit.study.grid import Cell
from fedlora_kit.study.overrides import chosen
from fedlora_kit.study.pairing import MissingCells, pair
from fedlora_kit.study.planned import Runs
from fedlora_kit.study.statistics import mean_interval
from fedlora_kit.study.words import sentence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT = ("default", "default")
#: score -> the item whose published gain it is set beside
GAINS = {"rouge_l": "global", "local_rouge_l": "local"}


@dataclass(frozen=True)
class Variant:
    """One alternative of one choice.

    Attributes:
        choice, default, alternative: in words.
        settings: of the method, in place of its defaults.
        size: of the setting (`setting.Setting`), in place of the profile's.
        reference: choice and alternative of the run it is compared with.
    """

    choice: str
    default: str
    alternative: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    size: Mapping[str, Any] = field(default_factory=dict)
    reference: tuple[str, str] = DEFAULT

    @property
    def place(self) -> tuple[str, str]:
        """Choice and alternative."""
        return self.choice, self.alternative


def _of_method(name: str, default: Any, other: Any) -> Callable[[Setting], list[Variant]]:
    return lambda s: [Variant(name, _word(default), _word(other), {name: other})]


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _steps(name: str) -> Callable[[Setting], list[Variant]]:
    return lambda s: [
        Variant(name, str(s.steps), str(n), {name: n}) for n in (s.steps // 2, 2 * s.steps) if n >= 1
    ]


def _rate(name: str) -> Callable[[Setting], list[Variant]]:
    return lambda s: [
        Variant(name, _word(s.lr), _word(lr), {name: lr}) for lr in (_times(s.lr, 0.3), _times(s.lr, 3.0))
    ]


def _times(lr: float, factor: float) -> float:
    return rounded(lr * factor, 6)  # 0.0015, not 0.0014999…


def _server_examples(s: Setting) -> list[Variant]:
    name, n = "server_examples", s.server_examples
    return [Variant(name, str(n), str(m), size={name: m}) for m in (n // 2, 2 * n) if m >= 1]


def _rank(s: Setting) -> list[Variant]:
    """α / r, the scale of BA, stays as it is."""
    return [
        Variant("rank", str(s.rank), str(r), size={"rank": r, "alpha": s.alpha * r / s.rank})
        for r in (s.rank // 2, 2 * s.rank)
        if r >= 1
    ]


def _personal_start(s: Setting) -> list[Variant]:
    """Carrying over needs something kept from an earlier round: compared at local_when="every_round"."""
    settings = {"local_when": "every_round", "personal_start": "carried"}
    return [Variant("personal_start", "global", "carried", settings, {}, ("local_when", "every_round"))]


#: choice -> its variants
CHOICES: dict[str, Callable[[Setting], list[Variant]]] = {
    "axis": _of_method("axis", "rank", "vector"),
    "renormalise": _of_method("renormalise", True, False),
    "global_data": _of_method("global_data", "server", "clients"),
    "global_when": _of_method("global_when", "every_round", "end"),
    "local_when": _of_method("local_when", "end", "every_round"),
    "personal_start": _personal_start,
    "global_steps": _steps("global_steps"),
    "local_steps": _steps("local_steps"),
    "global_lr": _rate("global_lr"),
    "local_lr": _rate("local_lr"),
    "server_examples": _server_examples,
    "rank": _rank,
}


def variants(s: Setting, choices: Sequence[str] | None = None) -> list[Variant]:
    """The alternatives of the chosen choices, of all of them if none is named.

    Raises:
        UnknownName: no such choice.
        BadValue: an empty list, or one twice.
    """
    wanted = chosen("open choice of fedlora-optimizer", "choices", choices, CHOICES)
    return [variant for name in wanted for variant in CHOICES[name](s)]


def cells(s: Setting, chosen: Sequence[Variant]) -> list[Cell]:
    """The default, every variant and what it is compared with, for every seed; each once.

    Coordinates: choice, alternative.
    """
    known = {v.place: v for name in CHOICES for v in CHOICES[name](s)}
    known[DEFAULT] = Variant("default", "default", "default")
    places = dict.fromkeys([DEFAULT, *(p for v in chosen for p in (v.reference, v.place))])
    made = []
    for place in places:
        variant = known[place]
        sized = dataclasses.replace(s, **variant.size)
        for seed in s.seeds:
            spec = setting.spec(sized, ablation.METHOD, seed, **variant.settings)
            made.append(Cell({"choice": place[0], "alternative": place[1]}, {}, seed, spec))
    return made


def effects(results: pd.DataFrame, chosen: Sequence[Variant]) -> pd.DataFrame:
    """What each variant changes, paired by seed.

    Args:
        results: `study.grid.results_frame` of `cells`.

    Returns:
        choice, default, alternative, score ("rouge_l" or "local_rouge_l"), change (of ROUGE-L in points of %:
        variant − its reference, mean over seeds), lower, upper (Student's 95 % interval; NaN for one seed),
        n_seeds. A variant without any complete seed has NaN and 0.
    """
    rows = []
    for v in chosen:
        for score in GAINS:
            row = {"choice": v.choice, "default": v.default, "alternative": v.alternative, "score": score}
            try:
                sides = [dict(zip(("choice", "alternative"), p, strict=True)) for p in (v.place, v.reference)]
                own, other = pair(results, score, sides, within=["task"], at_least=1).values.mean(axis=2)
            except MissingCells:
                own = other = np.array([])
            change = own - other
            low, high = math.nan, math.nan
            if change.size > 1:
                interval = mean_interval(change)
                low, high = interval.lower, interval.upper
            mean = float(change.mean()) if change.size else math.nan
            rows.append({**row, "change": mean, "lower": low, "upper": high, "n_seeds": change.size})
    return pd.DataFrame(rows)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """`effects` as text: a row a variant, both changes with their intervals."""

    def text(row: Mapping[str, Any]) -> str:
        if math.isnan(row["change"]):
            return "diverged"
        if math.isnan(row["lower"]):
            return signed(fixed(row["change"]))
        change, lower, upper = (signed(fixed(row[name])) for name in ("change", "lower", "upper"))
        return f"{change} [{lower}, {upper}]"

    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in found.to_dict("records"):
        line = rows.setdefault((row["choice"], row["alternative"]), {})
        line |= {k: row[k] for k in ("choice", "default", "alternative")}
        line[f"Δ {GAINS[row['score']]} ROUGE-L"] = text({str(k): v for k, v in row.items()})
    return pd.DataFrame(list(rows.values()))


def gain(score: str) -> float:
    """The published gain beside a score, in %; its metric and baseline are unknown."""
    return setting.published_gain(GAINS[score])


def widest(results: pd.DataFrame, score: str) -> pd.DataFrame:
    """Per seed, the score of the variants that are best and worst *on the other seeds*.

    A plain maximum minus minimum is above 0 by noise alone. Here a seed has no say in which variants it
    compares, so noise cancels out.

    Returns:
        seed, side ("best" or "worst"), ``score``: two rows a seed on which every variant has a score.

    Raises:
        MissingCells: fewer than two such seeds, or fewer than two variants.
    """
    wide = results.pivot(index="seed", columns=["choice", "alternative"], values=score).dropna()
    if wide.shape[0] < 2 or wide.shape[1] < 2:
        raise MissingCells(
            f"{wide.shape[0]} seeds are complete for {wide.shape[1]} variants, 2 of each are needed",
            "run more seeds or choices",
        )
    rows = []
    for seed in wide.index:
        others = wide.drop(index=seed).mean()
        for side, place in (("best", others.idxmax()), ("worst", others.idxmin())):
            rows.append({"seed": seed, "side": side, score: float(wide.loc[seed, place])})  # type: ignore[index]
    return pd.DataFrame(rows)


def claims() -> list[Claim]:
    """Our question, one a score: does the range over the choices exceed the published gain?"""

    def judge(score: str) -> Callable[[pd.DataFrame], Verdict]:
        return lambda r: mean_difference(
            widest(r, score), score, better={"side": "best"}, worse={"side": "worst"}, margin=gain(score)
        )

    return [
        Claim(
            f"spread_above_gain_{part}",
            f"our question: undocumented choices move {part} ROUGE-L by more than the published gain of "
            f"{gain(score):g} % (best against worst choice, picked on the other seeds)",
            "no sentence of the paper",
            "the kit's own; the gain SEEN in the abstract, its metric UNKNOWN",
            judge(score),
        )
        for score, part in GAINS.items()
    ]


def figure(found: pd.DataFrame) -> Figure:
    """Changes of the global (left) and the local score (right) with 95 % intervals, beside the gains."""
    from matplotlib import pyplot as plt

    places = list(dict.fromkeys(zip(found["choice"], found["default"], found["alternative"], strict=True)))
    fig, axes = plt.subplots(1, 2, figsize=(DOUBLE, 0.95 + 0.2 * len(places)), sharey=True)
    look = {**of_method("fedlora-optimizer").line(), "linestyle": ""}
    for axis, (score, part) in zip(axes, GAINS.items(), strict=True):
        rows = found[found["score"] == score].set_index(["choice", "default", "alternative"]).loc[places]
        change = rows["change"].to_numpy(float)
        bars = np.nan_to_num(np.array([change - rows["lower"], rows["upper"] - change], dtype=float))
        axis.axvline(0, color=GREY, lw=0.8)
        axis.axvline(
            gain(score),
            color=REFERENCE,
            ls="--",
            lw=1.0,
            label=f"+{gain(score):g} %: abstract, metric unknown",
        )
        axis.errorbar(change, range(len(places)), xerr=bars, lw=1.0, **look)
        axis.set(xlabel=f"change of {part} ROUGE-L (percentage points)", ylim=(len(places) - 0.4, -0.6))
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes[0].set_yticks(range(len(places)), [sentence(f"{c}: {d} → {a}") for c, d, a in places])
    return fig


def deviations(s: Setting) -> list[str]:
    """What the comparison holds and what it does not."""
    return [
        "The question is the kit's own. The published gains are those of the abstract over an unknown "
        "baseline in an unknown metric, so the lines in the figure mark a size and not a target.",
        "One choice at a time from the kit's defaults: choices that act together are not seen. Alternatives "
        "are the method's other settings, half and double the steps, server examples and rank (α/r kept), "
        "and 0.3 and 3 times the rate.",
        'personal_start is compared at local_when="every_round": where local optimisers run once, nothing is '
        'carried. With personal_start="global" they start anew each time and send nothing, so local_when '
        "alone changes nothing, by construction.",
        "Nor do local steps and rates touch the global score. Another number of server examples leaves the "
        "clients other examples to train on and to be scored on.",
        "The global optimiser takes extra steps and has the server's examples in every variant but "
        'global_data="clients".',
        *setting.deviations(s),
        *ablation.small_run(s),
    ]


def runs(profile: str, choices: Sequence[str] | None = None, **parameters: Any) -> Runs:
    """A run for each choice's variants and seed."""
    s = ablation.setting("fedlora-optimizer/open_choices", profile, **parameters)
    return Runs(tuple(cells(s, variants(s, choices))))
