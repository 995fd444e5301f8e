"""Fed-HeLLo on DomainNet-121: the loader on a mirror of its shape, the stand-in's domains, the item."""

import io

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fedlora_kit import paths
from fedlora_kit.data import get_task, load_task
from fedlora_kit.data.builtin.digits import DOMAINS, digits
from fedlora_kit.data.encoded import encode_images
from fedlora_kit.data.image_ops import ImageInput
from fedlora_kit.data.sources import fingerprint
from fedlora_kit.data.task import Examples
from fedlora_kit.errors import BadValue, FedloraError, UnknownName
from fedlora_kit.experiments.setup import load_data, split_indices
from fedlora_kit.papers.fed_hello import domainnet, grid
from fedlora_kit.partition import label_counts
from fedlora_kit.study.claims import judge_all

SMOKE = domainnet.PROFILES["smoke"]
NAMES = ("clipart", "real", "sketch")


def png(level, size):
    out = io.BytesIO()
    Image.fromarray(np.full((*size, 3), level, dtype=np.uint8)).save(out, "PNG")
    return {"bytes": out.getvalue(), "path": None}


def write(folder, split, n, **changed):
    rows = {
        "image": [png(i, (9 + i % 2, 12)) for i in range(n)],
        "label": [i % 121 for i in range(n)],
        "domain": [NAMES[i % 3] for i in range(n)],
        **changed,
    }
    rows = {name: values for name, values in rows.items() if values is not None}
    table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    table.to_parquet(str(folder / f"{split}.parquet"))


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path / "hub"))
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path / "data")
    folder = tmp_path / "hub/datasets/TNILab/DomainNet_FL/default"
    folder.mkdir(parents=True)
    write(folder, "train", 7)
    write(folder, "test", 4)
    return folder


def test_images_labels_and_domains_come_from_a_mirror_and_again_from_the_cache(mirror):
    for _ in range(2):
        data = load_task(get_task("domainnet"))
        assert data.train.columns[0].shape == (7, 3, 256, 256)
        assert data.train.labels.tolist() == list(range(7))
        assert data.train.groups.tolist() == [NAMES[i % 3] for i in range(7)]
        assert data.evals["test"].groups.tolist() == ["clipart", "real", "sketch", "clipart"]
    assert fingerprint(get_task("domainnet")).startswith("mirror:")


def test_numbers_for_domains_are_groups_as_well(mirror):
    write(mirror, "train", 4, domain=[2, 0, 1, 2])
    assert load_task(get_task("domainnet")).train.groups.tolist() == [2, 0, 1, 2]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"domain": None, "style": ["x"] * 4}, "has no column domain; it has image, label, style"),
        ({"label": None}, "has no column label"),
        ({"label": [0, 1, 121, 2]}, r"labels 0\.\.121, but 121 classes"),
        ({"domain": ["real", None, "real", "real"]}, r"column domain is empty in row 1 \(1 rows"),
    ],
)
def test_a_mirror_of_another_shape_is_one_clear_error(mirror, changed, message):
    write(mirror, "train", 4, **changed)
    with pytest.raises(FedloraError, match=message) as error:
        load_task(get_task("domainnet"))
    assert error.value.remedy


def test_groups_stay_with_their_examples():
    examples = Examples((np.zeros((4, 1, 2, 2), np.float32),), np.arange(4), groups=np.array(list("abcd")))
    order = np.array([3, 1])
    assert examples.take(order).groups.tolist() == ["d", "b"]
    data = encode_images(examples, ImageInput(2, 1, (0.5,), (0.5,)))
    assert data.subset(np.array([2, 3, 1])).subset(np.array([1, 2])).groups.tolist() == ["d", "b"]
    with pytest.raises(BadValue, match="differ in length"):
        Examples((["a", "b"],), np.arange(2), groups=np.arange(3))


# --- the stand-in --------------------------------------------------------------------------------


