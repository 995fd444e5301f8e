"""The lessons: their form, and what their modules measure."""

import doctest
import math
import re

import jupytext
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlora_kit import paths
from fedlora_kit.conformance.methods import CHECKS
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.methods import METHODS, ClientUpdate, FedIT, method, register
from fedlora_kit.methods.base import Context
from fedlora_kit.papers.fed_hello import grid as fed_hello_grid
from fedlora_kit.papers.fed_hello import instructions
from fedlora_kit.papers.fedlora_optimizer import tables
from fedlora_kit.papers.ffa_lora import table1
from fedlora_kit.papers.items import ITEMS
from fedlora_kit.papers.lessons import (
    directions_and_magnitudes,
    dp_sgd,
    ffa_lora,
    layer_allocation,
    lora_and_fedavg,
    partitions,
    small,
    your_own_method,
)
from fedlora_kit.randomness import Streams
from fedlora_kit.study import known_methods

LESSONS = [item.id for item in ITEMS if item.id.startswith("lessons/") and item.notebook]


@pytest.fixture(autouse=True)
def methods_as_before():
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


def test_examples_in_the_docstrings():
    for module in (partitions, dp_sgd, known_methods):
        assert doctest.testmod(module).failed == 0


# --- their form ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("item", LESSONS)
def test_a_lesson_ends_with_exercises_whose_solutions_are_hidden(item):
    cells = jupytext.read(paths.notebooks_dir() / f"{item}.py").cells
    exercises = [
        at
        for at, cell in enumerate(cells)
        if cell.cell_type == "markdown" and re.search(r"^\*\*\d\. ", cell.source, re.M)
    ]
    solutions = [at for at, cell in enumerate(cells) if "solution" in cell.metadata.get("tags", [])]
    assert 2 <= len(exercises) <= 3
    assert solutions == [at + 1 for at in exercises]  # each below its exercise, and nothing else
    for at, cell in enumerate(cells):
        hidden = cell.metadata.get("jupyter", {})
        assert hidden == ({"source_hidden": True, "outputs_hidden": True} if at in solutions else {})
        if at in solutions:
            assert cell.cell_type == "code"
            assert cell.source.rstrip().splitlines()[-1].startswith("# ")  # the answer, in words
    first = next(cell.source for cell in cells if cell.cell_type == "markdown")
    assert "Ten minutes of reading" in first


@pytest.mark.parametrize("item", LESSONS)
def test_prose_stands_between_short_cells(item):
    cells = [c for c in jupytext.read(paths.notebooks_dir() / f"{item}.py").cells if c.source.strip()]
    code = [c for c in cells if c.cell_type == "code"]
    assert max(len(c.source.splitlines()) for c in code) <= 40
    assert len(cells) - len(code) >= len(code) / 3


@pytest.mark.parametrize("item", LESSONS)
def test_a_solution_registers_no_name_that_the_reader_may_have_taken(item):
    """A name is registered once: a solution would fail beside a reader's own class of the same name."""
    cells = jupytext.read(paths.notebooks_dir() / f"{item}.py").cells
    for cell in cells:
        if "solution" in cell.metadata.get("tags", []):
            names = re.findall(r"^    name(?:: .*)? = \"(.*?)\"", cell.source, re.M)
            assert all(name.startswith("solution") for name in names)
            assert len(names) == cell.source.count("@register")


# --- partitions ------------------------------------------------------------------------------------------

COUNTS = st.lists(st.lists(st.integers(0, 30), min_size=4, max_size=4), min_size=1, max_size=6).filter(
    lambda rows: all(map(sum, rows))
)


@settings(deadline=None)
@given(COUNTS)
def test_the_label_distance_is_what_its_definition_says(counts):
    found = partitions.label_distance(counts)
    total = sum(map(sum, counts))
    for row, distance in zip(counts, found, strict=True):
        gaps = [abs(n / sum(row) - sum(other[c] for other in counts) / total) for c, n in enumerate(row)]
        assert distance == pytest.approx(math.fsum(gaps) / 2)
    assert partitions.mean_distance(counts) <= found.max() + 1e-12
    assert partitions.label_distance([counts[0]] * 3) == pytest.approx(np.zeros(3))


