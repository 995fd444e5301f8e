"""Fed-HeLLo on LEDGAR: the loader on a mirror of its shape, F1 by hand, the stand-in, FedRA on BERT."""

import math
import re
from collections import Counter

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score
from tiny import backbone, federation, text_data

from fedlora_kit import paths
from fedlora_kit.data import get_task, load_task
from fedlora_kit.data.builtin.text import corpus, is_evaluation, vocabulary
from fedlora_kit.data.builtin.topics import topic_shares
from fedlora_kit.errors import FedloraError, UnknownName
from fedlora_kit.papers.fed_hello import grid, ledgar
from fedlora_kit.study.claims import judge_all
from fedlora_kit.training.depth import only_layers
from fedlora_kit.training.evaluation import evaluate
from fedlora_kit.training.rounds import run_federation

CPU = torch.device("cpu")


# --- the loader ----------------------------------------------------------------------------------


def write(folder, split, n=5, **changed):
    rows = {"text": [f"provision {i}" for i in range(n)], "label": [20 * i for i in range(n)], **changed}
    rows = {name: values for name, values in rows.items() if values is not None}
    datasets.Dataset.from_dict(rows).to_parquet(str(folder / f"{split}.parquet"))


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path / "hub"))
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path / "data")
    folder = tmp_path / "hub/datasets/coastalcph/lex_glue/ledgar"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        write(folder, split)
    return folder


def test_provisions_come_from_a_mirror_and_the_validation_split_is_not_asked_for(mirror):
    data = load_task(get_task("ledgar"))
    assert data.train.columns == (
        ["provision 0", "provision 1", "provision 2", "provision 3", "provision 4"],
    )
    assert data.train.labels.tolist() == [0, 20, 40, 60, 80]
    assert data.train.groups is None
    assert set(data.evals) == {"test"}
    kind = get_task("ledgar")
    assert (kind.num_labels, kind.max_length) == (100, 512)
    names = kind.label_names
    assert (names[0], names[11], names[17], names[99]) == (
        "Adjustments", "Base Salary", "Change In Control", "Withholdings",
    )  # fmt: skip
    assert len(set(names)) == 100


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"text": None, "provision": ["a"] * 5}, "has no column text; it has label, provision"),
        ({"label": [0, 1, 2, 3, 100]}, r"labels 0\.\.100, but 100 classes"),
        ({"label": [0, 1, 2, 3, -1]}, r"labels -1\.\.3"),
        ({"text": ["a", None, "b", "c", "d"]}, "column text is empty in row 1"),
    ],
)
def test_a_mirror_of_another_shape_is_one_clear_error(mirror, changed, message):
    write(mirror, "test", **changed)
    with pytest.raises(FedloraError, match=message) as error:
        load_task(get_task("ledgar"))
    assert error.value.remedy


# --- F1 ------------------------------------------------------------------------------------------


class Says(torch.nn.Module):
    """A model whose answers are given."""

    def __init__(self, answers, classes):
        super().__init__()
        self.logits = torch.nn.functional.one_hot(torch.tensor(answers), classes).float()

    def forward(self, input_ids, **_):
        return type("Out", (), {"logits": self.logits[input_ids[:, 0] - 4]})


def by_hand(truth, answers):
    """Macro-F1 over the classes that occur, from counts alone."""
    scores = []
    for label in set(truth) | set(answers):
        hits = sum(t == a == label for t, a in zip(truth, answers, strict=True))
        scores.append(2 * hits / (truth.count(label) + answers.count(label)))
    return sum(scores) / len(scores)


def test_both_f1_scores_against_counts_and_scikit_learn():
    rng = np.random.default_rng(3)
    truth = [int(x) for x in rng.integers(0, 5, 24) % 4]  # class 4 never occurs
    answers = [t if rng.random() < 0.5 else int(rng.integers(0, 4)) for t in truth]
    data = text_data(24, labels=4)
    data.fields["input_ids"][data.offsets[:-1]] = 4 + np.arange(24)
    data.labels[:] = truth
    found = evaluate(Says(answers, 5), data, CPU, 10**6)
    assert found["macro_f1"] == pytest.approx(by_hand(truth, answers))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, answers, average="macro"))
    assert found["accuracy"] == pytest.approx(f1_score(truth, answers, average="micro"))


