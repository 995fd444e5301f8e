"""Questions and answers, instructions and responses, as a causal language model reads them.

Prompt and answer are tokenised apart and joined, so that the first answered token is where the prompt ends,
whatever the tokenizer would merge across that border. An answer ends with the end-of-sequence token.

    tokens   <s> Q Q Q Q | A A A </s>        for training: padded on the right
    labels    -  -  -  -  - A A A </s>       "-" is IGNORED: the loss counts the answer only
    prompt   <s> Q Q Q Q                     for generation: padded on the left
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from fedlora_kit.data.encoded import Arrays, Batch, Indices, masked, unknown_share
from fedlora_kit.data.prompts import final_number, template
from fedlora_kit.data.task import Examples, Metric, TooLong
from fedlora_kit.data.transfer import to_device
from fedlora_kit.errors import BadValue

#: label of a token that the loss does not count
IGNORED = -100


class AnswerTokens(NamedTuple):
    """The t tokens of a batch's answers, in order of the examples.

    Attributes:
        rows, places: int64 (t,): the example, and the place in it at which the token is predicted.
        tokens: int64 (t,).
        lengths: int64 (b,): tokens of each example's answer.
        width: of the batch.
    """

    rows: torch.Tensor
    places: torch.Tensor
    tokens: torch.Tensor
    lengths: torch.Tensor
    width: int


@dataclass(frozen=True)
class EncodedCausal:
    """n question-answer pairs without padding.

    Attributes:
        tokens: flat int32 array of all tokens.
        offsets: int64 (n + 1,); example i is ``tokens[offsets[i]:offsets[i + 1]]``.
        prompt_lengths: int64 (n,); tokens of example i before its answer.
        labels: int64 (n,); for the partitioners (0 throughout where a task has no classes).
        references: of each example, the answers that count as right; the first is the one in ``tokens``.
        tokenizer: turns generated tokens back into text.
        max_new_tokens: tokens that a generated answer may have.
        metric: how generated answers are scored (see `training.scoring`).
        left_out: examples that were longer than allowed and are not among the n.
        unknown: share of the split's tokens that the tokenizer does not know; 0 in a part of it.
        groups: (n,) group of each example, or None; for the partitioners.
    """

    tokens: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    prompt_lengths: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    references: tuple[tuple[str, ...], ...]
    tokenizer: Any
    max_new_tokens: int
    metric: Metric = "final_number"
    left_out: int = 0
    groups: npt.NDArray[Any] | None = None
    unknown: float = 0.0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each example, prompt and answer, shape (n,)."""
        return np.diff(self.offsets)

    @property
    def end(self) -> int:
        """Id of the end-of-sequence token."""
        return int(self.tokenizer.eos_token_id)

    @property
    def pad(self) -> int:
        """Id that fills the padding; it is masked everywhere."""
        pad = self.tokenizer.pad_token_id
        return self.end if pad is None else int(pad)

    def batch(self, indices: Indices, device: torch.device) -> tuple[Batch, torch.Tensor]:
        """Inputs, right-padded, and labels, both int64 (b, width); `IGNORED` outside the answer."""
        ids, mask, answer = self._whole(indices)
        labels = np.where(answer, ids, IGNORED)
        placed = to_device({**masked(_inputs(ids, mask)), "labels": labels}, device)
        return placed, placed.pop("labels")

    def answers(self, indices: Indices, device: torch.device) -> tuple[Batch, AnswerTokens]:
        """Inputs, right-padded, int64 (b, width), and where in them the loss counts.

        There is no attention mask: what is padded follows what counts, and a causal model looks back only.
        """
        inputs, answer, _ = answers_on(self.answer_arrays(indices), {}, device)
        return inputs, answer

    def answer_arrays(self, indices: Indices) -> Arrays:
        """What `answers` gives, on the host: "input_ids", and the fields of `AnswerTokens`."""
        ids, _, answer = self._whole(indices)
        rows, places = np.nonzero(answer)
        fields = {"rows": rows, "places": places - 1, "tokens": ids[rows, places], "lengths": answer.sum(1)}
        return {"input_ids": ids, **fields}

    def prompts(self, indices: Indices, device: torch.device) -> Batch:
        """The prompts alone, left-padded, int64 (b, width): generation goes on at the right edge."""
        return to_device(_inputs(*self._padded(indices, self.prompt_lengths[indices], left=True)), device)

    def decode(self, tokens: list[int]) -> str:
        """Generated tokens as text, special tokens left out."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()

    def subset(self, indices: Indices) -> EncodedCausal:
        """The examples at ``indices`` as a data set of their own."""
        starts, lengths = self.offsets[indices], self.lengths[indices]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return replace(
            self,
            tokens=self.tokens[source],
            offsets=offsets,
            prompt_lengths=self.prompt_lengths[indices],
            labels=self.labels[indices],
            references=tuple(self.references[i] for i in indices),
            left_out=0,
            unknown=0.0,
            groups=None if self.groups is None else self.groups[indices],
        )

    def _whole(
        self, indices: Indices
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Ids, mask, and which tokens are of the answer (never the first token), all (b, width)."""
        ids, mask = self._padded(indices, self.lengths[indices], left=False)
        first = np.maximum(self.prompt_lengths[indices], 1)[:, None]  # nothing predicts the first token
        return ids, mask, mask & (np.arange(ids.shape[1])[None, :] >= first)

    def _padded(
        self, indices: Indices, lengths: npt.NDArray[np.int64], *, left: bool
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """The first ``lengths`` tokens of each example: ids and mask, both (b, width)."""
        width = int(lengths.max())
        places = np.arange(width)[None, :] - ((width - lengths)[:, None] if left else 0)
        mask = (places >= 0) & (places < lengths[:, None])
        source = np.where(mask, self.offsets[indices][:, None] + places, 0)
        return np.where(mask, self.tokens[source], self.pad).astype(np.int64), mask


def answers_on(arrays: Arrays, further: Arrays, device: torch.device) -> tuple[Batch, AnswerTokens, Batch]:
    """`EncodedCausal.answer_arrays` on a device: the model's inputs, where the loss counts, and all of it.

    Args:
        further: what goes over in the same copy, under other names.
    """
    placed = to_device({**arrays, **further}, device)
    width = arrays["input_ids"].shape[1]
    answer = AnswerTokens(placed["rows"], placed["places"], placed["tokens"], placed["lengths"], width)
    return {"input_ids": placed["input_ids"]}, answer, placed


def joined_answers(parts: Sequence[Arrays], pad: int) -> Arrays:
    """`EncodedCausal.answer_arrays` of several batches below each other, as wide as the widest."""
    width = max(part["input_ids"].shape[1] for part in parts)
    before = np.cumsum([0, *(len(part["input_ids"]) for part in parts)])
    moved = [{**part, "rows": part["rows"] + start} for part, start in zip(parts, before, strict=False)]
    ids = [
        np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=pad)
        for a in (part["input_ids"] for part in parts)
    ]
    fields = AnswerTokens._fields[:-1]
    return {"input_ids": np.concatenate(ids), **{n: np.concatenate([p[n] for p in moved]) for n in fields}}


