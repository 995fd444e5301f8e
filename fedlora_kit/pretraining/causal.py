"""``kit/causal-tiny`` and ``kit/instruct-tiny``: small Llamas, trained from nothing.

One recipe for both: a byte-level BPE tokenizer that keeps every digit a token of its own (as LLaMA's does),
and next-token prediction on the lines, one line a sequence (``<s> line </s>``). The first is trained on the
built-in arithmetic text; see `pretraining.instruct` for the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from fedlora_kit.errors import BadValue, FedloraError
from fedlora_kit.pretraining.common import Progress, save_backbone, train
from fedlora_kit.randomness import Streams

SPECIAL = ("<s>", "<pad>", "</s>")
START, PAD, END = range(3)
#: context (may be empty) and what follows
Line = tuple[str, str]
#: token ids, and how many of them belong to the context
Row = tuple[list[int], int]


@dataclass(frozen=True)
class Recipe:
    """How a causal backbone is built and trained.

    Attributes:
        vocabulary: BPE tokens at most, the 256 bytes and the special ones included.
        steps: optimiser steps; a step sees about ``tokens`` padded tokens.
        gate: largest loss of the last steps, nats a token, at which the backbone is accepted.
        max_length: longest sequence, in tokens; longer lines are cut.
        context: weight in the loss of a context's tokens (that of the other tokens is 1): the stories are
            drawn at random, and there is little to learn in them.
    """

    vocabulary: int = 400
    hidden: int = 96
    layers: int = 3
    heads: int = 4
    inner: int = 256
    steps: int = 1800
    tokens: int = 1200
    rate: float = 3e-3
    gate: float = 0.5
    max_length: int = 256
    init_range: float = 0.05
    context: float = 0.1


def train_tokenizer(lines: Sequence[str], vocabulary: int, max_length: int) -> Any:
    """A byte-level BPE tokenizer with single digits; ``<s>`` comes first, as LLaMA's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(lines, trainer)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", START)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=max_length,
    )


def build_causal_backbone(
    lines: Sequence[Line], out: Path, recipe: Recipe, *, seed: int = 0, progress: Progress = print
) -> dict[str, Any]:
    """Pre-train on ``lines`` and write an ordinary Hugging Face folder.

    Args:
        lines: the text, one sequence a line: a context (it may be empty) and what follows.
        out: the folder; made if it is not there.

    Returns:
        recipe, parameters, and the loss of the last steps (nats a token).

    Raises:
        BadValue: fewer than 100 lines.
        FedloraError: the loss stayed above the recipe's gate; nothing is written then.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    if len(lines) < 100:
        raise BadValue(f"{len(lines)} lines are too few to pre-train on", "give at least 100")
    tokenizer = train_tokenizer(["".join(line) for line in lines], recipe.vocabulary, recipe.max_length)
    rows = _encode(tokenizer, lines, recipe.max_length)
    progress(f"tokenizer of {len(tokenizer)} tokens, {len(rows)} lines")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        intermediate_size=recipe.inner,
        max_position_embeddings=recipe.max_length,
        initializer_range=recipe.init_range,
        tie_word_embeddings=True,
        bos_token_id=START,
        pad_token_id=PAD,
        eos_token_id=END,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(Streams(seed).seed("pretrain", "weights"))
        model = LlamaForCausalLM(config)
    loss = _train(model, rows, recipe, Streams(seed).generator("pretrain", "lines"), progress)
    if not loss <= recipe.gate:
        raise FedloraError(
            f"the pre-training learned too little: {loss:.3f} nats a token, wanted at most {recipe.gate}",
            "build it with another seed",
        )
    tensors = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}  # tied to the embedding
    save_backbone(tensors, config, out)
    tokenizer.save_pretrained(str(out))
    parameters = sum(p.numel() for p in model.parameters())
    return {"recipe": asdict(recipe), "parameters": parameters, "loss": round(loss, 3)}


def _encode(tokenizer: Any, lines: Sequence[Line], max_length: int) -> list[Row]:
    """Token ids of each line, the shortest first; context and rest are tokenised apart, as tasks are."""
    contexts = tokenizer([context for context, _ in lines], verbose=False)["input_ids"]
    rests = tokenizer([rest for _, rest in lines], add_special_tokens=False, verbose=False)["input_ids"]
    rows = [([*c, *r, END][:max_length], len(c)) for c, r in zip(contexts, rests, strict=True)]
    return sorted(rows, key=lambda row: len(row[0]))


def _train(
    model: Any, rows: list[Row], recipe: Recipe, rng: np.random.Generator, progress: Progress
) -> float:
    """Train in place; returns the moving average of the loss, nats a token."""
    lengths = np.array([len(row) for row, _ in rows])
    contexts = np.array([context for _, context in rows])

    def loss_of(_step: int) -> torch.Tensor:
        start = int(rng.integers(len(rows)))  # lines of about equal length: neighbours in the sorted list
        size = max(4, recipe.tokens // int(lengths[start]))
        low = max(0, min(start, len(rows) - 8 * size))
        chosen = rng.integers(low, min(len(rows), low + 8 * size), size)
        ids = np.full((size, int(lengths[chosen].max())), PAD, dtype=np.int64)
        for i, row in enumerate(chosen):
            ids[i, : lengths[row]] = rows[row][0]
        tokens = torch.from_numpy(ids)
        logits = model(input_ids=tokens, attention_mask=(tokens != PAD).long()).logits[:, :-1]
        inside = np.arange(ids.shape[1])[None, 1:] < contexts[chosen][:, None]
        weights = torch.from_numpy(np.where(inside, recipe.context, 1.0) * (ids[:, 1:] != PAD)).float()
        losses = F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")  # (b, width - 1)
        return (losses * weights).sum() / weights.sum()

    return train(model, recipe.steps, recipe.rate, loss_of, progress)


def build_causal_tiny(out: Path, seed: int, progress: Progress) -> dict[str, Any]:
    """``kit/causal-tiny``: pre-trained on the built-in arithmetic text."""
    from fedlora_kit.data.builtin.arithmetic import corpus

    return build_causal_backbone(corpus(40_000, seed), out, Recipe(), seed=seed, progress=progress)
