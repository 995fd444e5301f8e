"""Results in a user's hands: frames of runs, a figure and a LaTeX table of them, models for the Hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from fedlora_kit.cli import app
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.experiments.run import run
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Store
from fedlora_kit.models.names import backbone_folder
from fedlora_kit.reporting.export import write_frames
from fedlora_kit.reporting.hand_over import write_model
from fedlora_kit.reporting.rounds import runs_frame
from fedlora_kit.reporting.two_lines import latex_table, score_over_rounds


def spec(**changes: Any) -> RunSpec:
    given: dict[str, Any] = {
        "model": {"backbone": "kit/text-tiny", "lora": {"rank": 2}},
        "data": {"task": "polarity", "train_limit": 120, "eval_limit": 40, "client_holdout": 0.2},
        "method": {"name": "lora"},
        "local": {"steps": 1, "lr": 0.1, "batch_size": 8},
        "rounds": {"rounds": 3, "eval_every": 2},
    }
    return RunSpec.parse(given | changes)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two methods at two seeds, and one of them once more at another learning rate and under DP."""
    made = Store(tmp_path_factory.mktemp("runs"))
    for name in ("lora", "ffa-lora"):
        for seed in (0, 1):
            run(spec(method={"name": name}, seed=seed), device="cpu", store=made)
    private = {"epsilon": 6.0, "delta": 1e-3, "clip": 1.0}
    local = {"steps": 1, "lr": 0.5, "batch_size": 8}
    run(spec(privacy=private, local=local, seed=1000), device="cpu", store=made)
    return made


def test_a_frame_has_one_row_a_round_with_the_store_s_numbers(store: Store) -> None:
    frame = runs_frame(store, method="lora", epsilon=None)
    assert frame["round"].tolist() == [1, 2, 3] * 2
    assert frame.groupby("key").size().tolist() == [3, 3]
    entries = {entry.key: entry for entry in store.entries()}
    for row in frame.to_dict("records"):
        record = entries[row["key"]].history[row["round"] - 1]
        assert row["train_loss"] == record["train_loss"]
        assert ("eval" in record) == (row["validation accuracy"] == row["validation accuracy"])
        if "eval" in record:
            assert row["validation accuracy"] == 100 * record["eval"]["validation"]["accuracy"]
            assert row["validation loss"] == record["eval"]["validation"]["loss"]
            clients = record["local"]["accuracy"]
            assert row["local accuracy"] == pytest.approx(100 * sum(clients) / len(clients))
    assert frame.attrs["differ"] == []


def test_a_frame_names_what_differs_and_no_line_mixes_settings(store: Store) -> None:
    with pytest.warns(UserWarning, match=r"seeds from 1000 on.*seed=\[0, 1\] leaves"):
        frame = runs_frame(store)
    assert {"lr", "epsilon"} <= set(frame.attrs["differ"]) <= set(frame.columns)
    with pytest.raises(BadValue, match=r"method=lora differ in more than the seed .*lr: 0\.[15], 0\.[15]"):
        score_over_rounds(frame)
    with pytest.raises(BadValue, match="differ in more than the seed"):
        latex_table(frame)
    assert set(runs_frame(store, lr=[0.1, 0.5], seed=[0, 1000])["lr"]) == {0.1, 0.5}
    assert runs_frame(store, epsilon=6)["train_loss"].size == 3


def test_bad_filters_and_columns_are_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="unknown field of a run 'lrr'\n.*did you mean 'lr'"):
        runs_frame(store, lrr=1)
    with pytest.raises(BadValue, match="none of 5 finished runs .* has lr=7"):
        runs_frame(store, lr=7)
    with pytest.raises(BadValue, match="none of 0 finished runs"):
        runs_frame(Store(tmp_path))
    with pytest.raises(UnknownName, match="unknown column 'rank'"):
        score_over_rounds(runs_frame(store, lr=0.1), by="rank")
    with pytest.raises(UnknownName, match="unknown column 'test accuracy'"):
        latex_table(runs_frame(store, lr=0.1), score="test accuracy")


def test_figure_and_table_show_mean_and_spread_over_seeds(store: Store) -> None:
    frame = runs_frame(store, lr=0.1)
    axes = score_over_rounds(frame).axes[0]
    last = frame[frame["round"] == 3]
    means = last.groupby("method", sort=False)["validation accuracy"].mean()
    drawn = {line.get_label(): line.get_ydata()[-1] for line in axes.lines}
    assert drawn == {"LoRA": pytest.approx(means["lora"]), "FFA-LoRA": pytest.approx(means["ffa-lora"])}
    assert len(axes.collections) == 2
    assert axes.get_ylabel() == "validation accuracy (%)"
    spread = last[last["method"] == "lora"]["validation accuracy"].std(ddof=1)
    table = latex_table(frame)
    assert f"LoRA & {means['lora']:.2f} $\\pm$ {spread:.2f}" in table
    wide = latex_table(runs_frame(store, seed=[0, 1000]), columns="lr")
    assert "method & 0.1 & 0.5" in wide
    assert "FFA-LoRA & " in wide


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_exported_frames_read_back(store: Store, tmp_path: Path, form: Any) -> None:
    entries = list(store.entries())
    rounds, scores = write_frames(entries, tmp_path / "out", form)
    read = pd.read_csv if form == "csv" else pd.read_parquet
    assert len(read(rounds)) == 15
    long = read(scores)
    for entry in entries:
        part = entry.results["scores"]["validation"]
        mine = long[(long["key"] == entry.key) & (long["part"] == "validation")]
        of = {(r["metric"], r["at"]): r["value"] for r in mine.to_dict("records")}
        assert (of["accuracy", "best"], of["loss", "final"]) == (part["best"], part["loss"])
        assert of["macro_f1", "last10"] == part["macro_f1"]["last10"]