def _inputs(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_]) -> Arrays:
    return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}


def encode_causal(
    examples: Examples,
    tokenizer: Any,
    *,
    prompt: str,
    max_length: int,
    max_new_tokens: int,
    metric: Metric = "final_number",
    too_long: TooLong = "error",
) -> EncodedCausal:
    """Tokenise prompts and answers; nothing is ever cut, for a cut answer has lost its end.

    Args:
        examples: columns (question, answer) or (instruction, input, response). With ``metric="final_number"``
            each answer states its final number as ``#### n``.
        prompt: name of a template (see `data.prompts`).
        max_length: tokens of the longest example, prompt and answer and special tokens; the tokenizer's limit
            holds as well, and with it the model's (see `models.tokenizer.load_tokenizer`).
        max_new_tokens: tokens that a generated answer may have.
        metric: how generated answers will be scored.
        too_long: what becomes of longer examples: "error", or "leave_out" (counted in ``left_out``).

    Raises:
        UnknownName: no such template.
        BadValue: an answer is empty or has no final number; an example is longer than ``max_length``, or all
            are.
    """
    *asked_columns, answers = ([str(text) for text in column] for column in examples.columns)
    _check_answers(answers, metric)
    frame = template(prompt)
    prompts = [frame.fill(*texts) for texts in zip(*asked_columns, strict=True)]
    asked = tokenizer(prompts, verbose=False)["input_ids"]
    said = tokenizer(answers, add_special_tokens=False, verbose=False)["input_ids"]
    asked = [ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids for ids in asked]
    rows = [[*q, *a, tokenizer.eos_token_id] for q, a in zip(asked, said, strict=True)]
    kept = _short_enough(rows, min(max_length, int(tokenizer.model_max_length)), too_long, tokenizer)
    lengths = np.array([len(rows[i]) for i in kept], dtype=np.int64)
    references = examples.references or tuple((answer,) for answer in answers)
    tokens = np.concatenate([np.asarray(rows[i], np.int32) for i in kept])
    return EncodedCausal(
        tokens,
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array([len(asked[i]) for i in kept], dtype=np.int64),
        examples.labels[kept],
        tuple(references[i] for i in kept),
        tokenizer,
        max_new_tokens,
        metric,
        len(rows) - len(kept),
        None if examples.groups is None else examples.groups[kept],
        unknown_share(tokenizer, tokens),
    )


def _check_answers(answers: list[str], metric: Metric) -> None:
    wordless = [i for i, answer in enumerate(answers) if not answer.strip()]
    if wordless:
        raise BadValue(f"{len(wordless)} answers are empty, such as number {wordless[0]}", "leave them out")
    numberless = [i for i, answer in enumerate(answers) if final_number(answer) is None]
    if metric == "final_number" and numberless:
        raise BadValue(
            f"{len(numberless)} answers state no final number, such as number {numberless[0]}",
            "end each answer with a line '#### n'",
        )


def _short_enough(rows: list[list[int]], limit: int, too_long: TooLong, tokenizer: Any) -> Indices:
    """Which rows have at most ``limit`` tokens, by the rule ``too_long``."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    kept = np.flatnonzero(lengths <= limit)
    if len(kept) < len(rows) and (too_long == "error" or len(kept) == 0):
        longest, most = int(lengths.max()), int(tokenizer.model_max_length)
        raise BadValue(
            f"{len(rows) - len(kept)} of {len(rows)} examples are longer than max_length={limit} "
            f"tokens; the longest has {longest}",
            f"set data.max_length to {longest} or more"
            if longest <= most
            else f"leave long examples out of the task: the model takes {most} tokens",
        )
    return kept
