"""FedLoRA-Optimizer's tables: gains over the baseline, the claims, and what was chosen."""

from __future__ import annotations

import dataclasses
from typing import Any

import pandas as pd

from fedlora_kit.data.tasks import get_task
from fedlora_kit.numerals import fixed, signed
from fedlora_kit.papers.fedlora_optimizer.setting import published_gain
from fedlora_kit.papers.fedlora_optimizer.tables import (
    BASELINE,
    MORE_STEPS,
    NO_GLOBAL,
    OURS,
    PROFILES,
    Setting,
    equal_steps,
)
from fedlora_kit.study.claims import Claim, Verdict, mean_difference
from fedlora_kit.study.pairing import MissingCells, pair
from fedlora_kit.study.sequential import interval_name
from fedlora_kit.study.statistics import mean_interval

#: metric -> column that is larger for the better adapter
_BETTER = {"ROUGE-L": "rouge_l", "exact match": "accuracy", "loss": "minus_loss"}
#: the reported cell, and our reading of it: ROUGE-L × 100, in points
CELL = "gain over baseline"


def _published(local: bool) -> float:
    return published_gain("local" if local else "global")


def _pairing(results: pd.DataFrame) -> list[str]:
    return [c for c in ("task", "split", "model") if c in results.columns]


def gains(results: pd.DataFrame, *, local: bool) -> pd.DataFrame:
    """FedLoRA-Optimizer's gain over FedIT in %, mean over data sets and models, in several readings.

    Returns:
        One row a seed and reading: cell, seed, gain. "gain over baseline" is in points of ROUGE-L × 100; the
        others say what they are. A relative gain over 0 is left out. No rows where a side is missing.
    """
    rows: list[dict[str, Any]] = []
    for metric, column in _BETTER.items():
        value = f"local_{column}" if local else column
        try:
            sides = [{"method": OURS}, {"method": BASELINE}]
            found = pair(results, value, sides, within=_pairing(results), at_least=1)
        except MissingCells:
            continue
        ours, base = found.values.mean(axis=2)
        for seed, a, b in zip(found.seeds, ours, base, strict=True):
            if metric != "loss":
                name = CELL if metric == "ROUGE-L" else f"{CELL}, {metric} in points"
                rows.append({"cell": name, "seed": seed, "gain": a - b})
            if b:
                rows.append(
                    {"cell": f"{CELL}, {metric} relative", "seed": seed, "gain": 100 * (a - b) / abs(b)}
                )
    return pd.DataFrame(rows, columns=["cell", "seed", "gain"])


def claims(*, local: bool) -> list[Claim]:
    """The abstract's claims of one item, as predicates over `scores.frame`."""
    which = "own adapters of the clients" if local else "global adapter"
    prefix, scope = ("local_", "local") if local else ("", "global")
    made = [
        Claim(
            f"{scope}_gain_{column}",
            f"{which}: FedLoRA-Optimizer is better than FedIT by {metric}",
            "abstract",
            "SEEN: the direction; metric and baseline are UNKNOWN",
            lambda r, v=prefix + column: _above(r, v, BASELINE),  # type: ignore[misc]
        )
        for metric, column in _BETTER.items()
    ]
    made.append(
        Claim(
            f"{scope}_gain_at_equal_steps",
            f"{which}: FedLoRA-Optimizer is better than FedIT with as many steps, by ROUGE-L",
            "ours",
            "ours: a control; the paper is not known to compare at equal steps",
            lambda r: _above(r, f"{prefix}rouge_l", MORE_STEPS),
        )
    )
    if local:
        made += [
            Claim(
                f"global_optimiser_helps_local_{column}",
                f"the global optimiser further improves the local models, by {metric}",
                "abstract",
                "SEEN: the direction; the metric is UNKNOWN",
                lambda r, v=prefix + column: _above(r, v, NO_GLOBAL),  # type: ignore[misc]
            )
            for metric, column in _BETTER.items()
        ]
    made.append(
        Claim(
            f"{scope}_gain_size",
            f"{which}: the gain is {_published(local):g} %",
            "abstract",
            "SEEN: the number; metric, baseline and averaging are UNKNOWN",
            lambda r: _size(r, local),
        )
    )
    return made


def _above(results: pd.DataFrame, value: str, other: str) -> Verdict:
    return mean_difference(
        results, value, better={"method": OURS}, worse={"method": other}, within=_pairing(results)
    )


