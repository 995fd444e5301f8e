"""Published beside reproduced: cells of either side, and numbers by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.papers.published import published
from fedlora_kit.reporting.comparison import COLUMNS, INTERVAL, compare
from fedlora_kit.study.reported import cell

BY = ["eps", "method", "task"]


def results(*rows):
    return pd.DataFrame(rows, columns=["eps", "method", "task", "seed", "accuracy"])


def reported(*rows):
    table = pd.DataFrame(rows, columns=["cell", "metric", "value", "std"])
    return table.assign(paper="p", item="i", label="SEEN", source="a review")


PUBLISHED = reported(
    ("eps=6|method=lora|task=mnli-m", "accuracy %", 39.46, 14.3),
    ("eps=6|method=ffa-lora|task=mnli-m", "accuracy %", 78.81, np.nan),
    ("eps=6|method=lora|task=mnli-m", "loss", 1.0, np.nan),
)


def test_by_hand():
    ours = results(
        ("6", "lora", "mnli-m", 0, 40.0),
        ("6", "lora", "mnli-m", 1, 44.0),
        ("none", "lora", "sst2", 0, 90.0),
    )
    table = compare(ours, PUBLISHED, BY, "accuracy %", "accuracy")
    assert tuple(table.columns) == (*COLUMNS, *INTERVAL)
    assert table["cell"].tolist() == [
        "eps=6|method=lora|task=mnli-m",
        "eps=6|method=ffa-lora|task=mnli-m",
        "eps=none|method=lora|task=sst2",
    ]
    both, theirs, mine = (row for _, row in table.iterrows())
    assert (both["published"], both["published_std"], both["label"], both["source"]) == (
        39.46,
        14.3,
        "SEEN",
        "a review",
    )
    assert (both["reproduced_mean"], both["n_seeds"]) == (42.0, 2)
    assert both["reproduced_std"] == pytest.approx(np.sqrt(8))
    assert both["difference"] == pytest.approx(2.54)
    half = 12.7062047 * 2  # t(0.975, 1) · sd / √2
    assert both["difference_lower"] == pytest.approx(2.54 - half)
    assert both["difference_upper"] == pytest.approx(2.54 + half)
    assert theirs[list(INTERVAL)].isna().all()
    assert mine[list(INTERVAL)].isna().all()
    assert theirs["n_seeds"] == 0
    assert theirs[["published_std", "reproduced_mean", "reproduced_std", "difference"]].isna().all()
    assert (mine["reproduced_mean"], mine["n_seeds"], mine["label"]) == (90.0, 1, "")
    assert mine[["published", "published_std", "reproduced_std", "difference"]].isna().all()
    assert table["comparable"].all()


def test_numbers_of_another_size_are_marked():
    table = compare(results(), PUBLISHED, BY, "accuracy %", "accuracy", comparable=False)
    assert len(table) == 2
    assert not table["comparable"].any()


def test_a_run_without_a_finite_value_is_no_seed():
    ours = results(
        ("6", "lora", "mnli-m", 0, np.nan), ("6", "lora", "mnli-m", 1, 44.0), ("6", "x", "y", 0, np.inf)
    )
    table = compare(ours, PUBLISHED, BY, "accuracy %", "accuracy").set_index("cell")
    assert table.loc["eps=6|method=lora|task=mnli-m", ["reproduced_mean", "n_seeds"]].tolist() == [44.0, 1]
    assert table.loc["eps=6|method=x|task=y", "n_seeds"] == 0


def test_whole_numbers_of_any_type_meet_the_published_cell():
    for eps in (6, 6.0, np.int64(6), "6"):
        ours = results((eps, "lora", "mnli-m", 0, 40.0))
        assert compare(ours, PUBLISHED, BY, "accuracy %", "accuracy")["n_seeds"].tolist() == [1, 0]


def test_the_real_table_and_no_results_at_all():
    theirs = published("ffa-lora", "table1")
    table = compare(pd.DataFrame(), theirs, BY, "accuracy %", "accuracy")
    assert table["published"].tolist() == theirs.loc[theirs["metric"] == "accuracy %", "value"].tolist()
    assert len(table) == len(theirs) - 1, "the noise multiplier is another metric"
    nothing = compare(pd.DataFrame(), theirs, BY, "no such metric", "accuracy")
    assert (tuple(nothing.columns), len(nothing)) == ((*COLUMNS, *INTERVAL), 0)


def test_a_phrase_as_a_cell():
    theirs = published("fedlora-optimizer", "global")
    ours = pd.DataFrame({"cell": ["gain over baseline"] * 2, "seed": [0, 1], "gain": [0.2, 0.4]})
    table = compare(ours, theirs, ["cell"], "%", "gain")
    assert table["difference"].tolist() == [pytest.approx(0.3 - 0.39)]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8))
def test_mean_and_spread_against_numpy(values):
    ours = results(*((6, "lora", "mnli-m", seed, value) for seed, value in enumerate(values)))
    row = compare(ours, PUBLISHED, BY, "accuracy %", "accuracy").iloc[0]
    assert row["reproduced_mean"] == pytest.approx(np.mean(values))
    if len(values) > 1:
        assert row["reproduced_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    else:
        assert np.isnan(row["reproduced_std"])


def test_what_cannot_be_compared():
    ours = results((6, "lora", "mnli-m", 0, 40.0))
    with pytest.raises(UnknownName, match="'accuracies'"):
        compare(ours, PUBLISHED, BY, "accuracy %", "accuracies")
    with pytest.raises(UnknownName, match="'rank'"):
        compare(ours, PUBLISHED, [*BY, "rank"], "accuracy %", "accuracy")
    with pytest.raises(BadValue, match="holds seed 0 twice"):
        compare(pd.concat([ours, ours]), PUBLISHED, BY, "accuracy %", "accuracy")
    with pytest.raises(BadValue, match="published twice"):
        compare(ours, pd.concat([PUBLISHED, PUBLISHED]), BY, "accuracy %", "accuracy")
    with pytest.raises(BadValue, match="names no column"):
        compare(ours, PUBLISHED, [], "accuracy %", "accuracy")


def test_cells_are_named_as_the_papers_room_names_them():
    ours = results((6, "lora", "sst2", 0, 40.0))
    name = compare(ours, PUBLISHED.iloc[:0], BY, "accuracy %", "accuracy").loc[0, "cell"]
    assert name == cell(eps=6, method="lora", task="sst2")