def test_the_partitioners_are_told_in_plain_words():
    said = partitions.what_they_do()
    assert {"iid", "dirichlet", "pathological"} <= set(said["partitioner"])
    assert said["what it does"].str.fullmatch(r"[^`]+\.").all()


@pytest.mark.parametrize("bad", [[1, 2], [[1, 2], [0, 0]], [[1, -1]], np.zeros((0, 3))])
def test_what_has_no_label_distance(bad):
    with pytest.raises(BadValue, match="label shares"):
        partitions.label_distance(bad)


def test_the_dial_turns():
    labels = np.arange(400) % 10
    frame = partitions.dial(labels, [0.1, 100.0], clients=5, seeds=3)
    means = frame.groupby("alpha")["distance"].mean()
    assert means[0.1] > 0.5 > 0.1 > means[100.0]
    assert set(partitions.what_they_do()["partitioner"]) >= {"iid", "dirichlet", "pathological"}


# --- their runs ------------------------------------------------------------------------------------------

RUNS = [lora_and_fedavg, partitions, ffa_lora, dp_sgd, layer_allocation, directions_and_magnitudes]


@pytest.mark.parametrize("module", [*RUNS, your_own_method], ids=lambda m: m.__name__.rpartition(".")[2])
def test_runs_differ_in_what_their_coordinates_say(module):
    one, two = module.cells(1), module.cells(2)
    assert len(two) == 2 * len(one)
    places = {(*c.coords.items(), c.seed) for c in two}
    assert len(places) == len(two) == len({c.spec.canonical() for c in two})
    with pytest.raises(BadValue, match="seeds=0"):
        module.cells(0)


def test_lessons_share_the_runs_they_can():
    first = {c.spec.canonical() for c in lora_and_fedavg.cells(2)}
    shared = {c.spec.canonical() for c in ffa_lora.cells(2) if c.coords["method"] == "lora"}
    assert shared <= first


def test_the_small_setting_refuses_what_a_run_refuses():
    assert small.digits_run("ffa-lora").local.lr == small.RATES["ffa-lora"]
    assert small.digits_run("ffa-lora", lr=0.5).local.lr == 0.5
    with pytest.raises(UnknownName, match="fedavg"):
        small.digits_run("fedavg")


# --- noise and privacy -----------------------------------------------------------------------------------


def test_the_noise_terms_are_those_of_the_product():
    draw = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 5, generator=draw), torch.randn(4, 2, generator=draw)
    one, two = ffa_lora.noise_terms(a, b, [0.1, 0.2]).drop(columns="sigma").to_numpy()
    assert two / one == pytest.approx([2, 2, 4])
    assert ffa_lora.noise_terms(a, 0 * b, [0.1])["B ξ_A"].tolist() == [0]


def test_clipping_and_noise_in_numbers():
    rows = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    found = dp_sgd.clipping(rows, [10.0, 2.0, 0.5])
    assert found["cut"].tolist() == [0, 0.5, 1]
    assert found["cosine"].tolist() == pytest.approx([1, 7 / 50**0.5, 4 / 20**0.5], abs=1e-5)
    quiet = dp_sgd.agreement(rows, [1, 2], sigma=0.0, clip=1.0)
    assert quiet["signal"].tolist() == pytest.approx([3, 10**0.5])
    assert quiet["cosine"].tolist() == pytest.approx([1, 1])
    curve = dp_sgd.epsilon_curve([1.0, 2.0], [1, 4], steps=5, rate=1.0)
    spent = curve.pivot(index="sigma", columns="rounds", values="epsilon")
    assert (spent[4] > spent[1]).all()
    assert (spent.loc["1"] > spent.loc["2"]).all()


# --- layers, directions ----------------------------------------------------------------------------------

