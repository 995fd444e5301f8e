"""What each group of clients trains, sends and holds under Fed-HeLLo and its baselines, counted on a ViT.

The modules are built on PyTorch's meta device: every shape is there, no weight is. So the counts are exact,
and they are those of `training.costs`, which the round loop's own sums agree with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from statistics import fmean
from typing import Any, cast

import pandas as pd
import torch
from torch import nn

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.methods import method
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.numerals import fixed
from fedlora_kit.papers.fed_hello import grid
from fedlora_kit.planning.step_costs import StepCost, step_cost
from fedlora_kit.randomness import Streams
from fedlora_kit.study.claims import Claim, Status, Verdict
from fedlora_kit.study.item import check_profile
from fedlora_kit.study.overrides import chosen
from fedlora_kit.study.pairing import MissingCells
from fedlora_kit.study.planned import Runs
from fedlora_kit.training.costs import client_costs
from fedlora_kit.training.depth import only_layers
from fedlora_kit.training.federation import Federation
from fedlora_kit.training.settings import FederationSettings, LocalSettings

#: ViT-B/16 (Dosovitskiy et al. 2021): 12 layers of width 768; `ViTConfig`'s defaults
VIT_B: dict[str, int] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "image_size": 224,
    "patch_size": 16,
    "num_labels": 100,
}
FULL_RANK = 16
GROUPS = ("weak", "middle", "strong")
LAYER_PARAMETERS = 2 * (16 * 768 + 768 * 16)
"""LoRA of one layer: A (16, 768) and B (768, 16) on query and on value."""
#: parameters that travel from a client that holds 6, 9 or 12 layers
NOTED = {"weak": 294_912, "middle": 442_368, "strong": 589_824}
METHODS = (*grid.METHODS, *grid.FURTHER_METHODS)
COHORT = (0, 0, 0, 1, 1, 1, 2, 2, 2, 2)
"""Groups of a cohort of ten, in the proportions of 1:1:1."""
ROUNDS = 8
"""Rounds over which a step's cost is averaged where layers are drawn anew."""
DEVIATIONS = (
    "Whether the paper has such a table is not known. Everything here is counted on modules of ViT-B/16's "
    "shape, the same in every profile; nothing is measured on a device.",
    "The adapter's memory is the trained parameters, their gradients and AdamW's two states, in float32; the "
    "backbone's weights (343 MB in float32) come on top for everybody, for FedRA's clients in part.",
    "Activations are the tensors that PyTorch's autograd keeps for the backward pass of one image in "
    "float32, weights not counted, each storage once; a batch takes as many times that. Attention is counted "
    "as its formula stands, with its weights kept: fused kernels keep less.",
    "Operations are those of matrix products, a multiplication and an addition counting as two, forward and "
    "backward, for one image. Layers below the lowest trained one need no backward pass.",
    f"Where layers are drawn anew, activations and operations are the mean over {ROUNDS} rounds at seed 0.",
    "HETLoRA's ranks 1, 4 and 16 are read off the official logs; FlexLoRA's and FLoRA's are taken to be the "
    "same. Rank 1 is a far smaller share than 6 of 12 layers, so the groups' budgets are not equal across "
    "methods.",
    "Bytes are those a client sends and gets in a round in which it is drawn, in float32, without the zeros "
    "that fill a lower rank up. FLoRA is an addition of ours: its clients get the stack of a cohort of "
    "three, three and four clients of the groups.",
    "Time is not here: it depends on the machine, and a notebook's table should not. "
    "benchmarks/layer_groups.py measures it as a ratio. The official logs' own times overlap with others.",
)


@dataclass(frozen=True)
class Roster:
    """Clients of which only the number is known: all that counting costs needs of data."""

    size: int = 1

    def __len__(self) -> int:
        return self.size


def checked(profile: str, methods: Sequence[str] | None) -> list[str]:
    """The methods to count, all by default.

    Raises:
        UnknownName: no such profile or method.
        BadValue: none, or one twice.
    """
    check_profile(profile)
    return chosen("method of fed-hello/resources", "methods", methods, METHODS)


def costs(
    methods: Sequence[str] = METHODS, shape: Mapping[str, int] | None = None, rounds: int = ROUNDS
) -> pd.DataFrame:
    """The cost of one client of each group in one round, for each method.

    Args:
        shape: fields of transformers' `ViTConfig`; ViT-B/16 if not given.
        rounds: that activations and operations are averaged over.

    Returns:
        Columns method, group ("weak", "middle", "strong"), trained_parameters, sent_bytes, received_bytes,
        training_bytes (see `training.costs.ClientCost`), activation_bytes, forward_flops, backward_flops (of
        one image, see `step_costs.StepCost`; means over ``rounds``); all zero for a client that takes no
        part. seed is 0: nothing else is random.
    """
    make = partial(_model, tuple({**VIT_B, **(shape or {})}.items()))
    model_of = cache(make)  # for the steps: a client merges what it merges, so these have no residuals
    seen: dict[object, StepCost] = {}
    rows = []
    for name in methods:
        fed = _federation(make(FULL_RANK), name)
        for k, (group, cost) in enumerate(zip(GROUPS, client_costs(fed, cohort=COHORT), strict=True)):
            steps = [_step(fed, k, r, model_of, seen) for r in range(rounds)]
            rows.append(
                {
                    "method": name,
                    "group": group,
                    "trained_parameters": cost.trained_parameters,
                    "sent_bytes": cost.upload_bytes,
                    "received_bytes": cost.download_bytes,
                    "training_bytes": cost.training_bytes,
                    "activation_bytes": fmean(step.activation_bytes for step in steps),
                    "forward_flops": fmean(step.forward_flops for step in steps),
                    "backward_flops": fmean(step.backward_flops for step in steps),
                    "seed": 0,
                }
            )
    return pd.DataFrame(rows)


