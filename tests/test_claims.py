"""Claims: judged by hand-made results, and what must never be judged."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.study.claims import (
    Claim,
    MissingCells,
    Verdict,
    judge_all,
    lower_spread,
    mean_difference,
    smaller_drop,
    to_json,
)
from fedlora_kit.study.equivalence import exact_ratio, within_margin

FFA, LORA = {"method": "ffa-lora"}, {"method": "lora"}


def frame(**values):
    """Results from ``"method|eps|task"=[one value a seed]``."""
    rows = []
    for place, seeds in values.items():
        method, eps, task = place.split("|")
        for seed, value in enumerate(seeds):
            rows.append(
                {
                    "method": method,
                    "eps": eps,
                    "task": task,
                    "seed": seed,
                    "key": f"{len(rows):016x}",
                    "accuracy": value,
                }
            )
    return pd.DataFrame(rows)


def two(ffa, lora):
    return frame(**{"ffa-lora|6|sst2": ffa, "lora|6|sst2": lora})


# --- mean_difference ----------------------------------------------------------------------------------


def test_mean_difference_by_hand():
    """Differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t(2) at .975 is 4.30265."""
    verdict = mean_difference(two([81, 83, 85], [80, 81, 82]), "accuracy", better=FFA, worse=LORA)
    half = 4.30265 / np.sqrt(3)
    assert verdict.evidence["difference"] == 2
    assert verdict.evidence["lower"] == pytest.approx(2 - half, abs=1e-4)
    assert verdict.evidence["upper"] == pytest.approx(2 + half, abs=1e-4)
    assert (verdict.evidence["better_mean"], verdict.evidence["worse_mean"]) == (83, 81)
    assert verdict.status == "not reproduced"
    assert "includes 0" in verdict.reason
    assert "3 seeds, 1 cell" in verdict.reason


def test_mean_difference_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    for shift in (0.0, 2.0, -2.0):
        lora = rng.normal(80, 5, 6)
        ffa = lora + rng.normal(shift, 0.5, 6)
        verdict = mean_difference(two(ffa, lora), "accuracy", better=FFA, worse=LORA)
        p = stats.ttest_rel(ffa, lora, alternative="greater").pvalue
        assert (verdict.status == "reproduced") == (p < 0.025)
        if shift < 0:
            assert "lies on the other side of 0" in verdict.reason


def test_mean_difference_averages_cells_within_a_seed():
    """A gain of 3 in one task and 1 in the other is 2 in every seed, however far apart the seeds are."""
    results = frame(
        **{
            "ffa-lora|6|sst2": [13, 53, 93],
            "lora|6|sst2": [10, 50, 90],
            "ffa-lora|6|qnli": [41.1, 31.0, 20.9],
            "lora|6|qnli": [40, 30, 20],
        }
    )
    verdict = mean_difference(results, "accuracy", better=FFA, worse=LORA)
    assert verdict.status == "reproduced"
    assert verdict.evidence["n_cells"] == 2
    assert verdict.evidence["difference"] == pytest.approx(2)
    assert verdict.evidence["sd"] == pytest.approx(0.05)


def test_the_margin_shifts_the_bar():
    results = two([83.1, 83.0, 82.9], [80, 80, 80])
    assert mean_difference(results, "accuracy", better=FFA, worse=LORA, margin=2.5).status == "reproduced"
    refused = mean_difference(results, "accuracy", better=FFA, worse=LORA, margin=3.5)
    assert refused.status == "not reproduced"
    assert "other side of 3.5" in refused.reason


def test_identical_differences_are_said_to_be_without_spread():
    verdict = mean_difference(two([81, 82], [80, 81]), "accuracy", better=FFA, worse=LORA)
    assert verdict.status == "reproduced"
    assert "no spread at all" in verdict.reason
    tie = mean_difference(two([80, 81], [80, 81]), "accuracy", better=FFA, worse=LORA)
    assert tie.status == "not reproduced"


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(12)))
def test_the_order_of_rows_does_not_matter(order):
    results = frame(
        **{
            f"{m}|6|{t}": np.arange(3) ** 2 * (1 + (m == "lora"))
            for m in ("lora", "ffa-lora")
            for t in ("a", "b")
        }
    )
    one = mean_difference(results, "accuracy", better=FFA, worse=LORA)
    assert one == mean_difference(results.iloc[list(order)], "accuracy", better=FFA, worse=LORA)


def test_incomplete_seeds_are_left_out_and_said_so():
    results = two([83, 84, 85, 99], [80, 81.5, 81])
    verdict = mean_difference(results, "accuracy", better=FFA, worse=LORA)
    assert verdict.evidence["n_seeds"] == 3
    assert "1 incomplete seeds left out" in verdict.reason
    broken = two([83, 84, np.nan, np.inf], [80, 81.5, 81, 80])
    assert mean_difference(broken, "accuracy", better=FFA, worse=LORA).evidence["n_seeds"] == 2


def test_missing_cells():
    def judge(results, **kwargs):
        mean_difference(results, "accuracy", better=FFA, worse=LORA, **kwargs)

    both = two([1, 2], [3, 4])
    with pytest.raises(MissingCells, match="no results"):
        judge(both.iloc[:0])
    with pytest.raises(MissingCells, match="no result for method=lora"):
        judge(both[both.method != "lora"])
    with pytest.raises(MissingCells, match="1 seeds are complete for method=ffa-lora and method=lora, 2 are"):
        judge(two([1], [2, 3]))
    with pytest.raises(MissingCells, match="no result for method=lora at eps=6|task=qnli"):
        judge(pd.concat([both, frame(**{"ffa-lora|6|qnli": [1, 2]})]))
    with pytest.raises(MissingCells, match="no result for method=lora"):
        judge(two([1, 2], [np.nan, np.nan]))


def test_columns_that_do_not_exist_are_no_open_question():
    results = two([1, 2], [3, 4])
    with pytest.raises(UnknownName, match="'accuracies'.*\n.*did you mean 'accuracy'"):
        mean_difference(results, "accuracies", better=FFA, worse=LORA)
    with pytest.raises(UnknownName, match="'metod'"):
        mean_difference(results, "accuracy", better={"metod": "x"}, worse=LORA)


def test_a_forgotten_coordinate_is_an_error_and_not_an_average():
    results = two([1, 2], [3, 4]).assign(rank=8)  # a numeric column is no coordinate
    again = pd.concat([results, results.assign(rank=16)])
    with pytest.raises(BadValue, match="two results for method=ffa-lora at eps=6|task=sst2, seed 0"):
        mean_difference(again, "accuracy", better=FFA, worse=LORA)
    verdict = mean_difference(again, "accuracy", better={**FFA, "rank": 16}, worse={**LORA, "rank": 8.0})
    assert verdict.evidence["n_seeds"] == 2


def test_within_pairs_by_the_given_columns_only():
    """Each method has its own best learning rate: a text column that must not pair the rows."""
    results = two([83, 84.5, 85], [80, 81, 82])
    results["lr"] = np.where(results.method == "lora", "0.05", "0.5")
    with pytest.raises(MissingCells):
        mean_difference(results, "accuracy", better=FFA, worse=LORA)
    verdict = mean_difference(results, "accuracy", better=FFA, worse=LORA, within=["task"])
    assert verdict.evidence["difference"] == pytest.approx(19 / 6)


def test_several_values_restrict_but_stay_coordinates():
    results = frame(
        **{f"{m}|{e}|sst2": [80 + (m == "ffa-lora"), 81.1] for m in ("lora", "ffa-lora") for e in "631"}
    )
    levels = {"eps": ["6", 3]}
    verdict = mean_difference(results, "accuracy", better={**FFA, **levels}, worse={**LORA, **levels})
    assert verdict.evidence["n_cells"] == 2
    assert "eps=6/3" in verdict.reason


def test_error_rate_through_the_whole_path():
    """200 experiments without effect, 4 seeds × 2 tasks with large task and seed effects: about 5 pass."""
    rng = np.random.default_rng(3)
    passed = 0
    for _ in range(200):
        seed_effect = rng.normal(0, 5, 4)
        results = frame(
            **{
                f"{m}|6|{t}": 60 + 20 * (t == "b") + seed_effect + rng.normal(0, 1, 4)
                for m in ("lora", "ffa-lora")
                for t in "ab"
            }
        )
        passed += mean_difference(results, "accuracy", better=FFA, worse=LORA).status == "reproduced"
    assert 1 <= passed <= 14  # within 4 standard errors


# --- smaller_drop -------------------------------------------------------------------------------------

CONDITIONS = {"before": {"eps": "none"}, "after": {"eps": "1"}}


def test_smaller_drop_by_hand():
    """Drops of lora 20, 22, 27 and of ffa-lora 4, 5, 6: difference 16, 17, 21, mean 18, sd sqrt(7)."""
    results = frame(
        **{
            "lora|none|a": [90, 92, 97],
            "lora|1|a": [70, 70, 70],
            "ffa-lora|none|a": [84, 85, 86],
            "ffa-lora|1|a": [80, 80, 80],
        }
    )
    verdict = smaller_drop(results, "accuracy", better=FFA, worse=LORA, **CONDITIONS)
    assert verdict.status == "reproduced"
    assert verdict.evidence["difference"] == pytest.approx(18)
    assert verdict.evidence["sd"] == pytest.approx(np.sqrt(7))
    assert verdict.evidence["lower"] == pytest.approx(18 - 4.30265 * np.sqrt(7 / 3), abs=1e-4)
    assert verdict.evidence["better_drop"] == pytest.approx(5)
    assert verdict.evidence["worse_drop"] == pytest.approx(23)
    assert (verdict.evidence["better_before"], verdict.evidence["worse_before"]) == (85, 93)
    swapped = smaller_drop(results, "accuracy", better=LORA, worse=FFA, **CONDITIONS)
    assert swapped.status == "not reproduced"
    assert "other side of 0" in swapped.reason


def test_a_higher_level_alone_is_no_smaller_drop():
    results = frame(
        **{
            f"{m}|{e}|a": np.array([60, 61, 62.5]) + 20 * (m == "ffa-lora") + 5 * (e == "none")
            for m in ("lora", "ffa-lora")
            for e in ("none", "1")
        }
    )
    assert smaller_drop(results, "accuracy", better=FFA, worse=LORA, **CONDITIONS).status == "not reproduced"


def test_a_drop_needs_all_four_corners():
    results = frame(**{"lora|none|a": [1, 2], "lora|1|a": [1, 2], "ffa-lora|none|a": [1, 2]})
    with pytest.raises(MissingCells, match="method=ffa-lora, eps=1"):
        smaller_drop(results, "accuracy", better=FFA, worse=LORA, **CONDITIONS)


# --- lower_spread -------------------------------------------------------------------------------------


def test_lower_spread_tells_noise_from_steadiness():
    rng = np.random.default_rng(4)
    noisy, steady = rng.normal(70, 10, 8), rng.normal(80, 1, 8)
    verdict = lower_spread(two(steady, noisy), "accuracy", better=FFA, worse=LORA)
    assert verdict.status == "reproduced"
    assert verdict.evidence["f"] == pytest.approx(np.var(noisy, ddof=1) / np.var(steady, ddof=1))
    assert verdict.evidence["p"] == pytest.approx(stats.f.sf(verdict.evidence["f"], 7, 7))
    other = lower_spread(two(noisy, steady), "accuracy", better=FFA, worse=LORA)
    assert other.status == "not reproduced"
    assert "other side of 1" in other.reason
    same = lower_spread(two(noisy, noisy[::-1] + 3), "accuracy", better=FFA, worse=LORA)
    assert "includes 1" in same.reason


def test_differences_between_cells_are_no_spread():
    results = frame(
        **{
            "ffa-lora|6|a": [10, 11, 12],
            "ffa-lora|6|b": [90, 91, 92],
            "lora|6|a": [50, 51, 52],
            "lora|6|b": [50, 51, 52],
        }
    )
    verdict = lower_spread(results, "accuracy", better=FFA, worse=LORA)
    assert verdict.evidence["ratio"] == pytest.approx(1)
    assert (verdict.evidence["df_better"], verdict.evidence["df_worse"]) == (4, 4)


def test_a_collapsed_method_is_not_called_steady():
    for ffa, lora in (([50.1] * 3, [60, 70, 80]), ([60, 70, 80], [50.1] * 3)):
        with pytest.raises(MissingCells, match="gives the same accuracy for every seed"):
            lower_spread(two(ffa, lora), "accuracy", better=FFA, worse=LORA)


# --- exact_ratio --------------------------------------------------------------------------------------


def test_exact_ratio():
    counts = two([786432, 786432], [1572864, 1572864]).rename(columns={"accuracy": "parameters"})
    sides = {"numerator": FFA, "denominator": LORA}
    half = exact_ratio(counts, "parameters", **sides, ratio=0.5)
    assert half.status == "reproduced"
    assert (half.evidence["lower"], half.evidence["upper"]) == (0.5, 0.5)
    counts.loc[0, "parameters"] += 1
    off = exact_ratio(counts, "parameters", **sides, ratio=0.5)
    assert off.status == "not reproduced"
    assert "claimed 0.5" in off.reason
    assert exact_ratio(counts, "parameters", **sides, ratio=0.5, tolerance=1e-5).status == "reproduced"


def test_exact_ratio_needs_one_seed_and_something_to_divide_by():
    sides = {"numerator": FFA, "denominator": LORA}
    assert exact_ratio(two([1.0], [3.0]), "accuracy", **sides, ratio=1 / 3).status == "reproduced"
    with pytest.raises(MissingCells, match="is 0"):
        exact_ratio(two([1.0], [0.0]), "accuracy", **sides, ratio=1)


# --- judging and writing ------------------------------------------------------------------------------


def claim(name, judge):
    return Claim(name, f"text of {name}", "Table 1", "SEEN", judge)


def test_judging_tells_untestable_from_broken():
    def gain(results):
        return mean_difference(results, "accuracy", better=FFA, worse=LORA)

    def absent(results):
        return mean_difference(results, "accuracy", better={"method": "flora"}, worse=LORA)

    results = two([83, 84.5, 85], [80, 81, 82])
    judged = judge_all([claim("gain", gain), claim("absent", absent)], results)
    assert [one.verdict.status for one in judged] == ["reproduced", "not testable"]
    assert judged[1].verdict.reason == "no result for method=flora"
    assert [one.claim.id for one in judged] == ["gain", "absent"]
    with pytest.raises(ZeroDivisionError):
        judge_all([claim("broken", lambda _: 1 / 0)], results)
    with pytest.raises(UnknownName):
        judge_all([claim("typo", lambda r: mean_difference(r, "loss", better=FFA, worse=LORA))], results)


def test_json_is_strict_and_whole():
    odd = {"ratio": np.inf, "p": float("nan"), "n_seeds": 3.0, "difference": np.float64(0.5)}
    text = to_json(judge_all([claim("ε", lambda _: Verdict("not reproduced", "α – β", odd))], pd.DataFrame()))

    def no_constant(name):
        raise AssertionError(f"{name} is not JSON")

    assert json.loads(text, parse_constant=no_constant) == [
        {
            "id": "ε",
            "text": "text of ε",
            "source": "Table 1",
            "foundation": "SEEN",
            "status": "not reproduced",
            "undecided": False,
            "reason": "α – β",
            "evidence": {"ratio": None, "p": None, "n_seeds": 3.0, "difference": 0.5},
            "look": 1,
            "seeds": [],
        }
    ]
    assert json.loads(to_json([])) == []


# --- what would decide --------------------------------------------------------------------------------


NEXT = 1 - 0.025 / 2  # seeds that are added are judged at the second look


def first(decided):
    """By trying every number of seeds, one after the other."""
    seeds = np.arange(2, 1001)
    found = seeds[decided(seeds)]
    return found[0] if found.size else None


@settings(deadline=None)
@given(
    st.lists(st.integers(-50, 50).map(lambda n: n / 10), min_size=3, max_size=6),
    st.integers(-7, 7).map(lambda n: n / 4),
)
def test_an_undecided_difference_says_how_many_seeds_would_decide_it(differences, margin):
    verdict = mean_difference(
        two(list(differences), [0.0] * len(differences)), "accuracy", better=FFA, worse=LORA, margin=margin
    )
    if not verdict.undecided:
        assert "seeds would" not in verdict.reason
        return
    mean, sd = np.mean(differences), np.std(differences, ddof=1)
    enough = first(lambda n: stats.t.ppf(NEXT, n - 1) * sd / n**0.5 < abs(mean - margin))
    said = f"{enough} seeds would decide it" if enough else "not even 1000 seeds would decide it"
    assert said in verdict.reason


def test_an_undecided_spread_and_an_undecided_likeness_say_it_too():
    rng = np.random.default_rng(1)
    lora, ffa = rng.normal(0, 1.5, 4), rng.normal(0, 1.0, 4)
    spread = lower_spread(two(ffa, lora), "accuracy", better=FFA, worse=LORA)
    assert spread.undecided
    f = np.var(lora, ddof=1) / np.var(ffa, ddof=1)
    enough = first(
        lambda n: (f > stats.f.ppf(NEXT, n - 1, n - 1)) | (f < stats.f.ppf(1 - NEXT, n - 1, n - 1))
    )
    assert f"{enough} seeds would decide it" in spread.reason
    alike = within_margin(two([1.0, 2.0, 4.0], [1.0, 1.0, 2.0]), "accuracy", one=FFA, other=LORA, margin=2.0)
    assert alike.undecided
    sd = np.std([0.0, 1.0, 2.0], ddof=1)
    enough = first(lambda n: stats.t.ppf(NEXT, n - 1) * sd / n**0.5 < 2.0 - 1.0)
    assert f"{enough} seeds would decide it" in alike.reason
