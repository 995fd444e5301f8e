"""``kit/text-tiny``: a small RoBERTa, pre-trained on the built-in corpus from nothing, on one core.

Two objectives share the masked-LM head. In *word* lines some informative words are masked and guessed
(Devlin et al. 2019), the closing remark in view. In *remark* lines the remark is masked or cut off, and both
its place and the first token have to guess it; that makes the first token's vector, which classifiers read,
a summary of the line (as in Condenser, Gao and Callan 2021). Three things were needed to leave the plateau on
which every pair looks alike: short lines first (a curriculum), function words left out of some lines, and
queries and keys that start equal, so that equal words attend to each other (mimetic initialisation, Trockman
and Kolter 2023).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from fedlora_kit.data.builtin import text as builtin_text
from fedlora_kit.data.builtin.grammar import REMARKS
from fedlora_kit.errors import FedloraError
from fedlora_kit.pretraining.common import Progress, save_backbone, train

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
START, PAD, END, UNKNOWN, MASK = range(5)
IGNORED = -100
MAX_LENGTH = 48


@dataclass(frozen=True)
class Recipe:
    """How ``kit/text-tiny`` is made.

    Attributes:
        layers, hidden, heads, inner: the architecture.
        head_range: ``initializer_range`` written into the configuration. It matters only for what is drawn
            later: through a frozen random head of a smaller scale SGD gets nowhere.
        lines, steps, batch: corpus lines; optimiser steps; lines a step.
        rate: AdamW's largest learning rate.
        fragments, ramp: share of the steps on the shortest lines only, and of those that let longer ones in.
        word_lines: how many of the lines that have something to mask are word lines.
        attention_range: standard deviation of the equal queries and keys at the start.
        gate: least cloze accuracy of the remark, from the first token (chance: .5, entailment .33).
    """

    layers: int = 4
    hidden: int = 64
    heads: int = 4
    inner: int = 192
    init_range: float = 0.05
    head_range: float = 0.2
    lines: int = 60_000
    steps: int = 4800
    batch: int = 64
    rate: float = 1.5e-3
    fragments: float = 0.25
    shortest: float = 0.28
    ramp: float = 0.3
    word_lines: float = 0.15
    attention_range: float = 0.1
    gate: float = 0.6


def build_text_tiny(out: Path, seed: int, progress: Progress, recipe: Recipe | None = None) -> dict[str, Any]:
    """Pre-train and write the backbone; see :func:`fedlora_kit.pretraining.build.build_backbone`."""
    recipe = recipe or Recipe()
    vocabulary = [*SPECIAL, *builtin_text.vocabulary()]
    ids = {word: i for i, word in enumerate(vocabulary)}
    model = _new_model(len(vocabulary), recipe)
    corpus = _Corpus(builtin_text.corpus(recipe.lines, seed), ids)
    _train(model, corpus, recipe, np.random.default_rng(seed), progress)
    held_out = _whole_lines(2000, seed + 10_000)
    figures = cloze_accuracy(model, held_out, ids)
    progress(f"cloze accuracy of the remark: {figures}")
    if min(figures.values()) < recipe.gate:
        raise FedloraError(
            f"the pre-training stayed on its plateau: cloze accuracy {figures}, wanted {recipe.gate}",
            "build it with another seed",
        )
    model.config.initializer_range = recipe.head_range
    model.config.architectures = ["RobertaModel"]
    save_backbone(model.roberta.state_dict(), model.config, out)
    _save_tokenizer(vocabulary, out)
    parameters = sum(p.numel() for p in model.roberta.parameters())
    return {"recipe": asdict(recipe), "cloze_accuracy": figures, "parameters": parameters}


def _save_tokenizer(vocabulary: list[str], out: Path) -> None:
    """A word-level tokenizer that joins pairs as RoBERTa does, as ``AutoTokenizer`` reads it.

    Args:
        vocabulary: all words, the five special ones first; a word's place is its id.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", END), ("<s>", START), trim_offsets=False, add_prefix_space=False
    )
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    names |= {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=MAX_LENGTH, **names)
    out.mkdir(parents=True, exist_ok=True)
    wrapped.save_pretrained(str(out))


