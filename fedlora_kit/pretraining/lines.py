"""A small RoBERTa pre-trained on any lines of text: what real data gets on a machine without a Hub.

The embeddings start as word vectors from co-occurrence counts (`word_vectors`), and keys equal to queries
(like attends to like). Three objectives follow at once, all without labels: masked words (Devlin et al.
2019, in RoBERTa's format); the same words guessed from the first token alone, which makes it a summary of
the line; and, for lines that are pairs, whether the second sentence belongs to the first or was drawn from
another line (some of them share a rare word with the first, or a glance at the topic would do). The last
makes the model compare the two sentences, which masked words alone do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedlora_kit.errors import BadValue
from fedlora_kit.pretraining.common import cool_down
from fedlora_kit.pretraining.word_vectors import word_vectors
from fedlora_kit.randomness import Streams

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
START, PAD, END, _, MASK = range(5)
Line = tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """How the backbone is built and trained.

    Attributes:
        vocabulary: byte-level BPE tokens, trained on the lines.
        steps: optimiser steps; a step sees ``tokens`` padded tokens.
        masked: share of the tokens that are to be predicted (all of them replaced by the mask).
        swapped: share of the pairs whose second sentence is another line's.
        alike: share of the swapped sentences that have a rare word in common with the first.
        summary: weight of the words guessed from the first token, beside 1 for the masked words.
        initializer_range, attention_range: scale of the weights, and of queries and keys, before training.
        head_range: the scale written into the configuration, at which a random head is drawn later (large
            enough for plain SGD to work).
        max_length: tokens a line; longer ones are cut.
    """

    vocabulary: int = 6000
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    intermediate: int = 256
    steps: int = 4000
    tokens: int = 2048
    lr: float = 1e-3
    masked: float = 0.2
    swapped: float = 0.5
    alike: float = 0.3
    max_length: int = 64
    summary: float = 1.0
    initializer_range: float = 0.05
    attention_range: float = 0.1
    head_range: float = 0.2


def train_tokenizer(lines: Sequence[Line], vocabulary: int, max_length: int) -> Any:
    """A byte-level BPE tokenizer on the lines, wrapped for transformers; encodes pairs as RoBERTa does."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator((sentence for line in lines for sentence in line), trainer)
    core.post_processor = processors.RobertaProcessing(("</s>", END), ("<s>", START), trim_offsets=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=max_length,
    )


