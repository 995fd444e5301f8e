"""The open choices of FedLoRA-Optimizer as data."""

import numpy as np
import pandas as pd
import pytest

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.methods import FedLoRAOptimizer
from fedlora_kit.papers.fedlora_optimizer import ablation, open_choices
from fedlora_kit.study.claims import judge_all
from fedlora_kit.study.pairing import MissingCells

S = ablation.setting("fedlora-optimizer/open_choices", "smoke")
VARIANTS = open_choices.variants(S)


def leaves(value, path=()):
    """Every scalar of a description by its path."""
    if isinstance(value, dict):
        return {k: v for name, one in value.items() for k, v in leaves(one, (*path, name)).items()}
    return {".".join(path): value}


def differences(one, other):
    """Paths at which two runs differ, with the settings of the method in full."""
    flat = []
    for spec in (one, other):
        method = vars(FedLoRAOptimizer(**spec.method.settings))
        flat.append({**leaves(spec.model_dump()), **{f"method.{k}": v for k, v in method.items()}})
    named = {k for k in flat[0].keys() | flat[1].keys() if not k.startswith("method.settings")}
    return {k for k in named if flat[0].get(k) != flat[1].get(k)}


def test_every_variant_differs_in_exactly_what_it_says():
    made = {tuple(c.coords.values()): c.spec for c in open_choices.cells(S, VARIANTS) if c.seed == 0}
    assert len(made) == len(VARIANTS) + 1
    where = {
        "server_examples": {"data.server_examples"},
        "rank": {"model.lora.rank", "model.lora.alpha"},
        "global_data": {"method.global_data", "method.server_stage"},
    }
    for v in VARIANTS:
        assert differences(made[v.place], made[v.reference]) == where.get(v.choice, {f"method.{v.choice}"})
    assert {v.choice for v in VARIANTS} == set(open_choices.CHOICES)
    assert made[open_choices.DEFAULT] == ablation.cells(S, [])[0].spec  # shared with the ablation
    assert len({c.spec.canonical() for c in open_choices.cells(S, VARIANTS)}) == 3 * len(made)


def test_sizes_are_halved_and_doubled():
    found = {v.place: v for v in VARIANTS}
    half, double = (found["rank", str(r)].size for r in (S.rank // 2, 2 * S.rank))
    assert half["alpha"] / half["rank"] == double["alpha"] / double["rank"] == S.alpha / S.rank
    assert found["global_lr", f"{3 * S.lr:g}"].settings == {"global_lr": pytest.approx(3 * S.lr)}
    assert found["local_steps", str(S.steps // 2)].settings == {"local_steps": S.steps // 2}
    one = ablation.setting("fedlora-optimizer/open_choices", "smoke", steps=1)
    assert [v.alternative for v in open_choices.variants(one, ["local_steps"])] == ["2"]  # half of 1 is none


def test_a_choice_alone_brings_what_it_is_compared_with():
    (alone,) = open_choices.variants(S, ["personal_start"])
    places = {tuple(c.coords.values()) for c in open_choices.cells(S, [alone])}
    assert places == {open_choices.DEFAULT, ("local_when", "every_round"), alone.place}


def test_bad_choices():
    with pytest.raises(UnknownName, match="open choice.*'colour'"):
        open_choices.variants(S, ["colour"])
    for bad in ([], ["axis", "axis"]):
        with pytest.raises(BadValue, match="choices"):
            open_choices.variants(S, bad)


def results(value, seeds=3, noise=0.0):
    """value: (choice, alternative) -> score; the same for the global and the local one."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {
                **c.coords,
                "task": "instructions",
                "seed": c.seed,
                "rouge_l": (score := value(*c.coords.values()) + c.seed + noise * rng.normal()),
                "local_rouge_l": score,
            }
            for c in open_choices.cells(S, VARIANTS)
            if c.seed < seeds
        ]
    )


def test_effects_are_paired_with_their_own_reference():
    scores = {
        open_choices.DEFAULT: 10.0,
        ("local_when", "every_round"): 14.0,
        ("personal_start", "carried"): 15.0,
    }
    frame = results(lambda *place: scores.get(place, 10.0))
    found = open_choices.effects(frame, VARIANTS).set_index(["choice", "alternative", "score"])
    for place, change in ((("personal_start", "carried"), 1.0), (("local_when", "every_round"), 4.0)):
        row = found.loc[(*place, "local_rouge_l")]
        # the seeds' own level cancels
        assert (row["change"], row["lower"], row["upper"], row["n_seeds"]) == (change, change, change, 3)
    shown = open_choices.table(found.reset_index())
    assert len(shown) == len(VARIANTS)
    assert shown.set_index("choice").loc["personal_start", "Δ local ROUGE-L"] == "+1.00 [+1.00, +1.00]"


def test_failed_runs_and_a_single_seed_stay_visible():
    frame = results(lambda *place: 10.0)
    frame.loc[frame["choice"] == "axis", "rouge_l"] = np.nan
    shown = open_choices.table(open_choices.effects(frame, VARIANTS)).set_index("choice")
    assert shown.loc["axis", "Δ global ROUGE-L"] == "diverged"
    assert shown.loc["axis", "Δ local ROUGE-L"] == "+0.00 [+0.00, +0.00]"
    single = open_choices.effects(results(lambda *place: 10.0, seeds=1), VARIANTS)
    assert single["lower"].isna().all()
    assert (single["n_seeds"] == 1).all()
    assert open_choices.table(single).iloc[0, -1] == "+0.00"
    assert len(open_choices.figure(single).axes) == 2


def test_our_question():
    def status(frame):
        return {j.claim.id: j.verdict.status for j in judge_all(open_choices.claims(), frame)}

    wide = status(results(lambda choice, _: 10 + 5 * (choice == "rank"), noise=0.1))
    assert set(wide.values()) == {"reproduced"}
    assert len(wide) == 2
    assert set(status(results(lambda *place: 10.0, noise=0.1)).values()) == {"not reproduced"}
    between = status(results(lambda choice, _: 10 + 0.5 * (choice == "rank")))
    assert between == {"spread_above_gain_global": "reproduced", "spread_above_gain_local": "not reproduced"}
    assert set(status(results(lambda *place: 10.0, seeds=1)).values()) == {"not testable"}


def test_noise_alone_gives_no_spread():
    """Maximum minus minimum would: about 3.6 standard deviations of 19 variants."""
    frame = results(lambda *place: 10.0, noise=1.0)
    rng = np.random.default_rng(1)
    found = []
    for _ in range(40):
        frame["rouge_l"] = rng.normal(size=len(frame))
        sides = open_choices.widest(frame, "rouge_l").groupby("side")["rouge_l"].mean()
        found.append(sides["best"] - sides["worst"])
    assert abs(np.mean(found)) < 4 * np.std(found) / 40**0.5 < 1
    with pytest.raises(MissingCells):
        open_choices.widest(frame[frame["choice"] == "default"], "rouge_l")


def test_the_gains_are_the_published_ones():
    assert (open_choices.gain("rouge_l"), open_choices.gain("local_rouge_l")) == (0.39, 0.59)