def test_every_digit_of_the_stand_in_is_in_one_domain_and_every_class_in_all():
    data = load_task(get_task("digits_domains"))
    for part, examples in (("train", data.train), ("test", data.evals["validation"])):
        images, labels = digits(part)
        assert np.array_equal(examples.labels, labels)
        for i in (0, 1, 50, 51, 52, 53, 200, 300):
            turns, contrast = DOMAINS[examples.groups[i]]
            by_hand = images[i, 0]
            for _ in range(turns):
                by_hand = by_hand.T[::-1]  # a quarter, anticlockwise
            assert np.allclose(examples.columns[0][i, 0], by_hand * contrast)
        for label in range(10):
            counts = [int(((labels == label) & (examples.groups == name)).sum()) for name in DOMAINS]
            assert max(counts) - min(counts) <= 1
    rows = [{x.tobytes() for x in digits(part)[0]} for part in ("pretrain", "train", "test")]
    assert not any(rows[i] & rows[j] for i, j in ((0, 1), (0, 2), (1, 2)))


def test_a_run_deals_its_examples_by_their_domains():
    (one,) = grid.cells(domainnet.setting("smoke", methods=["lora"], splits=["pat_10"], seeds=1))
    train, _ = load_data(one.spec.data, one.spec.model.backbone)
    parts = split_indices(one.spec, train)
    assert sum(map(len, parts)) == len(train)
    for part in parts:
        seen = {(train.labels[i], train.groups[i]) for i in part}
        assert len(seen) == len({label for label, _ in seen}) == 2  # two classes, each in one domain
    counts, names = domainnet.domain_counts(parts, train.groups)
    assert names == sorted(DOMAINS)
    assert np.array_equal(counts.sum(axis=1), label_counts(parts, train.labels).sum(axis=1))
    assert counts[0, 0] == (train.groups[parts[0]] == names[0]).sum()


# --- the item ------------------------------------------------------------------------------------


def test_profiles_change_size_never_logic_and_the_splits_can_be_dealt():
    paper = domainnet.PROFILES["paper"]
    table2 = grid.PROFILES["paper"]
    for s in domainnet.PROFILES.values():
        assert len(s.seeds) >= 3
        for same in ("methods", "lr", "lr_decay", "rank", "alpha", "dropout", "weight_decay"):
            assert getattr(s, same) == getattr(paper, same) == getattr(table2, same)
    for s in (paper, domainnet.PROFILES["small"]):  # DomainNet-121 as it is: 45 of each class and domain
        labels = np.repeat(np.arange(121), 270)
        domains = np.tile(np.arange(6), 121 * 45)
        few = np.random.default_rng(0).permutation(labels.size)[: s.train_limit]
        for split in s.splits:
            parts = grid.split_partitioner(s, split, 0).split(labels[few], groups=domains[few])
            assert max(map(len, parts)) <= s.batch_size
    for c in grid.cells(SMOKE):
        expected = "iid" if c.coords["split"] == "iid" else "pathological_domains"
        assert c.spec.split.partitioner == expected


def test_the_claims_name_every_baseline_and_what_was_not_run_is_not_testable():
    def results(gain):
        return pd.DataFrame(
            [
                {"split": split, "method": m, "task": "d", "dataset": "d", "roc": "1:1:1", "seed": seed}
                | {"accuracy_best": 50.0 + (m == "fed-hello") * gain + 0.1 * seed * len(m)}
                for split in ("iid", "pat_10")
                for m in grid.METHODS
                for seed in range(3)
            ]
        )

    for gain, status in ((5, "reproduced"), (-5, "not reproduced")):
        judged = {j.claim.id: j.verdict.status for j in judge_all(domainnet.claims(), results(gain))}
        assert len(judged) == 15
        assert {v for k, v in judged.items() if not k.endswith("pat_20")} == {status}
        assert {v for k, v in judged.items() if k.endswith("pat_20")} == {"not testable"}
    assert all(c.foundation.startswith("SECOND") for c in domainnet.claims())


def test_deviations_declare_the_guesses():
    told = " ".join(domainnet.deviations(domainnet.PROFILES["paper"]))
    for word in ("called domain is our guess", "UNKNOWN", "leftovers: deal", "121 training"):
        assert word in told
    smoke = domainnet.deviations(SMOKE)
    assert "4 of ten classes" in smoke[0]
    assert any(line.startswith("rounds: 20 (paper: 500)") for line in smoke)
    with pytest.raises(UnknownName, match="setting of fed-hello/domainnet"):
        domainnet.setting("smoke", temperature=1)