class Run:
    """A finished run, as far as the F1 columns look at it."""

    def __init__(self, key, micro, macro):
        def record(values):
            late = sum(values) / len(values)
            return {"final": values[-1], "last10": late, "best": max(values)}

        best = micro.index(max(micro))
        scores = {**record(micro), "best_round": 3 * best + 2, "loss": 1.0, "examples": 9}
        scored = [
            {"round": 3 * i + 2, "eval": {"validation": {"accuracy": a, "macro_f1": b}}}
            for i, (a, b) in enumerate(zip(micro, macro, strict=True))
        ]
        counts = dict.fromkeys(("trained_parameters", "sent_parameters", "sent_bytes"), 1)
        self.key = key
        self.entry = type("Entry", (), {})()
        self.entry.results = {"scores": {"validation": {**scores, "macro_f1": record(macro)}}, **counts}
        self.entry.history = [{"round": 0}, *scored]
        self.entry.privacy = None


def test_the_best_round_is_that_of_the_best_micro_f1():
    cells = grid.cells(ledgar.setting("smoke", methods=["lora"], splits=["iid"], seeds=2))
    done = [
        (cells[0], Run("a", [0.2, 0.5, 0.4], [0.1, 0.3, 0.35])),
        (cells[1], type("Failed", (), {"key": "b", "entry": None})()),
    ]
    frame = ledgar.f1_frame(done)
    row = frame.iloc[0]
    assert (row["micro_f1_best"], row["micro_f1"], row["best_round"]) == pytest.approx((50, 40, 6))
    assert row["macro_f1_at_best"] == pytest.approx(30)
    assert row["macro_f1_best"] == pytest.approx(35)
    assert all(math.isnan(frame.iloc[1][name]) for name in ("micro_f1", "best_round", "macro_f1_at_best"))


# --- the stand-in --------------------------------------------------------------------------------


def test_topics_are_disjoint_balanced_as_they_say_and_in_the_backbones_words():
    data = load_task(get_task("topics"))
    train, scored = data.train, data.evals["validation"]
    texts, others = set(train.columns[0]), set(scored.columns[0])
    assert len(texts) == len(train) == 4000
    assert len(others) == len(scored) == 600
    assert not texts & others
    assert all(is_evaluation("topics", (text,)) for text in others)
    assert {word for text in texts | others for word in text.split()} <= set(vocabulary())
    pretrained = {line.columns for line in corpus(3000, 1)}
    assert not any((text,) in pretrained for text in others)
    shares = np.array(topic_shares())
    assert shares.sum() == pytest.approx(1)
    assert shares.max() / shares.min() == pytest.approx(7)
    held = np.bincount(train.labels, minlength=16) / len(train)
    assert np.abs(held - shares).max() < 4 * np.sqrt(shares.max() / len(train))
    with pytest.raises(UnknownName, match="part of topics"):
        get_task("topics").loader("test")


