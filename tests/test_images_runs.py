"""Runs on images: the backbone's input, resuming with random views."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from tiny import federation

from fedlora_kit.data.encoded import encode_images
from fedlora_kit.data.image_ops import ImageInput
from fedlora_kit.data.task import Examples
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.experiments.run import run
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.models.image_input import image_input
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.training.federation import Snapshot
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.settings import FederationSettings, LocalSettings


def views_of(n, seed):
    rng = np.random.default_rng(seed)
    rows = Examples((rng.integers(0, 256, (n, 1, 6, 6), dtype=np.uint8),), rng.integers(0, 3, n))
    return replace(encode_images(rows, ImageInput(4, 1, (0.5,), (0.5,))), augment="zoom_flip")


def a_federation(privacy, max_tokens=4096):
    return federation(
        kind="vit",
        clients=[views_of(9, 0), views_of(7, 1)],
        rounds=FederationSettings(rounds=3, eval_every=0),
        local=LocalSettings(lr=0.1, steps=2, batch_size=4, max_tokens=max_tokens),
        privacy=privacy,
    )


def same(a, b):
    return all(torch.equal(a.state[name], b.state[name]) for name in a.state)


@pytest.mark.parametrize("privacy", [None, PrivacySettings(epsilon=5.0, clip=1.0)], ids=["plain", "dp"])
def test_random_views_repeat_and_survive_a_resume(privacy):
    saved = []

    def keep(now: Snapshot) -> None:
        tensors = {k: t.clone() for k, t in now.state.items()}
        saved.append(replace(now, state=tensors, history=list(now.history)))

    whole = run_federation(a_federation(privacy), save=keep)
    assert same(whole, run_federation(a_federation(privacy)))
    assert same(whole, run_federation(a_federation(privacy), resume=saved[0]))
    plain = a_federation(privacy)
    unaugmented = replace(plain, clients=[replace(c, augment="none") for c in plain.clients])
    assert not same(whole, run_federation(unaugmented))


def test_views_do_not_follow_the_physical_batch():
    one, other = run_federation(a_federation(None)), run_federation(a_federation(None, max_tokens=1))
    for name in one.state:
        assert torch.allclose(one.state[name], other.state[name], atol=1e-6)


# --- the backbone's input --------------------------------------------------------------------------


@pytest.fixture
def vit(tmp_path, monkeypatch):
    """A tiny ViT in a mirror, as the Hub would hold it."""
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "models" / "me" / "vit"
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(image_size=16, patch_size=4, **size)
    transformers.ViTForImageClassification(config).save_pretrained(str(folder))
    return folder


def test_the_input_is_read_from_the_backbones_files(vit):
    assert image_input("me/vit") == ImageInput(16, 3, (0.5,) * 3, (0.5,) * 3, tokens=17)
    colours = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1.0, 1.0, 2.0], "size": {"height": 16}}
    (vit / "preprocessor_config.json").write_text(json.dumps(colours))
    assert image_input("me/vit").mean == (0.1, 0.2, 0.3)
    assert image_input("me/vit").std == (1.0, 1.0, 2.0)
    (vit / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1]}))
    with pytest.raises(FedloraError, match="1 numbers in image_mean for 3 channels"):
        image_input("me/vit")
    (vit / "preprocessor_config.json").write_text("{")
    with pytest.raises(FedloraError, match="no JSON"):
        image_input("me/vit")


def test_the_kits_own_input():
    assert image_input("kit/image-tiny") == ImageInput(8, 1, (0.5,), (0.5,), tokens=17)


def description(task, model, **data):
    return {
        "model": {"backbone": model, "lora": {"rank": 2, "alpha": 2}},
        "data": {"task": task, **data},
        "split": {"clients": 2},
        "method": {"name": "ffa-lora"},
        "local": {"lr": 0.1, "steps": 1, "batch_size": 4},
        "rounds": {"rounds": 1},
    }


def test_a_run_on_digits_for_a_larger_backbone(vit):
    """Grey 8 x 8 images are resized and repeated for a backbone of 16 x 16 and three channels."""
    entry = run(RunSpec.parse(description("digits", "me/vit", eval_limit=20, augment="crop_flip")))
    assert entry.results["scores"]["validation"]["examples"] == 20


def test_augmentation_is_for_images():
    with pytest.raises(BadValue, match=r"augment='flip' is for images.*polarity"):
        RunSpec.parse(description("polarity", "kit/text-tiny", augment="flip"))
    with pytest.raises(BadValue, match="augment"):
        RunSpec.parse(description("digits", "kit/image-tiny", augment="blur"))
