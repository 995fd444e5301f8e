"""Magnitude and direction of LoRA's factors: A = A_M A_D, B = B_M B_D (FedLoRA-Optimizer, arXiv 2510.11274).

Every vector of a factor is a magnitude (its Euclidean length when it is split; training may bring it below 0)
times a direction (a unit vector). Which
vectors those are is not known of the paper, so it is a setting, the axis:

    axis       vectors of A (r, in)          vectors of B (out, r)         magnitudes of A, of B
    "rank"     r rows, one a rank component  r columns                     (r, 1), (1, r)
    "vector"   in columns, one an input      out rows, one an output       (1, in), (out, 1)

"rank" is the default: B A is a sum of r products of a column of B and a row of A, and each of the r terms
then has one magnitude and one direction on either side. "vector" is DoRA's choice (arXiv 2402.09353, there
of W0 + BA).

Components are float64: a float32 factor then comes back bit for bit. A vector of length zero has no
direction of its own; it gets the uniform one, all entries 1 / sqrt(n), so that every direction is a unit
vector and the magnitude 0 can still train. DoRA's use in PEFT (``use_dora``) splits W0 + BA, not A and B.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.nn.utils import parametrize

from fedlora_kit.errors import BadValue, UnknownName

Axis = Literal["rank", "vector"]
AXES: tuple[str, ...] = get_args(Axis)
#: what can train: a whole factor, or one component of it
PARTS = ("A", "B", "A_M", "A_D", "B_M", "B_D")
MAGNITUDE, DIRECTION = ".magnitude", ".direction"


def part_of(name: str) -> str | None:
    """Which of `PARTS` a tensor is, by its canonical name; None for all others.

    >>> part_of("m.lora_A.weight"), part_of("m.lora_B.magnitude"), part_of("classifier.weight")
    ('A', 'B_M', None)
    """
    for factor in ("A", "B"):
        for suffix, part in ((".weight", ""), (MAGNITUDE, "_M"), (DIRECTION, "_D")):
            if name.endswith(f".lora_{factor}{suffix}"):
                return factor + part
    return None


def component_names(factor: str) -> tuple[str, str]:
    """Names of a factor's magnitude and direction.

    >>> component_names("m.lora_A.weight")
    ('m.lora_A.magnitude', 'm.lora_A.direction')
    """
    stem = factor.removesuffix(".weight")
    return stem + MAGNITUDE, stem + DIRECTION


def factor_name(component: str) -> str:
    """Name of the factor that a component belongs to.

    >>> factor_name("m.lora_A.magnitude")
    'm.lora_A.weight'
    """
    return component.removesuffix(MAGNITUDE).removesuffix(DIRECTION) + ".weight"


def vector_dim(factor: str, axis: str) -> int:
    """The dimension along which a factor's vectors lie: their entries are indexed by it.

    Args:
        factor: canonical name of an A or a B.
        axis: "rank" or "vector".

    Raises:
        BadValue: the name is no factor's.
        UnknownName: no such axis.

    >>> vector_dim("m.lora_A.weight", "rank"), vector_dim("m.lora_B.weight", "rank")
    (1, 0)
    """
    if axis not in AXES:
        raise UnknownName("axis of magnitude and direction", axis, AXES)
    part = part_of(factor)
    if part not in ("A", "B"):
        raise BadValue(f"{factor} is neither an A nor a B of LoRA", "name a tensor lora_A or lora_B")
    return 1 if (part == "A") == (axis == "rank") else 0


def uniform_direction(like: torch.Tensor, dim: int) -> torch.Tensor:
    """The direction of vectors that have none: 1 / sqrt(n) in each of n entries; shaped like ``like``."""
    return torch.full_like(like, like.shape[dim] ** -0.5)


def unit(vectors: torch.Tensor, dim: int, instead: torch.Tensor | None = None) -> torch.Tensor:
    """The vectors along ``dim``, brought to length 1.

    Args:
        instead: directions, of the same shape, for vectors of length zero; uniform ones by default.
    """
    length = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    none = length == 0
    instead = uniform_direction(vectors, dim) if instead is None else instead
    return torch.where(none, instead, vectors / torch.where(none, torch.ones_like(length), length))


def decompose(matrix: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Magnitudes and directions of a matrix' vectors along ``dim``, both float64.

    Returns:
        Magnitude, of the matrix' shape with 1 in ``dim``; direction, of the matrix' shape.

    >>> decompose(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), dim=1)[0].tolist()
    [[5.0], [0.0]]
    """
    wide = matrix.detach().double()
    return torch.linalg.vector_norm(wide, dim=dim, keepdim=True), unit(wide, dim)