def _size(results: pd.DataFrame, local: bool) -> Verdict:
    """Never testable; the reason shows ours beside the paper's."""
    why = f"of the paper's {_published(local):g} % metric, baseline and averaging are unknown"
    ours = gains(results, local=local)
    values = ours.loc[ours["cell"] == CELL, "gain"].to_numpy()
    if not len(values):
        return Verdict("not testable", f"{why}; ours: no result")
    spread, evidence = "", {"gain": float(values.mean()), "published": _published(local)}
    if len(values) > 1:
        interval = mean_interval(values)
        evidence |= {"lower": interval.lower, "upper": interval.upper}
        spread = f" [{interval_name()} {signed(fixed(interval.lower))}, {signed(fixed(interval.upper))}]"
    text = (
        f"{why}; ours over FedIT: {signed(fixed(values.mean()))} points of ROUGE-L × 100{spread}, "
        f"{len(values)} seeds"
    )
    return Verdict("not testable", text, evidence)


def deviations(s: Setting) -> list[str]:
    """What is unknown and was chosen, and where a run departs from the paper-size setting."""
    paper = PROFILES["paper"]
    more = sorted({str(equal_steps(s, get_task(task).num_labels)) for task in s.tasks})
    said = [
        "Known are the models (LLaMA2-7B, DeepSeek-7B), the data sets (Dolly-15k, Natural Instructions) "
        "and the two gains. Split, number of clients, rank, α, targets, rates, steps, rounds, metric, "
        f"baselines and averaging are UNKNOWN. Ours: as many clients as categories, rank {s.rank}, α "
        f"{s.alpha:g} on q and v, AdamW at {s.lr:g} for all methods (untuned), {s.steps} steps of "
        f"{s.batch_size} examples a client and round, {s.rounds} rounds.",
        "FedLoRA-Optimizer takes more steps than FedIT (at the server in every round, at every client "
        f"after the last one) and sees {s.server_examples} labelled examples at the server; no other method "
        "trains on these, though they are set aside for all of them. The table of steps and examples says "
        f"how much. {MORE_STEPS} is FedIT with {' or '.join(more)} instead of {s.steps} local steps a "
        "round: at least as many steps in all, without the server's examples. Ditto takes twice FedIT's "
        "steps.",
        "Whether a gain in % is in points or relative is UNKNOWN. Beside the paper's number stand points of "
        "ROUGE-L × 100 over FedIT, mean over data sets and models; other readings have rows of their own.",
        "The global adapter is scored on the test part of all categories. fedsa-lora and local-only keep "
        "LoRA, or "
        'part of it, at the clients: they have no global adapter, and their cell is "—". The mean over their '
        "clients' own adapters is in the store, and is something else.",
        f"A client's own adapter is scored on {100 * s.client_holdout:g} % of its own examples, which nobody "
        "trains on, and the mean over clients is given. For methods without own adapters (lora, dora, "
        "ffa-lora) it is the global one, without any fine-tuning.",
        f"{NO_GLOBAL} differs from FedLoRA-Optimizer in that stage alone: it averages by component and "
        "trains B's magnitude at the clients. It takes fewer steps.",
        "FedDPA is not there: Ditto stands in for it (a global and an own adapter that take turns). Other "
        "baselines of the paper are UNKNOWN.",
        "ROUGE-L is Google's rouge-score with stemming, the best over an example's references; exact match "
        "is that of the whole response. The last round counts; nothing is scored before.",
        "The revision of either 7B model is the one that public repositories name for it; the kit reads "
        "safetensors only, and whether DeepSeek's revision holds them could not be looked up.",
    ]
    if s == paper:
        return said
    first = []
    if "instructions" in s.tasks:
        first.append(
            "Eight kinds of built-in instructions on the kit's own Llama of 4 layers, split in two ways "
            "(one, and two categories a client), stand in for two data sets: figures cannot be compared "
            "with the paper's."
        )
    if len(s.backbones) < 2:
        first.append(f"One model, {s.backbones[0]}, not two: nothing stands in for the second.")
    left_out = [m for m in paper.methods if m not in s.methods]
    if left_out:
        first.append(f"Left out here: {', '.join(left_out)}.")
    changes = [
        f"{f.name}: {getattr(s, f.name)!r} (paper-size setting: {getattr(paper, f.name)!r})"
        for f in dataclasses.fields(Setting)
        if getattr(s, f.name) != getattr(paper, f.name) and f.name not in {"methods"}
    ]
    return [*first, *changes, *said]
