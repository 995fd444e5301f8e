"""Pre-training on any text: the folder it writes, its determinism, its batches."""

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from fedlora_kit.errors import BadValue
from fedlora_kit.pretraining import lines as pretrain_lines
from fedlora_kit.pretraining.lines import Recipe, build_text_backbone

SMALL = Recipe(
    vocabulary=300, hidden=16, layers=1, heads=2, intermediate=16, steps=4, tokens=256, max_length=24
)
WORDS = [f"{a}{b}" for a in ("sun", "rain", "wind") for b in ("day", "fall", "rise")]


def lines(n=120):
    rng = np.random.default_rng(0)
    return [tuple(" ".join(rng.choice(WORDS, size=5)) for _ in range(1 + i % 2)) for i in range(n)]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("backbone")
    said = []
    figures = build_text_backbone(lines(), out, SMALL, progress=said.append)
    return out, figures, said


def test_it_writes_an_ordinary_folder(built):
    out, figures, said = built
    model, info = AutoModelForSequenceClassification.from_pretrained(
        out, num_labels=3, output_loading_info=True
    )
    assert all(k.startswith("classifier.") for k in info["missing_keys"])
    tokenizer = AutoTokenizer.from_pretrained(out)
    ids = tokenizer("Sunday rainfall", "windrise")["input_ids"]
    assert (ids[0], ids[-1], ids.count(2)) == (0, 2, 3)  # <s> a </s></s> b </s>
    assert tokenizer.decode(ids, skip_special_tokens=True).split() == ["sunday", "rainfall", "windrise"]
    assert tokenizer.pad_token_id == model.config.pad_token_id == 1
    assert figures["steps"] == 4
    assert any("step 4/4" in line for line in said)


def test_it_is_deterministic(built, tmp_path):
    out, _, _ = built
    build_text_backbone(lines(), tmp_path, SMALL, progress=lambda line: None)
    assert (tmp_path / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    build_text_backbone(lines(), tmp_path, SMALL, seed=1, progress=lambda line: None)
    assert (tmp_path / "model.safetensors").read_bytes() != (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("room", [8, 12, 24])
def test_long_pairs_are_cut_on_the_longer_side_first(room):
    for a, b in ((30, 3), (3, 30), (30, 30), (2, 0), (30, 0)):
        ids = pretrain_lines._join(np.full(a, 7), np.full(b, 9), room)
        assert len(ids) <= room
        assert ids[0] == 0
        assert ids[-1] == 2
        if min(a, b) == 3:
            assert ids.count(7 if a == 3 else 9) == min(3, (room - 4) // 2)


def test_too_little_text(tmp_path):
    with pytest.raises(BadValue, match="too few"):
        build_text_backbone(lines(20), tmp_path)
