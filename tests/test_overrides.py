"""Values that a notebook's parameters give: what is refused, and with which remedy."""

from __future__ import annotations

import pytest

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.papers.fed_hello import grid, strategies
from fedlora_kit.papers.ffa_lora import init_of_a
from fedlora_kit.papers.ffa_lora.grid import rates_of
from fedlora_kit.study.overrides import chosen

KNOWN = ("triangle", "uniform")


def test_no_names_stand_for_all_and_given_ones_keep_their_order() -> None:
    assert chosen("pattern", "patterns", None, KNOWN) == list(KNOWN)
    assert chosen("pattern", "patterns", ["uniform", "triangle"], KNOWN) == ["uniform", "triangle"]


@pytest.mark.parametrize("names", [[], ["uniform", "uniform"]])
def test_an_empty_list_and_a_name_twice_are_refused(names: list[str]) -> None:
    with pytest.raises(BadValue, match="none of them twice"):
        chosen("pattern", "patterns", names, KNOWN)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="square"):
        chosen("pattern", "patterns", ["square"], KNOWN)


def test_one_text_in_place_of_a_list_is_named_not_taken_letter_by_letter() -> None:
    with pytest.raises(BadValue, match=r"patterns=\['uniform'\]"):
        strategies.chosen_patterns("uniform")
    with pytest.raises(BadValue, match=r"splits=\['iid'\]"):
        grid.setting("fed-hello/table2", grid.PROFILES, "smoke", splits="iid")


def test_a_grid_of_one_method_needs_no_rates_of_another() -> None:
    found = init_of_a.EXPERIMENT.setting("smoke", rates=[0.1])
    assert rates_of(found.rates, "ffa-lora") == (0.1,)


def test_a_grid_needs_examples_to_be_chosen_on() -> None:
    assert init_of_a.EXPERIMENT.setting("smoke", holdout=20).holdout == 20
    with pytest.raises(BadValue, match="holdout=0"):
        init_of_a.EXPERIMENT.setting("smoke", holdout=0)
