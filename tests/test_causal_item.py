"""The item ffa-lora/gsm8k: settings, grid, results, answers, claims; and GSM8K through a mirror."""

import dataclasses
import math

import pandas as pd
import pytest

from fedlora_kit.data import get_task, load_task
from fedlora_kit.errors import BadValue, FedloraError, UnknownName
from fedlora_kit.papers.ffa_lora import gsm8k
from fedlora_kit.papers.ffa_lora.gsm8k_answers import side_by_side, untrained
from fedlora_kit.papers.ffa_lora.gsm8k_claims import claims, deviations
from fedlora_kit.papers.published import published
from fedlora_kit.study.claims import judge_all
from fedlora_kit.study.grid import choose, run_cells


def small(**extra):
    options = {"rounds": 1, "steps": 1, "batch_size": 4, "holdout": 6, "eval_limit": 5, "train_limit": 60}
    return gsm8k.setting("smoke", **{**options, **extra})


@pytest.mark.parametrize("profile", ["paper", "small", "smoke"])
def test_every_run_of_every_profile_is_a_valid_description(profile, monkeypatch):
    monkeypatch.setattr("fedlora_kit.experiments.spec.RunSpec.key", lambda self: "0" * 16)
    s = gsm8k.setting(profile)
    grid = gsm8k.grid(s)
    assert len(grid) == sum(len(rates) for rates in s.rates.values())
    assert {c.seed for c in grid}.isdisjoint(s.seeds)
    assert {c.spec.data.eval_limit for c in grid} == {1}
    frame = pd.DataFrame([{**c.coords, **c.tuned, "score": -c.tuned["lr"]} for c in grid])
    table = gsm8k.table(s, choose(frame, by=["method"], tuned=["lr"]))
    assert len(table) == 2 * len(s.seeds) >= 6
    assert {c.tuned["lr"] for c in table} == {min(rates) for rates in s.rates.values()}
    assert all(c.spec.split.partitioner == "iid" for c in table)
    assert deviations(profile, s)


def test_the_paper_profile_is_what_it_declares():
    s = gsm8k.PROFILES["paper"]
    spec = gsm8k.cell(s, "ffa-lora", 0, 0.1).spec
    assert spec.model.backbone == "huggyllama/llama-7b"
    assert (spec.model.dtype, spec.model.gradient_checkpointing) == ("bf16", False)
    assert (spec.rounds.rounds, spec.local.steps, spec.local.batch_size, spec.split.clients) == (
        500,
        30,
        1,
        3,
    )
    assert (spec.model.lora.rank, spec.model.lora.alpha, spec.model.lora.dropout) == (8, 16.0, 0.05)
    assert spec.data.prompt == "alpaca"
    assert not any("paper profile:" in line for line in deviations("paper", s))
    changed = dataclasses.replace(s, rounds=5)
    assert "rounds: 5 (paper profile: 500)" in deviations("paper", changed)


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ({"seeds": 0}, BadValue),
        ({"tasks": ["gsm8k", "arithmetic"]}, BadValue),
        ({"tasks": ["sst2"]}, UnknownName),
        ({"rates": [0.1, 0.1]}, BadValue),
        ({"rates": [-1.0]}, BadValue),
        ({"round": 3}, UnknownName),
    ],
)
def test_bad_overrides(override, error):
    with pytest.raises(error):
        gsm8k.setting("smoke", **override)
    with pytest.raises(UnknownName, match="profile"):
        gsm8k.setting("big")


def test_the_published_numbers_have_a_place():
    cells = published("ffa-lora", "gsm8k").set_index("cell")["value"]
    assert cells[f"method=lora|model={gsm8k.PUBLISHED_MODEL}"] == 15.68
    assert cells[f"method=ffa-lora|model={gsm8k.PUBLISHED_MODEL}"] == 17.12
    assert gsm8k.model_name(gsm8k.PROFILES["paper"].backbone) == gsm8k.PUBLISHED_MODEL


def test_from_the_grid_to_the_answers():
    s = small(seeds=2, rates=[0.1, 1e6])
    searched = run_cells(gsm8k.grid(s), jobs=1)
    grid = gsm8k.grid_by_loss(searched)
    chosen = choose(grid, by=["method"], tuned=["lr"])
    assert set(chosen["lr"]) == {0.1}  # 1e6 diverged, or is far worse
    done = run_cells(gsm8k.table(s, chosen), jobs=1)
    results = gsm8k.results(done)
    assert len(results) == 4
    for (_, run), row in zip(done, results.to_dict("records"), strict=True):
        score = run.entry.results["scores"]["test"]
        assert row["accuracy"] == pytest.approx(100 * score["final"])
        assert row["perplexity"] == pytest.approx(math.exp(score["loss"]))
        assert row["examples"] == 5
    judged = {one.claim.id: one.verdict.status for one in judge_all(claims(), results)}
    assert judged["half_trained"] == judged["half_sent"] == "reproduced"
    assert judged["better"] in {"reproduced", "not reproduced"}
    answers, right = side_by_side(done, n=3)
    assert list(answers) == ["question", "reference", "lora", "ffa-lora"]
    assert len(answers) == len(right) == 3
    start = untrained(done[0][0])
    assert start["examples"] == 5
    assert start["loss"] > results["answer_loss"].max()  # one step has helped


def test_answers_of_no_run():
    with pytest.raises(FedloraError, match="no run has finished"):
        side_by_side([])


def test_gsm8k_from_a_mirror(tmp_path, monkeypatch):
    import datasets

    folder = tmp_path / "datasets" / "openai" / "gsm8k" / "main"
    folder.mkdir(parents=True)
    rows = {"question": ["How many?", "And now?"], "answer": ["1+1=<<1+1=2>>2\n#### 2", "#### 1,000"]}
    for split in ("train", "test"):
        datasets.Dataset.from_dict(rows).to_parquet(str(folder / f"{split}.parquet"))
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path))
    loaded = load_task(get_task("gsm8k"))
    assert loaded.train.columns == (rows["question"], rows["answer"])
    assert loaded.evals["test"].labels.tolist() == [0, 0]
    (folder / "test.parquet").unlink()
    with pytest.raises(FedloraError, match="datasets/openai/gsm8k/main/test.parquet"):
        load_task(get_task("gsm8k"))