LAYERS = {
    f"vit.layers.{i}.q_proj.lora_{f}.weight": s for i in range(4) for f, s in (("A", (1, 3)), ("B", (3, 1)))
}


def test_averaging_untrained_layers_in_shrinks_them_by_the_share_of_their_trainers():
    start = {n: torch.zeros(s) for n, s in LAYERS.items()}
    rule = method("gd-hla", resources={"groups": [1, 1], "layers": [0.5, 1.0]}, pattern="triangle")
    rule.bind(Context(2, 4, 1, Streams(0)))
    whole = [ClientUpdate(k, n, {m: torch.ones(s) for m, s in LAYERS.items()}) for k, n in enumerate((3, 1))]
    sent = [layer_allocation.what_is_sent(rule, u, 0) for u in whole]
    held = layer_allocation.allocated(rule, [0, 1], 0, list(LAYERS))
    assert held.tolist() == [[True, True, False, False], [True] * 4]
    padded = [ClientUpdate(u.client, u.num_examples, {**start, **u.tensors}) for u in sent]
    right = layer_allocation.moved(start, rule.aggregate(start, sent))
    wrong = layer_allocation.moved(start, FedIT().aggregate(start, padded))
    assert (wrong / right).tolist() == pytest.approx([1, 1, 0.25, 0.25])


def test_lengths_of_averages():
    found = directions_and_magnitudes.lengths([0, 60, 120]).pivot(
        index="angle", columns="method", values="length"
    )
    assert found["lora"].tolist() == pytest.approx([1, 3**0.5 / 2, 0.5], abs=1e-6)
    assert found["fedlora-optimizer"].tolist() == pytest.approx([1, 1, 1], abs=1e-6)


# --- a method of one's own -------------------------------------------------------------------------------


def test_the_table_of_checks_says_what_does_not_hold():
    class First(FedIT):
        name = "first"

        def aggregate(self, global_state, updates):
            return super().aggregate(global_state, updates[:1])

    register(First)
    found = your_own_method.conformance("first", CHECKS[:3])
    assert found["holds"].tolist() == [False, True, True]
    assert "order" in found["says"].iloc[0]
    assert found["says"].tolist()[1:] == ["", ""]
    assert your_own_method.conformance("ffa-lora", CHECKS[:3])["holds"].all()


def test_a_registered_method_stands_in_every_table():
    class Mine(FedIT):
        name = "mine"

    with pytest.raises(UnknownName, match="mine"):
        table1.EXPERIMENT.setting("smoke", methods=["lora", "mine"])
    register(Mine)
    ffa = table1.EXPERIMENT.setting("smoke", methods=["lora", "mine"], tasks=["polarity"])
    grid = [c for c in table1.EXPERIMENT.grid(ffa) if c.coords["method"] == "mine"]
    assert {c.spec.local.lr for c in grid} == set(ffa.rates["lora"])
    hello = fed_hello_grid.setting("t", fed_hello_grid.PROFILES, "smoke", methods=["mine", "fed-hello"])
    texts = instructions.setting("dolly", "smoke", methods=["mine"])
    flo = tables.setting("fedlora-optimizer/global", "smoke", methods=["mine"])
    assert tables.has_global("mine")
    for cells in (fed_hello_grid.cells(hello), instructions.cells(texts), tables.cells(flo)):
        made = [c for c in cells if c.coords["method"] == "mine"]
        assert made
        assert all(c.spec.method.name == "mine" and c.spec.method.settings == {} for c in made)
    with pytest.raises(UnknownName, match="method 'absent'"):
        known_methods.shares_out("absent")


def test_a_layer_method_of_ones_own_gets_the_tables_resources():
    class Lower(type(method("gd-hla"))):
        name = "lower"

    register(Lower)
    hello = fed_hello_grid.setting("t", fed_hello_grid.PROFILES, "smoke", methods=["lower"], splits=["iid"])
    (resources,) = {str(c.spec.method.settings["resources"]) for c in fed_hello_grid.cells(hello)}
    assert "0.75" in resources
