"""Shares of a plan's runs: together all of them, none twice, whoever asks."""

import pytest
from typer.testing import CliRunner

from fedlora_kit.cli import app
from fedlora_kit.engines.shards import Shard, train_share
from fedlora_kit.errors import BadValue
from fedlora_kit.experiments.store import Store
from fedlora_kit.papers.runs_of import planned_runs, runs_of
from fedlora_kit.running.many import Finished

GRID = {"seeds": 2, "tasks": ["polarity"], "epsilons": [0.0], "rates": [0.1, 0.4]}
PLAIN = {"seeds": 1}
ITEMS = {"ffa-lora/table1": GRID, "fed-hello/table2": PLAIN, "fed-hello/curves": PLAIN}


class Trainer:
    """Stands for `run_all`: a run is a record in the store."""

    def __init__(self):
        self.keys = []

    def __call__(self, specs, *, store, device, label):
        done = []
        for spec in specs:
            key = spec.key()
            self.keys.append(key)
            scores = {"holdout": {"final": 1 - spec.local.lr, "loss": 1.0}}
            with store.work(key, spec.model_dump(mode="json")) as work:
                if work.entry is None:
                    work.finish(
                        {"results.json": {"scores": scores}, "provenance.json": {}, "history.jsonl": []}
                    )
            done.append(Finished(spec, key, store.load(key)))
        return done


def keys_of(items, store):
    return {s.key() for item, given in items.items() for s in runs_of(item, "smoke", store=store, **given)}


@pytest.mark.parametrize("of", [1, 2, 5])
def test_the_shares_are_the_plan_and_none_is_trained_twice(of, tmp_path):
    store, first = Store(tmp_path / "runs"), Trainer()
    shares = [Shard(number, of) for number in range(1, of + 1)]
    done = [train_share(ITEMS, "smoke", s, store=store, train=first, say=lambda _: None) for s in shares]
    assert done[-1].waiting == ()  # the last one sees the whole grid
    second = Trainer()
    for share in shares:
        ended = train_share(ITEMS, "smoke", share, store=store, train=second, say=lambda _: None)
        assert ended.waiting == ()
        assert ended.finished + ended.others == len(keys_of(ITEMS, store))
    assert sorted(second.keys) == sorted(keys_of(ITEMS, store))  # a partition of the plan
    assert len(set(second.keys)) == len(second.keys)
    assert set(first.keys) <= set(second.keys)
    planned = planned_runs("ffa-lora/table1", "smoke", **GRID)
    assert {s.key() for s in planned.chosen(store)} <= set(second.keys)


def test_a_share_that_comes_before_the_others_says_that_the_grid_is_not_finished(tmp_path):
    store, trainer = Store(tmp_path / "runs"), Trainer()
    share = train_share(ITEMS, "smoke", Shard(1, 4), store=store, train=trainer, say=lambda _: None)
    assert share.waiting == ("ffa-lora/table1",)
    assert share.finished == len(set(trainer.keys))
    assert share.failed == 0


def test_a_run_that_diverges_counts_and_stops_nobody(tmp_path):
    store = Store(tmp_path / "runs")

    def diverges(specs, **_):
        return [Finished(spec, spec.key(), None, {"error": "loss is nan"}) for spec in specs]

    share = train_share({"start_here": PLAIN}, "smoke", Shard(1, 1), store=store, train=diverges)
    assert (share.finished, share.failed) == (0, 4)


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "a/b", "1/0", "-1/2", "1/2/3", "", "1.5/2"])
def test_impossible_shares_are_refused(text):
    with pytest.raises(BadValue, match="--shard"):
        Shard.parse(text)
    assert CliRunner().invoke(app, ["reproduce", "start_here", "--shard", text]).exit_code == 2


def test_a_share_goes_by_the_key_alone():
    keys = [f"{n:016x}" for n in (0, 1, 2, 12345, 2**64 - 1)]
    for of in (1, 3, 7):
        for key in keys:
            assert sum(Shard(number, of).takes(key) for number in range(1, of + 1)) == 1


def test_the_command_trains_its_share_and_runs_no_notebook(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_JOBS", "1")
    words = ["reproduce", "start_here", "--set", "seeds=1", "--set", "device=cpu"]
    out = tmp_path / "figures"
    store = Store()
    keys = [spec.key() for spec in runs_of("start_here", "smoke", seeds=1)]
    mine = [key for key in keys if Shard(2, 2).takes(key)]
    result = CliRunner().invoke(app, [*words, "--shard", "2/2", "--output", str(out)])
    assert result.exit_code == 0, result.output
    assert f"{len(mine)} finished, 0 failed, {4 - len(mine)} fall to other shares" in result.output
    assert [key for key in keys if store.status(key) == "finished"] == mine
    assert not out.exists()


def test_a_share_and_a_cluster_do_not_go_together():
    result = CliRunner().invoke(app, ["reproduce", "start_here", "--shard", "1/2", "--engine", "ray"])
    assert result.exit_code == 2
    assert "--shard" in result.stderr
