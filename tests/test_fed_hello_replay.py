"""The replay of Fed-HeLLo's released code, proved against the official logs that ship with the kit."""

from __future__ import annotations

import doctest
import json

import pytest
from typer.testing import CliRunner

from fedlora_kit.cli import app
from fedlora_kit.cli import replay as command
from fedlora_kit.errors import BadValue, FedloraError, UnknownName
from fedlora_kit.methods.defects import frozen_by_substring
from fedlora_kit.papers.fed_hello import logs
from fedlora_kit.papers.fed_hello import replay as fed_hello_replay
from fedlora_kit.papers.fed_hello.logs import agreements, curves, layers_of_norm
from fedlora_kit.papers.fed_hello.replay import Defects, replay

SPLITS = ("iid", "pat_20", "pat_10")


@pytest.mark.parametrize("module", [fed_hello_replay, logs, command])
def test_doctests(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("split", SPLITS)
def test_exclusive_gives_the_official_cohorts(split):
    counts, empty = agreements(split, "exclusive", replay(split, "exclusive"))
    assert (counts.matched, counts.compared) == (50, 50)  # clients that train, rounds 0-49
    assert (empty.matched, empty.compared) == (500, 500)  # rounds in which nobody trains, by the norm


@pytest.mark.parametrize("split", SPLITS)
def test_a_round_without_a_client_leaves_the_official_accuracy_alone(split):
    """An independent shadow of the cohorts: the evaluated model is the same before and after."""
    log = curves()
    log = log[(log["split"] == split) & (log["method"] == "exclusive")].sort_values("round")
    accuracy = log["test_accuracy"].tolist()
    nobody = [r.round_index for r in replay(split, "exclusive") if r.training_clients == 0]
    assert len(nobody) in (3, 4)
    assert all(accuracy[i] == accuracy[i - 1] for i in nobody)


@pytest.mark.parametrize("split", SPLITS)
def test_fed_hello_trains_the_layers_that_the_logs_show_with_the_defect_only(split):
    (with_it,) = agreements(split, "fed-hello", replay(split, "fed-hello", 50))
    without = Defects(freeze_by_substring=False)
    (exact,) = agreements(split, "fed-hello", replay(split, "fed-hello", 50, without))
    assert with_it.compared == exact.compared == 47  # rounds 3-49
    assert with_it.matched / 47 >= 0.97
    assert exact.matched / 47 <= 0.85


@pytest.mark.parametrize("split", SPLITS)
def test_the_fisher_examples_come_from_the_shared_stream(split):
    other = Defects(fim_draws_from_the_shared_stream=False)
    (agreement,) = agreements(split, "fed-hello", replay(split, "fed-hello", 50, other))
    assert agreement.matched / 47 < 0.6
    cohorts = [r.cohort for r in replay(split, "exclusive", 50)]
    assert cohorts != [r.cohort for r in replay(split, "fed-hello", 50)]


def test_logged_norms_are_whole_numbers_of_layers():
    log = curves()
    norms = log[(log["method"] == "fed-hello") & log["round"].between(4, 49)]["median_update_norm"]
    layers = [layers_of_norm(float(n)) for n in norms]
    assert max(abs(x - round(x)) for x in layers) < 0.1


def test_fed_hello_after_round_49_is_unknown_and_not_invented():
    played = replay("iid", "fed-hello", 60)
    assert [r.cohort is None for r in played] == [False] * 50 + [True] * 10
    assert played[55].trained is None
    assert played[55].training_clients is None
    assert played[55].median_layers is None


@pytest.mark.parametrize("split", SPLITS)
def test_what_is_drawn_has_the_right_shape(split):
    for r in replay(split, "fed-hello", 50):
        assert r.cohort is not None
        assert len(set(r.cohort)) == 10
        assert r.allocated is not None
        assert r.trained is not None
        for k, layers in r.allocated.items():
            assert len(layers) == (6 if k < 33 else 9 if k < 66 else 12)
            assert set(layers) - set(r.trained[k]) <= {10, 11}
    assert replay(split, "exclusive", 7) == replay(split, "exclusive", 500)[:7]


def test_the_freezing_defect():
    assert frozen_by_substring([1, 10, 11], 12) == (10,)  # layer 0 is absent
    assert frozen_by_substring([0, 10, 11], 12) == (10, 11)  # layer 1 is absent
    assert frozen_by_substring([0, 1, 10, 11], 12) == ()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("uniform", "exclusive"), UnknownName),
        (("iid", "fedra"), UnknownName),
        (("iid", "exclusive", 0), BadValue),
        (("iid", "exclusive", 501), BadValue),
    ],
)
def test_what_cannot_be_replayed(arguments, error):
    with pytest.raises(error):
        replay(*arguments)


def test_missing_logs(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HOME", str(tmp_path))
    with pytest.raises(FedloraError, match=r"fed_hello_curves\.csv"):
        curves()


def call(*words):
    return CliRunner().invoke(app, ["replay", "fed-hello", *words])


def test_command_json():
    result = call("--split", "pat_10", "--method", "fed-hello", "--rounds", "52", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [r["known"] for r in told["rounds"]] == [True] * 50 + [False] * 2
    first = told["rounds"][0]
    assert sorted(first["trained"], key=int) == [str(k) for k in sorted(first["cohort"])]
    assert told["agreement"][0]["matched"] == 47
    assert "KMeans" in told["unknown"]


def test_command_table():
    result = call("--split", "iid", "--method", "exclusive", "--rounds", "9")
    assert result.exit_code == 0, result.output
    assert "none" in result.stdout.splitlines()[10]  # nobody trains in round 8
    assert "clients that train: 9 of 9 rounds agree" in result.stdout
    told = call("--split", "iid", "--method", "fed-hello", "--rounds", "500").stdout
    assert told.count("unknown") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--split", "pat10", "--method", "exclusive"), "pat_10"),
        (("--split", "iid", "--method", "straggler"), "exclusive, fed-hello"),
        (("--split", "iid", "--method", "exclusive", "--rounds", "501"), "1 to 500"),
    ],
)
def test_command_errors(words, said):
    result = call(*words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
