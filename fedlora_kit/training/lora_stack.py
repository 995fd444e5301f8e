"""Adapters of several clients over one frozen backbone: LoRA and head with a leading dimension.

A batch holds the rows of all clients. Every frozen module treats them alike; at an adapted module the rows
meet their own client's A and B. G groups of equally many consecutive rows share an adapter each: the clients,
where their batches are equally large, else the rows one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fedlora_kit.adapter import AdapterSlot, canonical
from fedlora_kit.errors import FedloraError
from fedlora_kit.models.targets import is_transposed, matrix

#: what the rows of the batch at hand use: tensor name -> (G, *shape)
Tensors = dict[str, torch.Tensor]


class _LoraLinear(torch.autograd.Function):
    """y = x W^T + b + scale (x A_g^T) B_g^T, row group by row group; W and b are frozen.

    One node of the graph instead of some seven: nothing but x and x A^T is kept, and the two parts of the
    gradient with respect to x are added up by the matrix product itself.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        scale: float,
    ) -> torch.Tensor:
        if torch.is_autocast_enabled(x.device.type):  # as autocast does: factors rounded, sums float32
            to = torch.get_autocast_dtype(x.device.type)
            x, a, b, weight = x.to(to), a.to(to), b.to(to), weight.to(to)
            bias = None if bias is None else bias.to(to)
        groups = len(a)
        with torch.autocast(x.device.type, enabled=False):
            rows = x.reshape(groups, -1, x.shape[-1])  # (G, n, in)
            inner = torch.bmm(rows, a.transpose(1, 2))  # (G, n, r)
            out = nn.functional.linear(x, weight, bias)  # (..., out)
            out.view(groups, -1, out.shape[-1]).baddbmm_(inner, b.transpose(1, 2), alpha=scale)
        ctx.save_for_backward(rows, inner, a, b, weight)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        rows, inner, a, b, weight = ctx.saved_tensors
        to_x, to_a, to_b = ctx.needs_input_grad[:3]
        scaled = gradient.reshape(len(a), -1, gradient.shape[-1])  # (G, n, out)
        grad_x = grad_a = grad_b = None
        if to_b:
            grad_b = _times(torch.bmm(inner.transpose(1, 2), scaled), ctx.scale).transpose(
                1, 2
            )  # (G, out, r)
        if to_a or to_x:
            through = _times(torch.bmm(scaled, b), ctx.scale)  # (G, n, r)
            if to_a:
                grad_a = torch.bmm(through.transpose(1, 2), rows)  # (G, r, in)
            if to_x:
                grad_x = gradient @ weight  # (..., in)
                grad_x.view(len(a), -1, grad_x.shape[-1]).baddbmm_(through, a)
        return grad_x, grad_a, grad_b, None, None, None


def _times(own: torch.Tensor, scale: float) -> torch.Tensor:
    return own if scale == 1 else own.mul_(scale)


