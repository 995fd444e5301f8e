"""What each group of clients trains, sends and holds under Fed-HeLLo and its baselines, counted on a ViT.

The modules are built on PyTorch's meta device: every shape is there, no weight is. So the counts are exact,
and they are those of `training.costs`, which the round loop's own sums agree with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd
import torch

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.methods import method
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.papers import fed_hello_grid as grid
from fedlora_kit.papers.claims import Claim, Status, Verdict
from fedlora_kit.papers.pairing import MissingCells
from fedlora_kit.randomness import Streams
from fedlora_kit.training.costs import client_costs
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
GROUPS = ("weak", "middle", "strong")
LAYER_PARAMETERS = 2 * (16 * 768 + 768 * 16)
"""LoRA of one layer: A (16, 768) and B (768, 16) on query and on value."""
#: parameters that travel from a client that holds 6, 9 or 12 layers
NOTED = {"weak": 294_912, "middle": 442_368, "strong": 589_824}
PROFILES = ("paper", "small", "smoke")
DEVIATIONS = (
    "Whether the paper has such a table is not known. Everything here is counted on modules of ViT-B/16's "
    "shape, the same in every profile; nothing is measured on a device.",
    "Training memory is the trained parameters, their gradients and AdamW's two states, in float32. The "
    "backbone and the activations, by far the larger part, are not in it: they depend on batch, "
    "implementation and on which layers train. FedRA's clients drop the layers that they do not train, which "
    "saves memory and time beyond what stands here.",
    "HETLoRA's ranks 1, 4 and 16 are read off the official logs; FlexLoRA's are taken to be the same. Rank 1 "
    "is a far smaller share than 6 of 12 layers, so the groups' budgets are not equal across methods.",
    "Bytes are those a client sends in a round in which it is drawn, in float32, without the zeros that fill "
    "a lower rank up.",
    "Time is not here: it depends on the machine. The official logs' own times overlap with other runs.",
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
    if profile not in PROFILES:
        raise UnknownName("profile", profile, PROFILES)
    names = list(grid.METHODS if methods is None else methods)
    for name in names:
        if name not in grid.METHODS:
            raise UnknownName("method of fed-hello/resources", name, grid.METHODS)
    if not names or len(set(names)) < len(names):
        raise BadValue(f"methods={names}", "give at least one, none of them twice")
    return names


def costs(methods: Sequence[str] = grid.METHODS, shape: dict[str, int] | None = None) -> pd.DataFrame:
    """The cost of one client of each group in one round, for each method.

    Args:
        shape: fields of transformers' `ViTConfig`; ViT-B/16 if not given.

    Returns:
        Columns method, group ("weak", "middle", "strong"), trained_parameters, sent_bytes, training_bytes
        (see `training.costs.ClientCost`; zeros for a client that takes no part), seed (0: nothing is random).
    """
    from transformers import ViTConfig, ViTForImageClassification

    with torch.device("meta"):
        # transformers' signature is loose; the fields are checked by the configuration itself
        bare = ViTForImageClassification(ViTConfig(**cast(Any, {**VIT_B, **(shape or {})})))
        model = attach_lora(bare, LoraSettings(rank=16, alpha=16, targets=("q", "v")), seed=0)
    rows = []
    for name in methods:
        fed = Federation(
            model=model,
            method=method(name, **grid.method_settings(grid.PROFILES["paper"], name, "1:1:1")),
            clients=cast(Any, [Roster() for _ in GROUPS]),  # one client a group
            evals={},
            rounds=FederationSettings(rounds=1),
            local=LocalSettings(optimizer="adamw", lr=0.01, steps=1),
            streams=Streams(0),
            device=torch.device("meta"),
        )
        for group, cost in zip(GROUPS, client_costs(fed), strict=True):
            rows.append(
                {
                    "method": name,
                    "group": group,
                    "trained_parameters": cost.trained_parameters,
                    "sent_bytes": cost.upload_bytes,
                    "training_bytes": cost.training_bytes,
                    "seed": 0,
                }
            )
    return pd.DataFrame(rows)


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
            f"a {group} client of Fed-HeLLo sends {number:,} parameters ({4 * number / 1e6:.2f} MB)",
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
    return made


def _equal(results: pd.DataFrame, method: str, group: str | list[str], column: str, value: int) -> Verdict:
    groups = [group] if isinstance(group, str) else group
    rows = results[(results["method"] == method) & results["group"].isin(groups)]
    if len(rows) < len(groups):
        raise MissingCells(f"no count for method={method}", "add it to the methods")
    found = sorted({int(v) for v in rows[column]})
    status: Status = "reproduced" if found == [value] else "not reproduced"
    reason = f"{column}: counted {', '.join(f'{v:,}' for v in found)}, claimed {value:,} (exact)"
    return Verdict(status, reason, {"counted": float(found[-1]), "claimed": float(value)})