def cloze_accuracy(model: Any, lines: list[builtin_text.Line], ids: dict[str, int]) -> dict[str, float]:
    """How often the first token's guess of the cut-off remark is a remark of the right kind, per task."""
    kinds = [
        (task, label, ids[w])
        for task, words in REMARKS.items()
        for label in range(len(words))
        for w in words[label]
    ]
    kind_of = {word: (task, label) for task, label, word in kinds}
    remarks = torch.tensor([word for _, _, word in kinds])
    right: dict[str, list[bool]] = {task: [] for task in REMARKS}
    corpus = _Corpus(lines, ids)
    model.eval()
    with torch.no_grad():
        for start in range(0, len(corpus), 250):
            rows = np.arange(start, min(start + 250, len(corpus)))
            tokens = corpus.tokens[rows].copy()
            tokens[np.arange(len(rows)), corpus.lengths[rows]] = END
            x = torch.from_numpy(tokens[:, : int(corpus.lengths[rows].max()) + 1])
            first = model.roberta(x, attention_mask=(x != PAD).long()).last_hidden_state[:, 0]
            guesses = remarks[model.lm_head(first)[:, remarks].argmax(1)].tolist()
            for row, guess in zip(rows, guesses, strict=True):
                truth = kind_of[int(corpus.remarks[row])]
                right[truth[0]].append(kind_of[guess] == truth)
    model.train()
    return {task: round(float(np.mean(hits)), 3) for task, hits in right.items() if hits}


class _Corpus:
    """Encoded lines, the shortest first.

    tokens and masking weights (n, longest), padded; lengths (n,) without the remark; remarks (n,).
    """

    def __init__(self, lines: list[builtin_text.Line], ids: dict[str, int]) -> None:
        rows: list[tuple[list[int], list[float], int]] = []
        for line in lines:
            tokens, weights = [START], [0.0]
            for i, (column, column_weights) in enumerate(zip(line.columns, line.weights, strict=True)):
                if i:
                    tokens += [END, END]
                    weights += [0.0, 0.0]
                tokens += [ids[word] for word in column.split()]
                weights += column_weights
            rows.append((tokens, weights, ids[line.remark]))
        rows.sort(key=lambda row: len(row[0]))
        self.lengths = np.array([len(tokens) for tokens, _, _ in rows])
        self.remarks = np.array([remark for _, _, remark in rows])
        self.tokens = np.full((len(rows), int(self.lengths.max()) + 2), PAD, dtype=np.int64)
        self.weights = np.zeros(self.tokens.shape, dtype=np.float32)
        for i, (tokens, weights, _) in enumerate(rows):
            self.tokens[i, : len(tokens)] = tokens
            self.weights[i, : len(tokens)] = weights

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(
        self, rows: npt.NDArray[np.int64], word_lines: float, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, both (len(rows), length); a target of ``IGNORED`` is not scored."""
        tokens, weights = self.tokens[rows].copy(), self.weights[rows]
        lengths, remarks, each = self.lengths[rows], self.remarks[rows], np.arange(len(rows))
        targets = np.full_like(tokens, IGNORED)
        words = (rng.random(len(rows)) < word_lines) & (weights.sum(1) > 0)
        cut = ~words & (rng.random(len(rows)) < 0.7)
        masked = (rng.random(tokens.shape) < weights) & words[:, None]
        targets[masked] = tokens[masked]
        tokens[masked] = MASK
        tokens[each, lengths] = np.where(cut, END, np.where(words, remarks, MASK))
        whole = each[~cut]
        tokens[whole, lengths[whole] + 1] = END
        asked = each[~cut & ~words]
        targets[asked, lengths[asked]] = remarks[asked]
        targets[each[~words], 0] = remarks[~words]
        longest = int(lengths.max()) + 2
        return torch.from_numpy(tokens[:, :longest]), torch.from_numpy(targets[:, :longest])


def _new_model(words: int, recipe: Recipe) -> Any:
    from transformers import RobertaConfig, RobertaForMaskedLM

    config = RobertaConfig(
        vocab_size=words,
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.inner,
        max_position_embeddings=MAX_LENGTH + 2,
        type_vocab_size=1,
        pad_token_id=PAD,
        bos_token_id=START,
        eos_token_id=END,
        initializer_range=recipe.init_range,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = RobertaForMaskedLM(config)
    with torch.no_grad():
        for layer in model.roberta.encoder.layer:
            attention = layer.attention.self
            attention.query.weight.normal_(0.0, recipe.attention_range)
            attention.key.weight.copy_(attention.query.weight)
    return model


def _train(model: Any, corpus: _Corpus, recipe: Recipe, rng: np.random.Generator, progress: Progress) -> None:
    def loss_of(step: int) -> torch.Tensor:
        along = max(0.0, (step / recipe.steps - recipe.fragments) / recipe.ramp)
        reach = min(1.0, recipe.shortest + (1 - recipe.shortest) * along)
        rows = rng.integers(0, int(len(corpus) * reach), recipe.batch)
        tokens, targets = corpus.batch(rows, recipe.word_lines, rng)
        hidden = model.roberta(tokens, attention_mask=(tokens != PAD).long()).last_hidden_state
        scored = targets != IGNORED
        return F.cross_entropy(model.lm_head(hidden[scored]), targets[scored])

    train(model, recipe.steps, recipe.rate, loss_of, progress)


def _whole_lines(n: int, seed: int) -> list[builtin_text.Line]:
    return [line for line in builtin_text.corpus(n, seed) if sum(len(c.split()) for c in line.columns) > 6]