class LoraStack:
    """The modules of a model that hold adapter tensors, taught to use those of several clients.

    Within :meth:`installed` a forward pass uses what :attr:`tensors` holds, (G, \\*shape) a tensor: the rows
    of the batch are G groups of equal size, in order. The model's own adapter is neither read nor changed.

    Raises:
        FedloraError: a module that cannot be stacked (:func:`why_not_modules` says so beforehand).
    """

    def __init__(self, model: nn.Module, slot: AdapterSlot) -> None:
        problem = why_not_modules(model, slot)
        if problem:
            raise FedloraError(f"this model's clients cannot be stacked: {problem}", "set local.stack=never")
        self.tensors: Tensors = {}
        self._adapted: list[tuple[nn.Module, list[str]]] = []
        for name, module in model.named_modules():
            own = _own_tensors(module, name, slot)
            if any(".lora_A" in n for n in own) or (own and not any(".lora_" in n for n in own)):
                self._adapted.append((module, own))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The modules compute with stacks inside the block; afterwards, also after an error, as before."""
        for module, own in self._adapted:  # bound only here: they and this stack would hold each other
            lora = any(".lora_A" in n for n in own)
            module.forward = self._lora(module, own) if lora else self._linear(own)
        try:
            yield
        finally:
            for module, _ in self._adapted:
                del module.forward
            self.tensors = {}

    def _lora(self, module: nn.Module, names: list[str]) -> Callable[..., torch.Tensor]:
        (a,) = (n for n in names if ".lora_A" in n)
        (b,) = (n for n in names if ".lora_B" in n)
        base: Any = module.base_layer
        scale = float(module.scaling["default"])  # type: ignore[index]

        def forward(x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            if len(x) % len(self.tensors[a]):
                raise FedloraError(
                    f"{a} reads {len(x)} rows in a batch of {len(self.tensors[a])} clients or examples: "
                    "they are not apart there",
                    "adapt other modules (model.lora.targets), or set local.stack=never (without DP)",
                )
            return _LoraLinear.apply(  # type: ignore[no-any-return, no-untyped-call]
                x, self.tensors[a], self.tensors[b], matrix(base), base.bias, scale
            )

        return forward

    def _linear(self, names: list[str]) -> Callable[..., torch.Tensor]:
        (w,) = (n for n in names if n.endswith(".weight"))
        bias = next((n for n in names if n.endswith(".bias")), None)

        def forward(x: torch.Tensor) -> torch.Tensor:
            weight = self.tensors[w].transpose(1, 2)  # (G, in, out)
            rows = x.reshape(len(weight), -1, x.shape[-1])  # (G, n, in)
            out = torch.bmm(rows, weight)
            if bias is not None:
                out = out + self.tensors[bias][:, None]  # (G, 1, out)
            return out.view(*x.shape[:-1], out.shape[-1])

        return forward


def why_not_modules(model: nn.Module, slot: AdapterSlot) -> str | None:
    """The first reason why a module with adapter tensors cannot be stacked, None if all can."""
    for name, module in model.named_modules():
        own = _own_tensors(module, name, slot)
        if not own:
            continue
        if any(".lora_" in n for n in own):
            if not hasattr(module, "base_layer"):
                continue  # the Linear inside of LoRA's layer: that layer answers for it
            base = module.base_layer
            known = type(base) is nn.Linear or is_transposed(base)
            if not known or any(p.requires_grad for p in base.parameters()):
                return f"LoRA on {canonical(name)}, which is no frozen linear layer"
            if base.weight.dtype != torch.float32:
                return f"LoRA on {canonical(name)}, whose frozen weights are not float32"
            if shared_by_examples(model, name):
                return f"{canonical(name)} computes positions that all examples share"
            if getattr(module, "lora_variant", None) or len(own) != 2:
                return f"{canonical(name)} holds another kind of LoRA"
        elif type(module) is not nn.Linear or len(own) != len(list(module.parameters())):
            return f"{canonical(name)} trains, and is no linear layer that trains as a whole"
    return None


def shared_by_examples(model: nn.Module, name: str) -> bool:
    """Whether a module's input is not of the examples alone: DeBERTa's q and k (or modules of their own, as
    its configuration says) also read the embeddings of relative positions, once for the whole batch.
    """
    config: Any = getattr(model, "config", None)
    own = "" if getattr(config, "share_att_key", False) else "pos_"
    ends = (f"{own}query_proj", f"{own}key_proj")
    return bool(getattr(config, "relative_attention", False)) and name.rpartition(".")[2] in ends


def _own_tensors(module: nn.Module, name: str, slot: AdapterSlot) -> list[str]:
    """Names of the adapter tensors that a module computes with: LoRA's are two modules further down."""
    if hasattr(module, "base_layer"):
        found = [n for n, _ in module.named_parameters()]
        return [c for n in found if (c := canonical(f"{name}.{n}")) in slot.parameters]
    if ".lora_" in name:
        return []
    found = [n for n, _ in module.named_parameters(recurse=False)]
    return [c for n in found if (c := canonical(f"{name}.{n}")) in slot.parameters]


def repeated(tensors: Mapping[str, torch.Tensor], rows: torch.Tensor) -> Tensors:
    """Each row's own copy, (K, \\*shape) -> (rows, \\*shape)."""
    return {name: t.index_select(0, rows) for name, t in tensors.items()}
