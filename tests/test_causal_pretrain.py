"""The kit's causal backbones: the one in the repository, and building at toy size."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedlora_kit import paths
from fedlora_kit.data import get_task, load_task
from fedlora_kit.data.builtin.arithmetic import corpus
from fedlora_kit.data.encoded_causal import encode_causal
from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.models.backbones import load_backbone
from fedlora_kit.models.tokenizer import load_tokenizer
from fedlora_kit.pretraining.causal import Recipe, build_causal_backbone

FOLDER = paths.data_dir() / "backbones" / "causal-tiny"
TOY = Recipe(
    vocabulary=300, hidden=16, layers=1, heads=2, inner=16, steps=4, tokens=200, gate=99.0, max_length=64
)


def silent(line):
    pass


def test_the_stored_weights_are_the_models():
    model = load_backbone("kit/causal-tiny", 1, 0)
    stored = load_file(FOLDER / "model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.float16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    for name, value in stored.items():
        assert torch.equal(model.state_dict()[name], value.float()), name
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert (FOLDER / "model.safetensors").stat().st_size < 1e6


def test_digits_are_single_tokens_and_text_comes_back():
    tokenizer = load_tokenizer("kit/causal-tiny")
    text = "At first there were 13 coins.\n13-8=5\n#### 5"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    pieces = [tokenizer.decode([i]) for i in ids[1:]]
    assert all(re.fullmatch(r"\d|\D+", piece) for piece in pieces)


def test_every_built_in_problem_fits_its_limits():
    task = get_task("arithmetic")
    data = encode_causal(
        load_task(task).train,
        load_tokenizer("kit/causal-tiny"),
        prompt=task.prompt,
        max_length=task.max_length,
        max_new_tokens=task.max_new_tokens,
    )
    assert int((data.lengths - data.prompt_lengths).max()) <= task.max_new_tokens


@torch.no_grad()
def test_the_backbone_works_out_held_out_statements():
    model, tokenizer = load_backbone("kit/causal-tiny", 1, 0), load_tokenizer("kit/causal-tiny")
    right = []
    for context, rest in corpus(60, seed=10_000):
        if not context:
            continue
        prompt = tokenizer(context, return_tensors="pt")["input_ids"]
        length = len(tokenizer(rest)["input_ids"])
        said = model.generate(prompt, max_new_tokens=length, do_sample=False, pad_token_id=1)
        text = tokenizer.decode(said[0, prompt.shape[1] :], skip_special_tokens=True)
        right.append(re.findall(r".*=.*", text) == re.findall(r".*=.*", rest))
    assert np.mean(right) > 0.85


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("causal")
    return out, build_causal_backbone(corpus(200, 0), out, TOY, progress=silent)


def test_building_is_deterministic(built, tmp_path):
    out, figures = built
    assert figures["recipe"]["steps"] == 4
    build_causal_backbone(corpus(200, 0), tmp_path, TOY, progress=silent)
    assert (tmp_path / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    build_causal_backbone(corpus(200, 0), tmp_path, TOY, seed=1, progress=silent)
    assert (tmp_path / "model.safetensors").read_bytes() != (out / "model.safetensors").read_bytes()


def test_what_learned_nothing_is_not_written(tmp_path):
    with pytest.raises(BadValue, match="20 lines are too few"):
        build_causal_backbone(corpus(20, 0), tmp_path / "a", TOY, progress=silent)
    strict = Recipe(**{**TOY.__dict__, "gate": 0.1})
    with pytest.raises(FedloraError, match="learned too little"):
        build_causal_backbone(corpus(200, 0), tmp_path / "b", strict, progress=silent)
    assert not (tmp_path / "b").exists()


@torch.no_grad()
def test_the_instruction_backbone_knows_the_skills_but_not_the_instructions():
    from fedlora_kit.data.builtin import instructions as builtin_instructions

    model, tokenizer = load_backbone("kit/instruct-tiny", 1, 0), load_tokenizer("kit/instruct-tiny")
    assert (paths.data_dir() / "backbones" / "instruct-tiny" / "model.safetensors").stat().st_size < 1.5e6

    def right(pairs, end):
        found = []
        for context, rest in pairs:
            prompt = tokenizer(context, return_tensors="pt")["input_ids"]
            length = len(tokenizer(rest)["input_ids"])
            said = model.generate(prompt, max_new_tokens=length, do_sample=False, pad_token_id=1)
            text = tokenizer.decode(said[0, prompt.shape[1] :], skip_special_tokens=True)
            found.append(text.strip() == rest + end)
        return np.mean(found)

    assert right(builtin_instructions.corpus(60, seed=10_000), "") > 0.75
    asked, given, said = builtin_instructions.examples("test").columns
    prompts = [f"{a}\n{g}\n" for a, g in zip(asked[:40], given[:40], strict=True)]
    assert right(zip(prompts, said[:40], strict=True), "") < 0.1


def test_every_built_in_instruction_fits_its_limits():
    task = get_task("instructions")
    data = encode_causal(
        load_task(task).train,
        load_tokenizer("kit/instruct-tiny"),
        prompt=task.prompt,
        max_length=task.max_length,
        max_new_tokens=task.max_new_tokens,
        metric=task.metric,
    )
    assert int((data.lengths - data.prompt_lengths).max()) <= task.max_new_tokens