def test_the_command_exports_and_refuses(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDLORA_RUNS", str(store.root))
    keys = [entry.key for entry in store.entries()]

    def call(*words: str) -> Any:
        return CliRunner().invoke(app, ["export", *words])

    done = call(*keys[:2], "--csv", "--to", str(tmp_path / "two"), "--json")
    assert done.exit_code == 0, done.output
    assert all(Path(path).is_file() for path in json.loads(done.stdout)["written"])
    assert "give one of --csv" in call(keys[0], "--to", str(tmp_path / "x")).output
    assert "2 runs for one model" in call(*keys[:2], "--model", "--to", str(tmp_path / "x")).output
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    refused = call(keys[0], "--model", "--to", str(tmp_path / "full"))
    assert (refused.exit_code, "is not empty" in refused.output) == (2, True)


@pytest.mark.parametrize(("backbone", "task"), [("kit/text-tiny", "polarity"), ("kit/image-tiny", "digits")])
def test_a_model_for_the_hub_loads_with_peft_and_transformers_and_agrees(
    tmp_path: Path, backbone: str, task: str
) -> None:
    import peft
    import transformers

    entry = run(
        spec(
            model={"backbone": backbone, "lora": {"rank": 2, "head": "aggregated"}},
            data={"task": task, "train_limit": 60, "eval_limit": 20},
            privacy={"epsilon": 6.0, "delta": 1e-3, "clip": 1.0},
        ),
        device="cpu",
        store=Store(tmp_path / "runs"),
    )
    write_model(entry, tmp_path / "adapter")
    write_model(entry, tmp_path / "merged", merged=True)
    kind = "SequenceClassification" if task == "polarity" else "ImageClassification"
    classes = len(transformers.AutoConfig.from_pretrained(str(tmp_path / "merged")).id2label)
    whole = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(str(tmp_path / "merged")).eval()
    auto = peft.AutoPeftModelForSequenceClassification if task == "polarity" else peft.AutoPeftModel
    adapted: Any = auto.from_pretrained(str(tmp_path / "adapter"), num_labels=classes).eval()
    seen = (
        {"input_ids": torch.tensor([[0, 5, 6, 7, 2]])}
        if task == "polarity"
        else {"pixel_values": torch.rand(2, 1, whole.config.image_size, whole.config.image_size)}
    )
    with torch.no_grad():
        torch.testing.assert_close(adapted(**seen).logits, whole(**seen).logits, rtol=1e-4, atol=1e-5)
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert f"num_labels={classes}" in card
    assert "ε = 6 at δ = 0.001" in card
    assert "differential-privacy" in card.split("---")[1]
    names = transformers.AutoConfig.from_pretrained(str(tmp_path / "merged")).id2label
    assert f"Classes, in order: {', '.join(names.values())}." in card


def test_a_causal_model_is_merged_and_answers_alike(tmp_path: Path) -> None:
    import peft
    import transformers

    entry = run(
        spec(
            model={"backbone": "kit/causal-tiny", "lora": {"rank": 2, "targets": ["q", "v"]}},
            data={"task": "arithmetic", "train_limit": 40, "eval_limit": 4},
            rounds={"rounds": 1},
        ),
        device="cpu",
        store=Store(tmp_path / "runs"),
    )
    write_model(entry, tmp_path / "merged", merged=True)
    write_model(entry, tmp_path / "adapter")
    whole = transformers.AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged")).eval()
    adapted: Any = peft.AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "adapter")).eval()
    seen = torch.arange(6)[None]
    with torch.no_grad():
        torch.testing.assert_close(adapted(seen).logits, whole(seen).logits, rtol=1e-4, atol=1e-5)
    transformers.AutoTokenizer.from_pretrained(str(tmp_path / "merged"))


def test_a_base_that_has_changed_since_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(backbone_folder("kit/text-tiny") or "", base)
    model = {"backbone": str(base), "lora": {"rank": 2}}
    entry = run(spec(model=model, rounds={"rounds": 1}), device="cpu", store=Store(tmp_path / "runs"))
    write_model(entry, tmp_path / "before", merged=True)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 0.1}))
    with pytest.raises(BadValue, match="whose files have changed since"):
        write_model(entry, tmp_path / "after", merged=True)


def test_a_random_base_is_nobody_s(tmp_path: Path) -> None:
    model = {"backbone": "kit/text-tiny", "weights": "random", "lora": {"rank": 2}}
    entry = run(spec(model=model, rounds={"rounds": 1}), device="cpu", store=Store(tmp_path / "runs"))
    with pytest.raises(BadValue, match="random weights"):
        write_model(entry, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_frame_of_an_item_holds_the_runs_that_its_tables_name(store: Store, tmp_path: Path) -> None:
    wanted = [entry.key for entry in store.entries()][:2]
    folder = tmp_path / "smoke" / "ffa-lora" / "table1"
    folder.mkdir(parents=True)
    (folder / "results.csv").write_text("\n".join(["key", *wanted]) + "\n")
    frame = runs_frame(store, item="ffa-lora/table1", results=tmp_path)
    assert set(frame["key"]) == set(wanted)
    with pytest.raises(UnknownName, match="unknown item 'table9'"):
        runs_frame(store, item="table9", results=tmp_path)
