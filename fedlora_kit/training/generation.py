"""Greedy answers of a causal language model, many prompts at a time."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fedlora_kit.data.batches import Indices, pass_tokens, physical_batches
from fedlora_kit.data.encoded_causal import EncodedCausal
from fedlora_kit.training.precision import forward, products


@torch.no_grad()
def generate(
    model: nn.Module, data: EncodedCausal, device: torch.device, max_tokens: int, precision: str = "fp32"
) -> list[str]:
    """The greedy answer to each question of ``data``, in its order; the model is left as it was found.

    Each step takes the likeliest token; an answer ends with the end-of-sequence token, or after
    ``data.max_new_tokens``.

    Args:
        max_tokens: padded tokens a batch, prompt and answer; changes memory and speed only.
        precision: of the passes (see `training.precision`); the likeliest token is that of float32 logits.
    """
    training = model.training
    model.eval()
    answers = [""] * len(data)
    lengths = data.prompt_lengths + data.max_new_tokens
    for indices in physical_batches(lengths, np.arange(len(data)), max_tokens, pass_tokens(device)):
        with products(precision), forward(device, precision):
            written = _greedy(model, data, indices, device)
        for place, tokens in zip(indices, written, strict=True):
            answers[place] = data.decode(tokens)
    model.train(training)
    return answers


def _greedy(model: nn.Module, data: EncodedCausal, indices: Indices, device: torch.device) -> list[list[int]]:
    """Token ids of each answer, without the end token.

    The prompts are padded on the left, so that all go on at the same place. Positions count from each
    prompt's own first token, and the mask hides the padding: an answer does not depend on its neighbours.
    """
    prompts = data.prompts(indices, device)
    ids, mask = prompts["input_ids"], prompts["attention_mask"]  # (b, width)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    open_ = torch.ones(len(indices), dtype=torch.bool, device=device)
    cache, written = None, []
    for _ in range(data.max_new_tokens):
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        token = torch.where(open_, out.logits[:, -1].float().argmax(-1), data.end)  # (b,)
        written.append(token)
        open_ = open_ & (token != data.end)
        if not bool(open_.any()):
            break
        ids, positions = token[:, None], positions[:, -1:] + 1  # (b, 1)
        mask = torch.cat([mask, mask.new_ones(len(indices), 1)], dim=1)
    rows = torch.stack(written, dim=1).tolist()
    return [row[: row.index(data.end)] if data.end in row else row for row in rows]