def build_text_backbone(
    lines: Sequence[Line],
    out: Path,
    recipe: Recipe | None = None,
    *,
    seed: int = 0,
    progress: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Pre-train on ``lines`` and write an ordinary Hugging Face folder.

    Args:
        lines: one or two sentences each; unlabelled.
        out: the folder; made if it is not there.
        progress: takes a line of text now and then.

    Returns:
        steps, seconds, the loss of masked words and the accuracy of matching pairs over the last steps.

    Raises:
        BadValue: fewer than 100 lines.
    """
    from transformers import RobertaConfig, RobertaForMaskedLM

    recipe = recipe or Recipe()
    if len(lines) < 100:
        raise BadValue(f"{len(lines)} lines are too few to pre-train on", "give at least 100")
    clock = time.perf_counter()
    tokenizer = train_tokenizer(lines, recipe.vocabulary, recipe.max_length)
    sides = [[np.asarray(ids, np.int64) for ids in _encode(tokenizer, lines, side)] for side in (0, 1)]
    progress(f"tokenizer of {len(tokenizer)} tokens, {len(lines)} lines")
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.intermediate,
        max_position_embeddings=recipe.max_length + 2,
        type_vocab_size=1,
        pad_token_id=PAD,
        bos_token_id=START,
        eos_token_id=END,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=recipe.initializer_range,
    )
    sentences = [ids for side in sides for ids in side if len(ids)]
    vectors = word_vectors(sentences, len(tokenizer), recipe.hidden)
    progress("word vectors from co-occurrence counts")
    rng = Streams(seed).generator("pretrain", "lines")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(Streams(seed).seed("pretrain", "weights"))
        model = RobertaForMaskedLM(config)
        match = torch.nn.Linear(recipe.hidden, 2)
        _start(model, vectors, recipe)
    model.train()
    figures = _train(model, match, sides, recipe, rng, progress)
    out.mkdir(parents=True, exist_ok=True)
    model.roberta.config.initializer_range = recipe.head_range
    model.roberta.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return {"steps": recipe.steps, "seconds": time.perf_counter() - clock, **figures}


def _start(model: Any, vectors: npt.NDArray[np.float32], recipe: Recipe) -> None:
    """Word vectors into the embeddings, small positions, and keys that equal the queries."""
    embeddings = model.roberta.embeddings
    scale = recipe.initializer_range * recipe.hidden**0.5
    with torch.no_grad():
        known = torch.from_numpy(np.abs(vectors).sum(1) > 0)
        embeddings.word_embeddings.weight[known] = scale * torch.from_numpy(vectors)[known]
        embeddings.position_embeddings.weight.mul_(0.3)
        for layer in model.roberta.encoder.layer:
            attention = layer.attention.self
            attention.query.weight.normal_(0.0, recipe.attention_range)
            attention.key.weight.copy_(attention.query.weight)


def _encode(tokenizer: Any, lines: Sequence[Line], side: int) -> list[list[int]]:
    """Token ids of one side of each line, without special tokens; empty where a line has no second side."""
    texts = [line[side] if len(line) > side else "" for line in lines]
    return tokenizer(texts, add_special_tokens=False)["input_ids"]  # type: ignore[no-any-return]


def _train(
    model: Any,
    match: torch.nn.Module,
    sides: list[list[npt.NDArray[np.int64]]],
    recipe: Recipe,
    rng: np.random.Generator,
    progress: Callable[[str], None],
) -> dict[str, float]:
    optimizer = torch.optim.AdamW(
        [*model.parameters(), *match.parameters()], lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.01
    )
    lengths = np.array([min(recipe.max_length, len(a) + len(b) + 4) for a, b in zip(*sides, strict=True)])
    swaps = _Swaps(sides[1], recipe.alike)
    words, matches = 0.0, 0.5
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * cool_down(step, recipe.steps, decay=0.7)
        ids, swapped, pairs = _batch(sides, lengths, swaps, recipe, rng)
        hidden_words = (rng.random(ids.shape) < recipe.masked) & (ids > MASK)
        inputs = torch.from_numpy(np.where(hidden_words, MASK, ids))
        hidden = model.roberta(inputs, attention_mask=torch.from_numpy((ids != PAD).astype(np.int64)))[0]
        # swapped pairs carry no sense from one side to the other: words are asked for in the others only,
        # but hidden in all, or the masks themselves would tell which is which
        where = torch.from_numpy(hidden_words & ~swapped[:, None])
        loss = torch.zeros(())
        if bool(where.any()):
            wanted = torch.from_numpy(ids)[where]
            predicted = model.lm_head(hidden[where])  # (masked, vocabulary)
            loss = torch.nn.functional.cross_entropy(predicted, wanted)
            words = 0.98 * words + 0.02 * float(loss.detach()) if step else float(loss.detach())
            summary = model.lm_head(hidden[:, 0])[where.nonzero()[:, 0]]  # the line's own first token
            loss = loss + recipe.summary * torch.nn.functional.cross_entropy(summary, wanted)
        if pairs.any():
            judged = match(hidden[torch.from_numpy(pairs), 0])  # (pairs, 2)
            truth = torch.from_numpy(swapped[pairs].astype(np.int64))
            loss = loss + torch.nn.functional.cross_entropy(judged, truth)
            matches = 0.98 * matches + 0.02 * float((judged.argmax(1) == truth).float().mean())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 200 == 0 or step + 1 == recipe.steps:
            progress(f"step {step + 1}/{recipe.steps}: masked words {words:.3f} nats, pairs {matches:.3f}")
    return {"masked_word_loss": words, "pair_accuracy": matches}


class _Swaps:
    """Draws a wrong second sentence for a first one; a share ``alike`` of them have a rare token of it."""

    def __init__(
        self, seconds: list[npt.NDArray[np.int64]], alike: float, rarest: int = 2, commonest: int = 60
    ) -> None:
        self.alike = alike
        self.all = np.flatnonzero([len(second) > 0 for second in seconds])
        holders: dict[int, list[int]] = {}
        for row in self.all:
            for token in set(seconds[row].tolist()):
                holders.setdefault(token, []).append(int(row))
        self.holders = {t: rows for t, rows in holders.items() if rarest <= len(rows) <= commonest}

    def draw(self, own: int, first: npt.NDArray[np.int64], rng: np.random.Generator) -> int:
        """The row whose second sentence is taken; not ``own`` (unless there is no other)."""
        rare = [t for t in first.tolist() if t in self.holders]
        if rare and rng.random() < self.alike:
            rows = [row for row in self.holders[int(rng.choice(rare))] if row != own]
            if rows:
                return int(rng.choice(rows))
        other = int(rng.choice(self.all))
        return other if other != own else int(rng.choice(self.all))


def _batch(
    sides: list[list[npt.NDArray[np.int64]]],
    lengths: npt.NDArray[np.int64],
    swaps: _Swaps,
    recipe: Recipe,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Lines of about equal length that fill the step's tokens: ids (b, width), swapped (b,), pairs (b,)."""
    centre = int(lengths[rng.integers(len(lengths))])  # by frequency: every line is as likely as any other
    near = np.flatnonzero(np.abs(lengths - centre) <= 2)
    size = max(8, recipe.tokens // centre)
    rows = rng.choice(near, size=min(size, len(near)), replace=False)
    pairs = np.array([len(sides[1][i]) > 0 for i in rows])
    swapped = pairs & (rng.random(len(rows)) < recipe.swapped)
    texts = []
    for i, swap in zip(rows, swapped, strict=True):
        second = sides[1][swaps.draw(int(i), sides[0][i], rng) if swap else i]
        texts.append(_join(sides[0][i], second, recipe.max_length))
    ids = np.full((len(texts), max(map(len, texts))), PAD, np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
    return ids, swapped, pairs


def _join(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], max_length: int) -> list[int]:
    """``<s> first </s>`` or ``<s> first </s></s> second </s>``, the longer side cut first."""
    if not len(second):
        return [START, *first[: max_length - 2], END]
    room = max_length - 4
    keep_first = max(room - len(second), min(len(first), room // 2))
    first = first[:keep_first]
    return [START, *first, END, END, *second[: room - len(first)], END]


def build_text_mirror(out: Path, seed: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """``kit/text-mirror``: pre-trained on the training sentences of SST-2 and QNLI, without their labels.

    For machines without a Hub: the text comes from the mirror that ``FEDLORA_HUB`` names. Question and
    sentence of QNLI form a pair, whatever their label.
    """
    from fedlora_kit.data.sources import load_split
    from fedlora_kit.data.tasks import get_task

    lines: list[Line] = []
    for name in ("sst2", "qnli"):
        columns = load_split(get_task(name), "train").columns
        lines += [tuple(str(part) for part in row) for row in zip(*columns, strict=True)]
    return build_text_backbone(lines, out, seed=seed, progress=progress)
