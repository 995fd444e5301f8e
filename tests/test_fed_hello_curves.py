"""Fed-HeLLo's curves as data: the official logs, rounds to a level, claims, figure."""

import math

import pandas as pd
import pytest

from fedlora_kit.papers.fed_hello import curves, grid, table2
from fedlora_kit.study.claims import judge_all
from fedlora_kit.study.grid import Cell


def some(method="lora", split="iid", values=(10.0, 55.0, 45.0, 72.0), seed=0):
    return [
        {
            "split": split,
            "method": method,
            "dataset": "digits",
            "seed": seed,
            "key": "k",
            "round": i + 1,
            "accuracy": value,
            "megabytes": 2.0 * (i + 1),
        }
        for i, value in enumerate(values)
    ]


class Entry:
    history = (
        {"round": 0, "bytes_up": 1_000_000},
        {"round": 1, "bytes_up": 500_000, "eval": {"test": {"accuracy": 0.25}}},
    )


class Run:
    def __init__(self, entry):
        self.entry, self.key = entry, "k"


def test_our_curves_hold_evaluated_rounds_and_all_bytes_up_to_them():
    one = Cell({"split": "iid", "method": "lora", "dataset": "cifar100"}, {}, 3, None)
    found = curves.ours([(one, Run(Entry())), (one, Run(None))], "test")
    (row,) = found.to_dict("records")
    assert (row["round"], row["accuracy"], row["megabytes"], row["seed"]) == (2, 25.0, 1.5, 3)


def test_the_first_round_at_a_level():
    found = curves.reached(pd.DataFrame(some()), (50, 70, 80)).set_index("level")
    assert found["rounds"].tolist()[:2] == [2, 4]
    assert found["megabytes"].tolist()[:2] == [4.0, 8.0]
    assert math.isnan(found.loc["80", "rounds"])


def test_the_table_says_how_many_seeds_reach_a_level():
    both = pd.DataFrame([*some(), *some(values=(10.0, 60.0, 60.0, 60.0), seed=1)])
    table = curves.reached_table(curves.reached(both), "rounds")
    assert table.iloc[0].tolist() == ["iid", "lora", "2", "4 (1 of 2)", "–"]


def test_the_official_logs_are_those_of_the_table():
    theirs = curves.official()
    assert len(theirs) == 15 * 500
    best = theirs.groupby(["split", "method"])["accuracy"].max()
    assert best["pat_10", "fed-hello"] == pytest.approx(79.76, abs=0.05)  # the logs round to 0.1
    levels = curves.reached(theirs).set_index(["split", "method", "level"])["rounds"]
    assert levels["iid", "fed-hello", "80"] == 99  # round 98, counted from 0
    assert levels["iid", "fedra", "80"] == 121
    assert math.isnan(levels["pat_10", "fed-hello", "80"])


def test_half_way_and_its_claims_hold_of_the_official_logs():
    theirs = curves.official()
    half = curves.at_half(theirs, 500)
    assert (half["round"] == 250).all()
    assert len(half) == 15
    copies = [half.assign(seed=s, dataset="cifar100", accuracy=half["accuracy"] + s * 1e-6) for s in range(3)]
    verdicts = judge_all(curves.early_claims(), pd.concat(copies, ignore_index=True))
    assert {j.verdict.status for j in verdicts} == {"reproduced"}
    late_start = pd.DataFrame(some()).query("round >= 3")
    assert curves.at_half(late_start, 4)["round"].tolist() == [3]


def test_the_curves_are_of_the_runs_of_the_table():
    assert curves.PROFILES is table2.PROFILES is grid.PROFILES


def test_the_figure_shows_both_rows_and_every_method():
    from matplotlib import pyplot as plt

    rows = [some(m, s, seed=k) for m in ("lora", "fed-hello") for s in ("iid", "pat_10") for k in (0, 1)]
    mine = pd.DataFrame([row for run in rows for row in run])
    figure = curves.figure(curves.official(), mine, "ours")
    assert len(figure.axes) == 4
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["Fed-HeLLo", "FedRA", "HETLoRA", "Exclusive", "FlexLoRA", "LoRA"]
    plt.close(figure)
