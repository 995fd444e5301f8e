"""The papers' items, and the numbers reported for them."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedlora_kit.papers.items
import fedlora_kit.study.reported
from fedlora_kit import paths
from fedlora_kit.errors import BadValue, FedloraError, UnknownName
from fedlora_kit.papers.items import ITEMS, PAPERS, find
from fedlora_kit.papers.published import published
from fedlora_kit.study.reported import COLUMNS, cell, coords, read

WORDS = st.text(st.characters(exclude_characters="|=", exclude_categories=["Cs", "Cc"]), min_size=1).filter(
    str.strip
)


def test_examples_in_the_docstrings():
    for module in (fedlora_kit.papers.items, fedlora_kit.study.reported):
        assert doctest.testmod(module).failed == 0


# --- items --------------------------------------------------------------------------------------------


def test_items_are_well_formed():
    ids = [item.id for item in ITEMS]
    assert len(set(ids)) == len(ids)
    assert len({item.title for item in ITEMS}) == len(ids)
    papers = {paper.id for paper in PAPERS}
    for item in ITEMS:
        assert re.fullmatch(r"([a-z-]+/)?[a-z0-9_]+", item.id)
        assert item.paper in papers or (item.paper == "" and item.kind == "lesson")
        assert item.kind in ("table", "figure", "lesson")
        assert item.title
        assert re.search(r"SEEN|SECOND|REPLAYED|DERIVED|UNKNOWN|the kit's own", item.foundation)


def test_the_items_are_those_of_the_three_papers():
    names = {paper.id: {item.name for item in ITEMS if item.paper == paper.id} for paper in PAPERS}
    assert names["ffa-lora"] == {
        "figure1", "table1", "table2", "table3", "table4", "table5",
        "alpha", "init_of_a", "discordance1", "gsm8k", "food101",
    }  # fmt: skip
    assert names["fed-hello"] == {
        "table2", "table2_roc631", "domainnet", "ledgar", "natural_instructions", "dolly", "patterns",
        "strategies", "proxy_data", "fim_schedule", "curves", "resources", "released_vs_described",
    }  # fmt: skip
    assert names["fedlora-optimizer"] == {
        "preliminary",
        "method",
        "global",
        "local",
        "ablation",
        "open_choices",
    }


def test_a_notebook_counts_once_it_is_there(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))
    (item,) = find("ffa-lora/table1")
    assert item.notebook is None
    file = paths.notebooks_dir() / "ffa-lora" / "table1.ipynb"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    assert item.notebook == "ffa-lora/table1.ipynb"


def test_finding():
    assert [item.id for item in find(["ffa-lora/table5", "start_here"])] == ["ffa-lora/table5", "start_here"]
    assert find("ffa-lora") == [item for item in ITEMS if item.paper == "ffa-lora"]
    assert find(["ffa-lora/table5", "ffa-lora"])[0].id == "ffa-lora/table5"
    assert len(find(["ffa-lora/table5", "ffa-lora"])) == len(find("ffa-lora")), "each once"
    assert find([]) == []


@pytest.mark.parametrize(
    ("name", "near"),
    [("ffa-lora/tabel1", "ffa-lora/table1"), ("fed-helo", "fed-hello"), ("starthere", "start_here")],
)
def test_a_wrong_name_gets_candidates(name, near):
    with pytest.raises(UnknownName, match=f"did you mean '{near}'"):
        find(["start_here", name])


@pytest.mark.parametrize("name", ["", "/", "table1", "ffa-lora/"])
def test_half_a_name_is_no_name(name):
    with pytest.raises(UnknownName):
        find(name)


def test_the_list_of_items_needs_no_heavy_package():
    heavy = "{'torch', 'pandas', 'numpy', 'scipy'}"
    code = f"import sys, fedlora_kit.papers.items; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- cells --------------------------------------------------------------------------------------------


@given(st.dictionaries(WORDS.filter(lambda key: key != "cell"), WORDS, min_size=1, max_size=4))
def test_cells_and_coordinates_are_inverse(place):
    assert coords(cell(**place)) == place
    assert cell(**dict(reversed(place.items()))) == cell(**place), "the order does not matter"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (6, "6"),
        (6.0, "6"),
        (0.5, "0.5"),
        (np.float64(1e-5), "1e-05"),
        (None, "none"),
        (np.nan, "none"),
        (True, "true"),
    ],
)
def test_values_as_text(value, text):
    assert cell(eps=value) == f"eps={text}"


@pytest.mark.parametrize("place", [{}, {"a": ""}, {"a": "x|y"}, {"a": "x=y"}, {"a|b": "x"}, {"cell": "a=b"}])
def test_what_cannot_name_a_cell(place):
    with pytest.raises(BadValue):
        cell(**place)


@pytest.mark.parametrize("name", ["a=1|a=2", "a=1|b", "a=1=2", "=1", "a=", "", "a=1|"])
def test_what_is_no_cell(name):
    with pytest.raises(BadValue):
        coords(name)


# --- reported numbers ---------------------------------------------------------------------------------


def test_the_reported_numbers_are_sound():
    frame = read()
    assert tuple(frame.columns) == COLUMNS
    assert len(frame) > 70
    assert frame["value"].dtype == frame["std"].dtype == np.float64
    assert np.isfinite(frame["value"]).all()
    assert [cell(**coords(name)) for name in frame["cell"]] == frame["cell"].tolist(), "canonical"
    assert "method=lora|rank=8|task=mnli-matched" in set(frame["cell"])


def test_published_numbers_of_an_item():
    frame = published("ffa-lora", "table1").set_index(["cell", "metric"])
    row = frame.loc[("eps=6|method=ffa-lora|task=mnli-matched", "accuracy %")]
    assert (row["value"], row["std"], row["label"]) == (78.81, 0.8, "SEEN")
    assert len(published("ffa-lora", "food101")) == 0, "no number of it is known"
    assert tuple(published("ffa-lora", "food101").columns) == COLUMNS


def test_every_reported_number_belongs_to_an_item():
    assert set(read()["paper"] + "/" + read()["item"]) <= {item.id for item in ITEMS}


HEAD = ",".join(COLUMNS)
GOOD = "ffa-lora,table1,eps=6|method=lora,accuracy %,39.46,14.3,SEEN,a review"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (GOOD, "stands there twice"),
        ("ffa-lora,,eps=6,accuracy %,1,,SEEN,x", "paper or item is empty"),
        ("ffa-lora,table1,method=lora|eps=6,accuracy %,1,,SEEN,x", "stands there twice"),
        ("ffa-lora,table1,eps=6|eps=3,accuracy %,1,,SEEN,x", "gives a coordinate twice"),
        ("ffa-lora,table1,eps=3,accuracy %,,,SEEN,x", "value ''"),
        ("ffa-lora,table1,eps=3,accuracy %,nan,,SEEN,x", "value 'nan'"),
        ("ffa-lora,table1,eps=3,accuracy %,1,-2,SEEN,x", "std '-2'"),
        ("ffa-lora,table1,eps=3,accuracy %,1,x,SEEN,x", "std 'x'"),
        ("ffa-lora,table1,eps=3,accuracy %,1,,GUESSED,x", "label 'GUESSED'"),
        ("ffa-lora,table1,eps=3,accuracy %,1,,UNKNOWN,x", "label 'UNKNOWN'"),
        ("ffa-lora,table1,eps=3,accuracy %,1,,SEEN,", "source is empty"),
    ],
)
def test_unsound_lines_are_named(tmp_path, line, message):
    file = tmp_path / "reported.csv"
    file.write_text(f"{HEAD}\n{GOOD}\n{line}\n")
    with pytest.raises(BadValue, match="line 3: .*" + re.escape(message)):
        read(file)


def test_unsound_files(tmp_path):
    with pytest.raises(FedloraError, match="missing"):
        read(tmp_path / "absent.csv")
    file = tmp_path / "reported.csv"
    file.write_text("paper,item\n")
    with pytest.raises(BadValue, match="has the columns paper, item"):
        read(file)