def test_the_label_is_what_is_asked_and_words_alone_do_not_tell_it():
    deeds = ["fix/repair", "buy/purchase", "clean/wash", "paint/decorate"]
    goods = ["bike/bicycle", "phone/mobile", "sofa/couch", "boat/ship"]
    data = load_task(get_task("topics")).train
    several = Counter()
    for text, label in zip(data.columns[0][:800], data.labels[:800], strict=True):
        clauses = [clause.strip() for clause in re.split(r"\b(?:but|although)\b|,", text)]
        (asked,) = [clause for clause in clauses if clause and not clause.startswith(("the ", "people "))]
        words = set(asked.split())
        deed = [i for i, pair in enumerate(deeds) if words & set(pair.split("/"))]
        good = [i for i, pair in enumerate(goods) if words & set(pair.split("/"))]
        assert (deed, good) == ([label // 4], [label % 4])
        several[sum(bool(set(text.split()) & set(pair.split("/"))) for pair in goods)] += 1
    assert set(several) == {2}  # every sentence names two things


# --- FedRA on text models ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_model_without_some_layers_is_the_model_made_of_the_others(kind):
    whole = backbone(kind, num_hidden_layers=4)
    small = backbone(kind, num_hidden_layers=2, seed=1)
    kept = {}
    for name, tensor in whole.state_dict().items():
        for new, old in enumerate((1, 3)):
            if f".layer.{old}." in name:
                kept[name.replace(f".layer.{old}.", f".layer.{new}.")] = tensor
        if ".layer." not in name:
            kept[name] = tensor
    small.load_state_dict(kept)
    inputs, _ = text_data(5).batch(np.arange(5), CPU)
    with torch.no_grad(), only_layers(whole, {1, 3}):
        assert torch.equal(whole(**inputs).logits, small(**inputs).logits)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_fedra_trains_the_layers_that_are_there_and_leaves_the_others_alone(kind):
    resources = {"groups": [1, 1, 1], "layers": [0.5, 0.75, 1.0]}
    fed = federation("fedra", (8, 8, 8), kind=kind, depth=4, settings={"resources": resources})
    layers = [sorted(fed.method.present_layers(k, 0)) for k in range(3)]
    assert [len(x) for x in layers] == [2, 3, 4]
    history = run_federation(fed).history
    assert history[0]["training_clients"] == 3
    assert all(math.isfinite(h["eval"]["validation"]["loss"]) for h in history)


# --- the item ------------------------------------------------------------------------------------


def test_profiles_change_size_never_logic():
    paper = ledgar.PROFILES["paper"]
    assert (paper.backbone, paper.proxy_examples) == ("google-bert/bert-base-uncased", 50)
    for s in ledgar.PROFILES.values():
        assert len(s.seeds) >= 3
        for same in ("methods", "lr", "lr_decay", "rank", "alpha", "dropout", "weight_decay", "partitioner"):
            assert getattr(s, same) == getattr(paper, same) == getattr(grid.PROFILES["paper"], same)
        for c in grid.cells(s):
            assert c.spec.model.lora.head == "frozen"
            assert c.spec.local.steps == 1


@pytest.mark.parametrize("profile", ["paper", "small", "smoke"])
def test_the_splits_can_be_dealt_with_unequal_classes_and_one_step_takes_every_client_whole(profile):
    s = ledgar.PROFILES[profile]
    classes = 16 if profile == "smoke" else 100
    weights = 1.0 / (1 + np.arange(classes))  # from many to few: more unequal than LEDGAR
    n = s.train_limit or 60_000
    labels = np.random.default_rng(0).choice(classes, size=n, p=weights / weights.sum())
    for split in grid.SPLITS:
        parts = grid.split_partitioner(s, split, 0).split(labels)
        assert max(map(len, parts)) <= s.batch_size


def test_the_claims_are_judged_by_both_scores():
    def results(micro, macro):
        return pd.DataFrame(
            [
                {"split": split, "method": m, "task": "l", "dataset": "l", "roc": "1:1:1", "seed": seed}
                | {"micro_f1_best": 50.0 + (m == "fed-hello") * micro + 0.1 * seed * len(m)}
                | {"macro_f1_at_best": 20.0 + (m == "fed-hello") * macro + 0.1 * seed * len(m)}
                for split in ("iid", "pat_20")
                for m in grid.METHODS
                for seed in range(3)
            ]
        )

    judged = {j.claim.id: j.verdict.status for j in judge_all(ledgar.claims(), results(5, -5))}
    assert len(judged) == 20
    for name, status in judged.items():
        if name.startswith("macro"):
            assert status == "not reproduced"
        else:
            assert status == ("not testable" if name.endswith("pat_10") else "reproduced")
    assert all(c.foundation.startswith("SECOND") for c in ledgar.claims())


def test_deviations_declare_what_is_unknown():
    told = " ".join(ledgar.deviations(ledgar.PROFILES["paper"]))
    for word in ("frozen random head", "micro-F1 is the accuracy", "cannot run as released", "UNKNOWN"):
        assert word in told
    assert "sixteen topics" in ledgar.deviations(ledgar.PROFILES["smoke"])[0]
