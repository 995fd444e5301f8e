"""The last layer of a classifier for the one token that its head reads.

RoBERTa's, BERT's and ViT's heads read the first token's last state and no other. So the last layer needs
keys and values of all tokens, but queries, attention's output and the MLP of the first one alone: the same
scores and the same gradients, and in a model of L layers nearly 1/L less work, forward and backward.
Gradient checkpointing passes this layer by: it keeps little.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention


def read_first_token(model: nn.Module) -> bool:
    """Let the last layer of ``model`` compute the state of the first token only, (B, 1, width).

    To be called on the bare backbone or on PEFT's model, at any time; a second call changes nothing.

    Returns:
        Whether it could: false for models whose head reads more than the first token or that are not known,
        and for attention kernels other than PyTorch's. They stay as they are.
    """
    config: Any = getattr(model, "config", None)
    if getattr(config, "_attn_implementation", None) != "sdpa":
        return False
    kinds = {type(module).__name__ for module in model.modules()}
    if not kinds & _CLASSIFIERS:
        return False
    layers = [module for module in model.modules() if type(module).__name__ in _FORWARDS]
    if not layers or getattr(layers[-1], "is_decoder", False):
        return False
    last = layers[-1]
    # held weakly: a layer that holds itself would keep the model in memory until the next search for cycles
    last.forward = _OneToken(_FORWARDS[type(last).__name__], last)
    return True


class _OneToken:
    """A layer's forward pass. A copy of the model, deep or pickled, binds it to its own layer."""

    def __init__(self, compute: Callable[..., torch.Tensor], layer: nn.Module) -> None:
        self._compute, self._layer = compute, weakref.ref(layer)

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self._compute(self._layer(), *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> _OneToken:
        return _OneToken(self._compute, copy.deepcopy(self._layer(), memo))  # type: ignore[arg-type]

    def __reduce__(self) -> Any:
        return _OneToken, (self._compute, self._layer())


def _bert(
    self: Any, hidden: torch.Tensor, attention_mask: torch.Tensor | None = None, *_: Any, **__: Any
) -> torch.Tensor:
    """`RobertaLayer` and `BertLayer`; hidden: (B, T, width)."""
    first, inner = hidden[:, :1], self.attention.self
    attended = _attend(
        inner.query(first),
        inner.key(hidden),
        inner.value(hidden),
        attention_mask,
        inner.num_attention_heads,
        inner.dropout.p if self.training else 0.0,
    )
    return self.feed_forward_chunk(self.attention.output(attended, first))  # type: ignore[no-any-return]


def _vit(
    self: Any, hidden: torch.Tensor, attention_mask: torch.Tensor | None = None, *_: Any, **__: Any
) -> torch.Tensor:
    """`ViTLayer`; hidden: (B, T, width)."""
    normed, inner = self.layernorm_before(hidden), self.attention
    attended = _attend(
        inner.q_proj(normed[:, :1]),
        inner.k_proj(normed),
        inner.v_proj(normed),
        attention_mask,
        inner.num_attention_heads,
        inner.attention_dropout if self.training else 0.0,
    )
    middle = self.dropout(inner.o_proj(attended)) + hidden[:, :1]
    return self.dropout(self.mlp(self.layernorm_after(middle))) + middle  # type: ignore[no-any-return]


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    heads: int,
    dropout: float,
) -> torch.Tensor:
    """Attention of the first token to all, (B, 1, width); mask: (B, 1, T, T), or (B, 1, 1, T), or None."""
    query, key, value = (t.view(*t.shape[:2], heads, -1).transpose(1, 2) for t in (query, key, value))
    rows = None if mask is None else mask[:, :, :1]
    out = scaled_dot_product_attention(query, key, value, attn_mask=rows, dropout_p=dropout)  # (B, h, 1, d)
    return out.transpose(1, 2).flatten(2)


_FORWARDS = {"RobertaLayer": _bert, "BertLayer": _bert, "ViTLayer": _vit}
_CLASSIFIERS = {
    "RobertaForSequenceClassification",
    "BertForSequenceClassification",
    "ViTForImageClassification",
}