def compose(
    magnitude: torch.Tensor, direction: torch.Tensor, dim: int, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """The matrix of these magnitudes and directions; a direction counts by where it points only.

    Gradients go through the length: that of a direction v is the gradient of m v / |v|, orthogonal to v.
    """
    return (magnitude * unit(direction, dim)).to(dtype)


def split_factors(
    state: Mapping[str, torch.Tensor], factors: Collection[str], axis: str
) -> dict[str, torch.Tensor]:
    """An adapter with each of ``factors`` ("A", "B") replaced by its two components."""
    result: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if part_of(name) in factors and part_of(name) in ("A", "B"):
            result.update(zip(component_names(name), decompose(tensor, vector_dim(name, axis)), strict=True))
        else:
            result[name] = tensor
    return result


def with_components(
    state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], axis: str
) -> dict[str, torch.Tensor]:
    """An adapter in which the components and other tensors in ``own`` stand for its own ones.

    A factor of which ``own`` holds one component keeps the other one of ``state``; shapes and types stay.
    """
    result = {**state, **{n: t for n, t in own.items() if not n.endswith((MAGNITUDE, DIRECTION))}}
    for name in dict.fromkeys(factor_name(n) for n in own if n.endswith((MAGNITUDE, DIRECTION))):
        dim = vector_dim(name, axis)
        magnitude, direction = decompose(result[name], dim)
        left, right = component_names(name)
        magnitude, direction = own.get(left, magnitude), own.get(right, direction)
        result[name] = compose(magnitude, direction, dim, result[name].dtype)
    return result


class _Decomposed(nn.Module):
    """torch's parametrisation of one weight by magnitude (original0) and direction (original1)."""

    def __init__(self, dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.dim, self.dtype = dim, dtype

    def forward(self, magnitude: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
        return compose(magnitude, direction, self.dim, self.dtype)

    def right_inverse(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return decompose(weight, self.dim)


@contextmanager
def decomposed(model: nn.Module, factors: Collection[str], axis: str) -> Iterator[None]:
    """Within the block, the factors of a PEFT LoRA model are parametrised by magnitude and direction.

    An `adapter.AdapterSlot` made inside names the components ``….lora_A.magnitude`` and
    ``….lora_A.direction``. On leaving, also by an error, each factor is the same plain parameter object as
    before, with the composed value: slots, optimisers and exports made outside never see a component.

    Args:
        model: with an adapter called "default".
        factors: of "A" and "B"; none leaves the model as it is.

    Raises:
        UnknownName: no such axis or factor.
        BadValue: the model has no such factor.
    """
    for factor in factors:
        if factor not in ("A", "B"):
            raise UnknownName("factor of LoRA", factor, ("A", "B"))
    changed: list[tuple[Any, nn.Parameter]] = []
    try:
        for name, module in list(model.named_modules()):
            inner: Any = module
            factor = name.removesuffix(".default")[-1:]
            if factor not in factors or not name.endswith(f".lora_{factor}.default"):
                continue
            weight: nn.Parameter = inner.weight
            dim = vector_dim(f"m.lora_{factor}.weight", axis)
            changed.append((inner, weight))
            parametrize.register_parametrization(inner, "weight", _Decomposed(dim, weight.dtype))
        if factors and not changed:
            raise BadValue(
                f"the model has no LoRA factor {' or '.join(sorted(factors))}", "attach LoRA first"
            )
        yield
    finally:
        for inner, weight in changed:
            if not parametrize.is_parametrized(inner, "weight"):
                continue
            with torch.no_grad():
                weight.copy_(inner.weight)
            parametrize.remove_parametrizations(inner, "weight")
            inner.weight = weight
