"""Looking again after seeds were added: what it costs, and that it cannot be forgotten."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fedlora_kit import paths
from fedlora_kit.errors import FedloraError
from fedlora_kit.study import look_log
from fedlora_kit.study.claims import Claim, judge_all, mean_difference, to_json
from fedlora_kit.study.sequential import at_look, confidence
from fedlora_kit.study.statistics import half_width, ratio_interval

LOOKS = (5, 10, 15, 20, 25)  # seeds that are there at each


def ever(decides: np.ndarray, looks: int = 5) -> float:
    """The share of experiments (rows) that some look (columns) decides."""
    return float(decides[:, :looks].any(axis=1).mean())


def statistics_of(values: np.ndarray) -> np.ndarray:
    """(experiments, looks): mean over its standard deviation, of the seeds that are there at each look."""
    return np.stack([values[:, :n].mean(1) / values[:, :n].std(1, ddof=1) for n in LOOKS], axis=1)


def bounds(corrected: bool) -> np.ndarray:
    widths = []
    for look, n in enumerate(LOOKS, 1):
        with at_look(look if corrected else 1):
            widths.append(half_width(1.0, n))
    return np.array(widths)


@pytest.mark.parametrize("side", [1, -1])
def test_nobody_can_add_seeds_until_a_claim_passes(side):
    """No difference, five looks: either verdict in at most 5 % of 20,000 experiments; uncorrected in more."""
    found = side * statistics_of(np.random.default_rng(7).normal(size=(20_000, 25)))
    assert (
        ever(found > bounds(corrected=False)) > 0.06
    )  # 7.1 % (Armitage, McPherson and Rowe 1969: half of 14.2)
    assert 0.03 < ever(found > bounds(corrected=True)) < 0.05
    assert ever(found > bounds(corrected=True), looks=1) == pytest.approx(
        0.025, abs=0.004
    )  # as without looks


def test_a_spread_cannot_be_made_to_pass_either():
    rng = np.random.default_rng(8)
    one, other = rng.normal(size=(2, 20_000, 25))
    above = {True: [], False: []}
    for look, n in enumerate(LOOKS, 1):
        f = one[:, :n].var(1, ddof=1) / other[:, :n].var(1, ddof=1)
        for corrected, columns in above.items():
            with at_look(look if corrected else 1):
                lower, _ = ratio_interval(1.0, n - 1, n - 1)
            columns.append(f**0.5 * lower > 1)
    assert ever(np.array(above[False]).T) > 0.06
    assert ever(np.array(above[True]).T) < 0.05


def test_all_looks_together_spend_five_percent_on_a_side():
    spent = [(1 - confidence(further)) / 2 for further in range(60)]
    assert spent[0] == pytest.approx(0.025)
    assert sum(spent) <= 0.05
    with at_look(2):
        assert confidence() == confidence(0) == 0.975
    assert confidence() == 0.95


# --- which look it is ---------------------------------------------------------------------------------

FFA, LORA = {"method": "ffa-lora"}, {"method": "lora"}
GAIN = Claim("gain", "t", "s", "SEEN", lambda r: mean_difference(r, "accuracy", better=FFA, worse=LORA))


def results(seeds, setting="", methods=("ffa-lora", "lora"), keys=True):
    rows = [
        {
            "method": m,
            "seed": s,
            "key": f"{m}{s}{setting}",
            "accuracy": 70 + s % 3 + (m == "ffa-lora") * (1 + s % 2),
        }
        for m in methods
        for s in seeds
    ]
    frame = pd.DataFrame(rows)
    return frame if keys else frame.drop(columns="key").assign(measured=np.random.default_rng(0).normal())


def look_at(frame, item="ffa-lora/table1", profile="smoke"):
    look_log.judge_for(item, profile)
    (record,) = json.loads(to_json(judge_all([GAIN], frame)))
    return record


@pytest.mark.parametrize("keys", [True, False])
def test_other_seeds_are_a_further_look_and_the_same_seeds_are_not(keys):
    for seeds, look in ((3, 1), (3, 1), (5, 2), (4, 3), (3, 1), (5, 2), (9, 4)):
        record = look_at(results(range(seeds), keys=keys))
        assert (record["look"], record["seeds"]) == (look, list(range(seeds)))
        level = 100 - 5 / 2 ** (look - 1)
        assert (f"look {look}, " in record["reason"]) == (look > 1)
        assert f"{level:g} % interval" in record["reason"]
        half = (record["evidence"]["upper"] - record["evidence"]["lower"]) / 2
        t = stats.t.ppf((100 + level) / 200, seeds - 1)
        assert half == pytest.approx(t * record["evidence"]["sd"] / seeds**0.5)


def test_what_would_decide_is_said_of_the_next_look():
    record = look_at(results(range(3)).assign(accuracy=[1.0, 2.0, 4.0, 1.0, 1.0, 2.0]))
    assert record["undecided"]
    n = next(n for n in range(2, 99) if stats.t.ppf(0.9875, n - 1) / n**0.5 < 1.0)
    assert f"{n} seeds would decide it (look 2, 97.5 % interval)" in record["reason"]


def test_another_setting_item_or_profile_is_another_question():
    assert look_at(results(range(3)))["look"] == 1
    assert look_at(results(range(5), setting="-rounds9"))["look"] == 1
    assert look_at(results(range(5)), item="ffa-lora/table2")["look"] == 1
    assert look_at(results(range(5)), profile="paper")["look"] == 1
    assert look_at(results(range(5), methods=("lora", "ffa-lora", "flora")))["look"] == 2  # shares runs


def test_one_seed_or_none_or_nobody_s_results_are_no_look(monkeypatch):
    assert look_at(results([0]))["look"] == 1
    assert look_at(results(range(3)))["look"] == 1
    assert look_log.take(results(range(5)).drop(columns="seed")) == look_log.Look(1, [])
    monkeypatch.setattr(look_log, "_judged_for", None)
    assert [one.look.number for one in judge_all([GAIN], results(range(5)))] == [1]
    assert look_at(results(range(6)))["look"] == 2


def test_the_log_lies_with_the_runs_and_a_damaged_one_is_no_fresh_start():
    look_at(results(range(3)))
    (log,) = Path(paths.runs_dir()).rglob("*.json")
    assert log.relative_to(paths.runs_dir()).as_posix() == ".looks/smoke/ffa-lora/table1.json"
    log.write_text("[{")
    with pytest.raises(FedloraError, match=r"the log of looks .* is damaged"):
        look_at(results(range(5)))
