"""How far the components of A and B move: DoRA's ΔM and ΔD (arXiv 2402.09353), of the factors of an adapter.

For the k vectors of a factor, with magnitudes m_n and directions V_n, now and at a reference point,

    ΔM = Σ_n |m_n(now) − m_n(reference)| / k        in the unit of the factor's entries
    ΔD = Σ_n (1 − cos(V_n(now), V_n(reference))) / k        0 to 2

FedLoRA-Optimizer's own definitions are not known. DoRA's reference is the start; B starts at 0, where it has
no direction, so that another point has to be taken: `REFERENCES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from fedlora_kit.adapter import State, load_peft
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.models.components import decompose, part_of, unit, vector_dim
from fedlora_kit.models.targets import layer_index

#: reference point -> what it is
REFERENCES = {
    "first": "the first measured point of the same task",
    "previous": "the measured point before of the same task",
    "tasks": "the mean over the tasks at the same point",
}


def factor_variation(
    now: tuple[torch.Tensor, torch.Tensor], reference: tuple[torch.Tensor, torch.Tensor], dim: int
) -> tuple[float, float]:
    """ΔM and ΔD of one factor.

    Args:
        now, reference: (magnitude, direction), as `models.components.decompose` gives them; the reference's
            directions need not be of length 1.
        dim: the dimension along which the vectors lie.

    Raises:
        BadValue: a vector has length zero, now or at the reference: it has no direction.

    >>> start = (torch.tensor([[1.0]]), torch.tensor([[1.0, 0.0]]))
    >>> turned = (torch.tensor([[3.0]]), torch.tensor([[0.0, 1.0]]))
    >>> factor_variation(turned, start, dim=1)
    (2.0, 1.0)
    """
    if any(bool((magnitude == 0).any()) for magnitude, _ in (now, reference)):
        raise BadValue(
            "a vector of length zero has no direction, and B starts at 0",
            "measure after the first step, against another reference than the start",
        )
    cosine = (unit(now[1], dim) * unit(reference[1], dim)).sum(dim)
    return float((now[0] - reference[0]).abs().mean()), float((1 - cosine).mean())


def variation(
    adapters: Mapping[str, Mapping[int, Mapping[str, torch.Tensor]]], axis: str, reference: str
) -> pd.DataFrame:
    """ΔM and ΔD of every factor of every adapter, against a reference point.

    Args:
        adapters: task -> steps trained -> adapter; the same steps for all tasks, ascending.
        axis: of magnitude and direction, "rank" or "vector".
        reference: one of `REFERENCES`.

    Returns:
        One row a task, point and factor of a module: task, steps, module, layer, factor ("A" or "B"),
        magnitude (ΔM), direction (ΔD). The first point has no row where it or the one before it is the
        reference.

    Raises:
        UnknownName: no such axis or reference.
        BadValue: a vector has no direction; or fewer points, or tasks, than the reference needs.
    """
    if reference not in REFERENCES:
        raise UnknownName("reference point", reference, REFERENCES)
    points = list(next(iter(adapters.values()), {}))
    if (len(adapters) if reference == "tasks" else len(points)) < 2:
        raise BadValue(
            f"reference={reference!r} is {REFERENCES[reference]}, and there is only one",
            "measure two tasks and two points at least",
        )
    split = {
        (task, steps): {
            name: decompose(tensor, vector_dim(name, axis))
            for name, tensor in state.items()
            if part_of(name) in ("A", "B")
        }
        for task, states in adapters.items()
        for steps, state in states.items()
    }
    rows = []
    for task in adapters:
        for place, steps in enumerate(points):
            if reference != "tasks" and place == 0:
                continue
            for name, now in split[task, steps].items():
                if reference == "tasks":
                    then = _mean([split[other, steps][name] for other in adapters])
                else:
                    then = split[task, points[0 if reference == "first" else place - 1]][name]
                magnitude, direction = factor_variation(now, then, vector_dim(name, axis))
                rows.append(
                    {
                        "task": task,
                        "steps": steps,
                        "module": name.rpartition(".lora_")[0],
                        "layer": layer_index(name),
                        "factor": part_of(name),
                        "magnitude": magnitude,
                        "direction": direction,
                    }
                )
    return pd.DataFrame(rows)


def _mean(parts: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    magnitudes, directions = (torch.stack(list(one)) for one in zip(*parts, strict=True))
    return magnitudes.mean(0), directions.mean(0)


def client_adapters(entry: Path) -> dict[int, State]:
    """Client -> its own adapter after a run that kept whole factors with the clients.

    Args:
        entry: folder of a finished run (`experiments.entry.Entry.path`).

    Raises:
        BadValue: the run kept nothing with its clients.
    """
    from safetensors.torch import load_file

    found = sorted((entry / "personal").glob("client-*.safetensors"))
    if not found:
        raise BadValue(f"run {entry.name} has no tensors of its clients", "take a method such as local-only")
    shared = {n: t for n, t in load_peft(entry / "adapter").items() if ".lora_" in n}
    return {int(path.stem.removeprefix("client-")): {**shared, **load_file(path)} for path in found}
