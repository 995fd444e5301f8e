"""Whether padding stays without a say: what a classifier makes of a text may not depend on its batch."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from fedlora_kit.errors import BadValue

#: of the largest logit; float32 gives about 1e-6 from the kernels' order of sums
TOLERANCE = 1e-4


@torch.no_grad()
def check_padding(name: str, model: nn.Module, pad: int) -> None:
    """Refuse a text classifier that reads the padding beside a shorter text.

    Its scores would depend on the batch, and under DP an example's gradient on the others of its batch.

    Args:
        pad: the padding's token.

    Raises:
        BadValue: the logits of a text of three tokens differ with and without five of padding.
    """
    device, config = next(model.parameters()).device, cast(Any, model.config)
    token = config.vocab_size // 2 + (config.vocab_size // 2 == pad)
    alone = torch.full((1, 3), token, device=device)
    padded = torch.cat([alone, torch.full((1, 5), pad, device=device)], dim=1)
    mask = (torch.arange(8, device=device) < 3).long()[None]
    one = model(input_ids=alone, attention_mask=mask[:, :3]).logits
    other = model(input_ids=padded, attention_mask=mask).logits
    if (one - other).abs().max() > TOLERANCE * one.abs().max():
        raise BadValue(
            f"model {name!r}: what it makes of a text depends on the padding beside it",
            "choose a model that leaves padding out, such as a BERT, a RoBERTa or a Llama",
        )
