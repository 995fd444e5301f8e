"""The kit's backbones: the files in the repository, and the building of new ones at toy size."""

import hashlib
import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from fedlora_kit import paths
from fedlora_kit.data.builtin import text as builtin_text
from fedlora_kit.data.builtin.digits import digits
from fedlora_kit.errors import FedloraError, UnknownName
from fedlora_kit.pretraining import build as pretrain
from fedlora_kit.pretraining import common
from fedlora_kit.pretraining.image import Recipe as ImageRecipe
from fedlora_kit.pretraining.image import build_image_tiny
from fedlora_kit.pretraining.text import Recipe, build_text_tiny

FOLDER = paths.data_dir() / "backbones"
IN_GIT = ("text-tiny", "image-tiny", "causal-tiny", "instruct-tiny")
TOY = {"layers": 1, "hidden": 16, "heads": 2, "inner": 16}


def silent(line):
    pass


def quiet(auto, folder, **options):
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return auto.from_pretrained(str(folder), local_files_only=True, **options)


# --- the files in the repository ---------------------------------------------------------------------


@pytest.mark.parametrize("name", IN_GIT)
def test_digests_and_records(name):
    record = json.loads((FOLDER / "DIGESTS.json").read_text(encoding="utf-8"))[f"kit/{name}"]
    weights = (FOLDER / name / "model.safetensors").read_bytes()
    assert record["sha256"] == hashlib.sha256(weights).hexdigest()
    assert record["command"] == f"fedlora backbones build kit/{name}"
    assert record["recipe"]["steps"] > 0
    assert record["seconds"] > 0


def test_they_are_small():
    assert sum(f.stat().st_size for name in IN_GIT for f in (FOLDER / name).iterdir()) < 3.6e6


@pytest.mark.parametrize("name", ["text-tiny", "image-tiny"])
def test_weights_load_as_float32_and_only_the_head_is_new(name):
    from safetensors.torch import load_file
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

    auto = AutoModelForSequenceClassification if name == "text-tiny" else AutoModelForImageClassification
    model, info = quiet(auto, FOLDER / name, num_labels=3, output_loading_info=True)
    assert all(key.startswith("classifier.") for key in info["missing_keys"])
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    stored = load_file(FOLDER / name / "model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.float16}
    loaded = model.base_model.state_dict()
    for key, value in stored.items():
        assert torch.equal(loaded[key], value.float()), key


def test_tokenizer_joins_pairs_as_roberta_does():
    from transformers import AutoTokenizer

    tokenizer = quiet(AutoTokenizer, FOLDER / "text-tiny")
    tokens = tokenizer("The film was dull", "somebody is zzz", padding="max_length", max_length=12)
    joined = " ".join(tokenizer.convert_ids_to_tokens(tokens["input_ids"]))
    assert joined == "<s> the film was dull </s> </s> somebody is <unk> </s> <pad>"
    assert tokens["attention_mask"] == [1] * 11 + [0]
    assert tokenizer.mask_token_id == 4
    for word in builtin_text.vocabulary():
        assert tokenizer(word)["input_ids"][1] != tokenizer.unk_token_id


def test_no_example_is_cut():
    from transformers import AutoTokenizer

    tokenizer = quiet(AutoTokenizer, FOLDER / "text-tiny")
    for task in builtin_text.NUM_LABELS:
        columns, _ = builtin_text.generate(task, 500, 0, "train")
        assert max(len(ids) for ids in tokenizer(*columns)["input_ids"]) <= tokenizer.model_max_length


@pytest.mark.parametrize("task", ["paraphrase", "answerable"])
def test_a_linear_probe_of_the_first_token_sees_what_pre_training_gave(task):
    from sklearn.linear_model import LogisticRegression
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    tokenizer = quiet(AutoTokenizer, FOLDER / "text-tiny")
    torch.manual_seed(0)
    random = AutoModel.from_config(quiet(AutoConfig, FOLDER / "text-tiny")).eval()
    trained = quiet(AutoModel, FOLDER / "text-tiny").eval()

    def accuracy(model):
        features, labels = [], []
        for part, n in (("train", 600), ("validation", 400)):
            columns, y = builtin_text.generate(task, n, 0, part)
            with torch.no_grad():
                inputs = tokenizer(*columns, padding=True, return_tensors="pt")
                features.append(model(**inputs).last_hidden_state[:, 0].numpy())
            labels.append(y)
        probe = LogisticRegression(max_iter=500).fit(features[0], labels[0])
        return probe.score(features[1], labels[1])

    assert accuracy(trained) > 0.7
    assert accuracy(random) < 0.6


# --- building at toy size ------------------------------------------------------------------------------


def test_text_build_is_deterministic_and_seeded(tmp_path):
    recipe = Recipe(**TOY, steps=3, batch=8, lines=200, gate=0.0)
    digests = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(seed)
        record = build_text_tiny(tmp_path / folder, seed, silent, recipe)
        digests.append(pretrain.file_digest(tmp_path / folder / "model.safetensors"))
    assert digests[0] == digests[1] != digests[2]
    assert set(record["cloze_accuracy"]) == set(builtin_text.NUM_LABELS)


def test_the_gates_refuse_a_plateau_and_write_nothing(tmp_path):
    with pytest.raises(FedloraError, match="plateau"):
        build_text_tiny(tmp_path / "t", 0, silent, Recipe(**TOY, steps=2, batch=8, lines=200))
    with pytest.raises(FedloraError, match="plateau"):
        build_image_tiny(tmp_path / "i", 0, silent, ImageRecipe(**TOY, steps=2, batch=8))
    assert not any(tmp_path.iterdir())


def test_build_backbone_records_restores_the_thread_count_and_the_generator(tmp_path, monkeypatch):
    from fedlora_kit.pretraining import text as pretrain_text

    monkeypatch.setattr(pretrain_text, "Recipe", lambda: Recipe(**TOY, steps=2, batch=8, lines=200, gate=0.0))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    record = pretrain.build_backbone("kit/text-tiny", tmp_path / "text-tiny", 0, silent)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    noted = json.loads((tmp_path / "DIGESTS.json").read_text(encoding="utf-8"))
    assert noted == {"kit/text-tiny": record}
    assert record["sha256"] == pretrain.file_digest(tmp_path / "text-tiny" / "model.safetensors")


def test_unknown_backbone(tmp_path):
    with pytest.raises(UnknownName, match="kit/text-tin"):
        pretrain.build_backbone("kit/text-tin", tmp_path, 0, silent)


def test_cool_down():
    factors = [common.cool_down(s, 1000) for s in range(1000)]
    assert factors[0] == pytest.approx(0.01)
    assert factors[100:600] == [1.0] * 500
    assert min(factors[100:]) == 0.02
    assert all(a >= b for a, b in pairwise(factors[600:]))


def test_image_backbone_saw_neither_the_federated_images_nor_their_pose():
    from fedlora_kit.data.builtin.digits import examples
    from fedlora_kit.pretraining.image import TURNS

    assert 1 not in TURNS
    seen = {image.tobytes() for turn in TURNS for image in digits("pretrain", turn)[0]}
    for part in ("train", "test"):
        assert not seen & {image.tobytes() for image in examples(part).columns[0]}


def test_weights_that_overflow_half_precision_are_refused(tmp_path):
    from transformers import RobertaConfig

    layer = torch.nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.fill_(np.float32(1e6))
    with pytest.raises(FedloraError, match="float16"):
        common.save_backbone(layer.state_dict(), RobertaConfig(), tmp_path / "x")
