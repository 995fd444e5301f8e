"""FedLoRA-Optimizer: components averaged apart, then a global optimiser and local ones, each on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from fedlora_kit.adapter import State
from fedlora_kit.errors import BadValue
from fedlora_kit.methods.base import ClientUpdate, Method, register, weighted_mean
from fedlora_kit.methods.ranks import by_client
from fedlora_kit.methods.stages import WHEN, Stage, checked_parts
from fedlora_kit.models.components import (
    AXES,
    component_names,
    compose,
    decompose,
    part_of,
    unit,
    vector_dim,
    with_components,
)
from fedlora_kit.partition.base import choice, positive, whole

_COMPONENTS = ("A_M", "A_D", "B_M", "B_D")


@register
class FedLoRAOptimizer(Method):
    """FedLoRA-Optimizer (Zhao, Zhu, Zhang, Chen, Guo, arXiv 2510.11274).

    A round: the clients train A and B; A_M, A_D, B_M and B_D are averaged apart; the global optimiser trains
    A's direction in the global adapter; local optimisers train B's magnitude at each client, which keeps it
    (by default once, after the last round).
    Known are the four components, who trains which and the order (the pipeline). Everything below is not
    known of the paper: each is a setting, and the defaults are the kit's.

    Args:
        axis: of magnitude and direction, "rank" or "vector" (see `models.components`).
        renormalise: bring averaged directions back to length 1. If not, a vector is shortened by as much as
            the clients' directions differ.
        structure: "pipeline" (global optimiser, then local optimisers), or "joint": one stage at the clients
            that trains both parts at once, sends the global one and keeps the local one.
        global_trains: what the global optimiser trains, one of A_M, A_D, B_M, B_D or a list; None: it is off.
        global_data: "server" (examples set aside at the server, `DataSpec.server_examples`), or "clients"
            (one more federated stage: the cohort trains it, sends it, and it is averaged). Joint: always
            clients.
        global_when: "every_round", or "end": after the last round only.
        global_steps, global_lr: None takes those of the local training.
        local_trains: what the local optimisers train; None: they are off.
        local_when: "every_round" (the cohort; in the last round everyone), or "end": everyone, after the last
            round. The joint stage runs whenever either of the two would.
        local_steps, local_lr: None takes those of the local training.
        personal_start: where local optimisers start, "global": in the global adapter each time, or
            "carried": from what the client kept; then the client's local training starts there, too, and
            what it sends of B holds that magnitude. Acts with local_when="every_round" only.

    Settings of an optimiser that is off, and global_steps and global_lr of the joint stage, do nothing.
    A magnitude may train below 0: the factor is then split again into its length and the opposite direction.

    Raises:
        UnknownName, BadValue: an impossible setting.
    """

    name = "fedlora-optimizer"
    title = "FedLoRA-Optimizer"
    source = "FedLoRA-Optimizer (arXiv 2510.11274); the body of the paper is not known"
    not_private = "Opacus does not see through the parametrisation by magnitude and direction"

    def __init__(
        self,
        axis: str = "rank",
        renormalise: bool = True,
        structure: str = "pipeline",
        global_trains: str | Sequence[str] | None = "A_D",
        global_data: str = "server",
        global_when: str = "every_round",
        global_steps: int | None = None,
        global_lr: float | None = None,
        local_trains: str | Sequence[str] | None = "B_M",
        local_when: str = "end",
        local_steps: int | None = None,
        local_lr: float | None = None,
        personal_start: str = "global",
    ) -> None:
        self.axis = choice("axis of magnitude and direction", axis, AXES)
        if not isinstance(renormalise, bool):
            raise BadValue(f"renormalise={renormalise!r} cannot be used", "give true or false")
        self.renormalise = renormalise
        self.structure = choice("structure of fedlora-optimizer", structure, ("pipeline", "joint"))
        self.global_trains = _components("global_trains", global_trains)
        self.global_data = choice("global_data of fedlora-optimizer", global_data, ("server", "clients"))
        self.global_when = choice("global_when of fedlora-optimizer", global_when, WHEN)
        self.global_steps = _steps("global_steps", global_steps)
        self.global_lr = None if global_lr is None else positive("global_lr", global_lr)
        self.local_trains = _components("local_trains", local_trains)
        self.local_when = choice("local_when of fedlora-optimizer", local_when, WHEN)
        self.local_steps = _steps("local_steps", local_steps)
        self.local_lr = None if local_lr is None else positive("local_lr", local_lr)
        self.personal_start = choice(
            "personal_start of fedlora-optimizer", personal_start, ("global", "carried")
        )
        if self.structure == "joint":
            both = (*self.global_trains, *self.local_trains)
            if not (self.global_trains and self.local_trains) or len(set(both)) < len(both):
                raise BadValue(
                    f"structure='joint' trains {list(both)} at once",
                    "name global_trains and local_trains, and no component in both",
                )
        self.server_stage = (
            self.structure == "pipeline" and bool(self.global_trains) and self.global_data == "server"
        )

    def trains(self, tensor: str, client: int, round_index: int) -> bool:
        return True

    def local_start(self, global_state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> State:
        kept = own if self.personal_start == "carried" else _heads(own)
        return with_components(global_state, kept, self.axis)

    def stage_start(
        self, stage: Stage, global_state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
    ) -> State:
        # a stage that only shares works on the global adapter, so that all clients start it alike
        alike = set(stage.shares) == set(stage.trains)
        return {**global_state, **_heads(own)} if alike else self.local_start(global_state, own)

    def personalised(
        self, global_state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
    ) -> State:
        return with_components(global_state, own, self.axis)

    def stages(self, round_index: int, last: bool) -> Sequence[Stage]:
        found = []
        globally = bool(self.global_trains) and (last or self.global_when == "every_round")
        locally = bool(self.local_trains) and (last or self.local_when == "every_round")
        if self.structure == "joint":
            both = (*self.global_trains, *self.local_trains)
            joint = Stage(
                "joint",
                "clients",
                both,
                shares=self.global_trains,
                everyone=last,
                steps=self.local_steps,
                lr=self.local_lr,
                axis=self.axis,
            )
            return (joint,) if globally or locally else ()
        if globally:
            at_server = self.global_data == "server"
            found.append(
                Stage(
                    "global optimiser",
                    "server" if at_server else "clients",
                    self.global_trains,
                    shares=() if at_server else self.global_trains,
                    steps=self.global_steps,
                    lr=self.global_lr,
                    axis=self.axis,
                )
            )
        if locally:
            found.append(
                Stage(
                    "local optimisers",
                    "clients",
                    self.local_trains,
                    everyone=last,
                    steps=self.local_steps,
                    lr=self.local_lr,
                    axis=self.axis,
                )
            )
        return tuple(found)

    def aggregate(self, global_state: Mapping[str, torch.Tensor], updates: Sequence[ClientUpdate]) -> State:
        """The next global adapter: A_M, A_D, B_M and B_D averaged apart, each with weights n_k.

        An update holds factors, or (from a stage) components; a component that nobody sent stays the global
        adapter's. A vector of length zero has no direction and is left out of the average of directions.
        Where none is left to be re-normalised, or they cancel, the global adapter's direction stands.

        Args:
            global_state: canonical name -> tensor, the whole adapter.
            updates: at least one.
        """
        rest = [
            ClientUpdate(u.client, u.num_examples, {n: t for n, t in u.tensors.items() if part_of(n) is None})
            for u in updates
        ]
        result = {**global_state, **weighted_mean(rest)}
        for name in global_state:
            if part_of(name) not in ("A", "B"):
                continue
            dim = vector_dim(name, self.axis)
            magnitude, direction = decompose(global_state[name], dim)
            sent = [(u.num_examples, *_sent(u, name, dim)) for u in by_client(updates)]
            magnitudes = [(n, m) for n, m, _ in sent if m is not None]
            # a direction that comes alone belongs to the global magnitude
            directions = [
                (n * (magnitude if m is None else m).ne(0).double(), d) for n, m, d in sent if d is not None
            ]
            if not magnitudes and not directions:
                continue
            if magnitudes:
                total = sum(n for n, _ in magnitudes)
                magnitude = sum((n / total * m for n, m in magnitudes), torch.zeros_like(magnitude))
            if directions:
                direction = self._mean_direction(directions, direction, dim)
            if self.renormalise:
                result[name] = compose(magnitude, direction, dim, global_state[name].dtype)
            else:
                result[name] = (magnitude * direction).to(global_state[name].dtype)
        return result

    def _mean_direction(
        self, directions: Sequence[tuple[torch.Tensor, torch.Tensor]], before: torch.Tensor, dim: int
    ) -> torch.Tensor:
        weights = sum((w for w, _ in directions), torch.zeros_like(directions[0][0]))
        total = torch.where(weights == 0, torch.ones_like(weights), weights)
        mean = sum((w / total * unit(d, dim) for w, d in directions), torch.zeros_like(before))
        if not self.renormalise:
            return mean
        cancelled = torch.linalg.vector_norm(mean, dim=dim, keepdim=True) < 1e-12
        return unit(torch.where(cancelled, before, mean), dim)


def _sent(update: ClientUpdate, factor: str, dim: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Magnitude and direction that a client sent, as a factor or by component; None for what it did not."""
    if factor in update.tensors:
        return decompose(update.tensors[factor], dim)
    magnitude, direction = (update.tensors.get(n) for n in component_names(factor))
    return magnitude, direction


def _heads(own: Mapping[str, torch.Tensor]) -> State:
    return {n: t for n, t in own.items() if ".lora_" not in n}


def _components(setting: str, value: str | Sequence[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    parts = (value,) if isinstance(value, str) else tuple(value)
    for part in parts:
        choice(f"component in {setting}", part, _COMPONENTS)
    return checked_parts(f"{setting} of fedlora-optimizer", parts)


def _steps(setting: str, value: int | None) -> int | None:
    return None if value is None else whole(setting, value, least=1)