def _model(shape: tuple[tuple[str, int], ...], rank: int) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    with torch.device("meta"):
        # transformers' signature is loose; the fields are checked by the configuration itself
        bare = ViTForImageClassification(ViTConfig(**cast(Any, dict(shape))))
        lora = LoraSettings(rank=rank, alpha=rank, dropout=0.1, targets=("q", "v"))
        return attach_lora(bare, lora, seed=0).train()


def _federation(model: nn.Module, name: str) -> Federation:
    """Three clients, one a group, on a model without weights."""
    return Federation(
        model=model,
        method=method(name, **grid.method_settings(grid.PROFILES["paper"], name, "1:1:1")),
        clients=cast(Any, [Roster() for _ in GROUPS]),
        evals={},
        rounds=FederationSettings(rounds=1),
        local=LocalSettings(optimizer="adamw", lr=0.01, steps=1),
        streams=Streams(0),
        device=torch.device("meta"),
    )


def _step(
    fed: Federation, client: int, r: int, model_of: Callable[[int], nn.Module], seen: dict[object, StepCost]
) -> StepCost:
    """A client's step in round ``r``, on a model of its own rank; equal steps are counted once (``seen``)."""
    if not fed.method.takes_part(client, r):
        return StepCost(0, 0, 0)
    rank = fed.method.rank(client)
    model = model_of(FULL_RANK if rank is None else rank)
    slot = AdapterSlot(model)
    names = [n for n in slot.names if fed.method.trains(n, client, r)]
    present = fed.method.present_layers(client, r)
    key = (rank, tuple(names), present)
    if key not in seen:
        slot.set_trainable(names)
        config = cast(Any, model).config
        image = torch.empty(1, 3, config.image_size, config.image_size, device="meta")
        with only_layers(model, present):
            seen[key] = step_cost(model, image)
    return seen[key]


def per_round(table: pd.DataFrame, cohort: int = 10) -> pd.DataFrame:
    """What a cohort sends in a round on average, by method and resource configuration.

    Returns:
        Columns method, then one a configuration ("1:1:1", "6:3:1"): megabytes (10^6 bytes), the groups drawn
        in proportion to their sizes among 100 clients.
    """
    rows = []
    for name, costs_of in table.groupby("method", sort=False):
        sent = costs_of.set_index("group")["sent_bytes"]
        row: dict[str, Any] = {"method": name}
        for roc, resources in grid.RESOURCES.items():
            sizes = resources["layers"].group_sizes(100)
            row[roc] = (
                sum(cohort * n / 100 * float(sent[g]) for n, g in zip(sizes, GROUPS, strict=True)) / 1e6
            )
        rows.append(row)
    return pd.DataFrame(rows)


def claims() -> list[Claim]:
    """Sizes that follow from the method, over `costs`."""
    made = [
        Claim(
            f"layers_{group}",
            f"a {group} client of Fed-HeLLo sends {number:,} parameters ({fixed(4 * number / 1e6)} MB)",
            "the released settings: r = 16 on query and value, 6, 9 and 12 of 12 layers",
            "DERIVED",
            lambda r, g=group, n=number: _equal(r, "fed-hello", g, "sent_bytes", 4 * n),  # type: ignore[misc]
        )
        for group, number in NOTED.items()
    ]
    made.append(
        Claim(
            "exclusive_leaves_out",
            "under Exclusive, weak and middle clients train and send nothing",
            "the released settings 0-0-12",
            "SEEN",
            lambda r: _equal(r, "exclusive", ["weak", "middle"], "trained_parameters", 0),
        )
    )
    made.append(
        Claim(
            "straggler_all_weak",
            "under Straggler, a strong client trains no more than a weak one",
            "the released settings 6-6-6",
            "SEEN",
            lambda r: _equal(r, "straggler", list(GROUPS), "trained_parameters", NOTED["weak"]),
        )
    )
    made.append(
        Claim(
            "frozen_depth_saves_backward",
            "a weak client of Fed-HeLLo keeps fewer activations and computes less backward than a strong one",
            "the released settings: layers that train less",
            "DERIVED: the direction; the numbers are UNKNOWN",
            _weak_below_strong,
        )
    )
    return made


def _weak_below_strong(results: pd.DataFrame) -> Verdict:
    rows = results[results["method"] == "fed-hello"].set_index("group")
    if not {"weak", "strong"} <= set(rows.index):
        raise MissingCells("no count for method=fed-hello", "add it to the methods")
    columns = ("activation_bytes", "backward_flops")
    parts = {c: float(rows[c].loc["weak"] / rows[c].loc["strong"]) for c in columns}
    status: Status = "reproduced" if max(parts.values()) < 1 else "not reproduced"
    shares = ", ".join(f"{c} {fixed(100 * part, 0)} % of a strong client's" for c, part in parts.items())
    return Verdict(status, f"{shares} (counted)", parts)


def _equal(results: pd.DataFrame, method: str, group: str | list[str], column: str, value: int) -> Verdict:
    groups = [group] if isinstance(group, str) else group
    rows = results[(results["method"] == method) & results["group"].isin(groups)]
    if len(rows) < len(groups):
        raise MissingCells(f"no count for method={method}", "add it to the methods")
    found = sorted({int(v) for v in rows[column]})
    status: Status = "reproduced" if found == [value] else "not reproduced"
    reason = f"{column}: counted {', '.join(f'{v:,}' for v in found)}, claimed {value:,} (exact)"
    return Verdict(status, reason, {"counted": float(found[-1]), "claimed": float(value)})


def runs(profile: str, **parameters: Any) -> Runs:
    """None that are stored."""
    return Runs(note="counts on shapes in the notebook; trains nothing")
