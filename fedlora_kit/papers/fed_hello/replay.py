"""Fed-HeLLo's released code, replayed: who was drawn in each round, and which layers each client trained.

The authors' code draws everything from one numpy stream, ``np.random.seed(1)``, and what it draws does not
depend on the images. So partition, layer allocation and cohort of the official CIFAR-100 runs (100 clients,
10 a round, ViT with 12 layers) can be had again without training, and set beside the official logs
(`papers.fed_hello.logs`). Nothing here is used to train: the kit itself draws from independent streams
(`randomness`).

Order of the draws, all from the one stream (code at 4c07f5b; replayed against the logs):

1. Fed-HeLLo only: the 100 training examples of its Fisher scores, before the partition.
2. The partition. IID: client after client draws its share of what is left. ``pat_20`` and ``pat_10``: the 100
   classes are shuffled and dealt, 20 or 10 a client, and shuffled again when they are used up. (How many
   examples a holder gets comes from another generator.)
3. Each round. Fed-HeLLo: every client, in order of id, draws its layers. Then, always, the cohort is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.methods.defects import frozen_by_substring

SPLITS: dict[str, int | None] = {"iid": None, "pat_20": 20, "pat_10": 10}
"""Official split -> classes a client, None for IID. The paper writes Non-IID 20/1.0 and 10/1.0."""
METHODS = ("exclusive", "fed-hello")
CLIENTS, COHORT, LAYERS, ROUNDS = 100, 10, 12, 500
GROUPS = (33, 33, 34)
"""Clients of the low, mid and high group, ids in this order: int(100/3) twice, the rest for the last."""
GROUP_LAYERS = (6, 9, 12)
"""Layers that a client of each group can hold."""
FIRST_FIM_ROUND = 50
"""KMeans draws from the same stream here, on scores that were not logged: the end of what can be followed."""
UNKNOWN = (
    f"Fed-HeLLo's rounds from {FIRST_FIM_ROUND + 1} on are unknown: there the released code clusters Fisher "
    "scores with KMeans, which draws from the same stream, and the scores were not logged"
)

_EXAMPLES, _FIM_EXAMPLES, _CLASSES, _SEED = 50_000, 100, 100, 1
_BOTTLENECK = np.array([3, 3, 3, 2, 2, 1, 1, 1, 2, 3, 3, 3]) / 27  # `layer_prob` of the released settings


@dataclass(frozen=True)
class Defects:
    """Each defect of the released code that the replay depends on, by name; all are on as released.

    Attributes:
        freeze_by_substring: a layer is frozen when the digits of *any* unallocated layer occur in its own
            number: without layer 1, layers 10 and 11 freeze too; without layer 0, layer 10 does.
        fim_draws_from_the_shared_stream: the draw of the Fisher examples moves everything after it, so that
            Fed-HeLLo has another split and other cohorts than its baselines at the same seed.
    """

    freeze_by_substring: bool = True
    fim_draws_from_the_shared_stream: bool = True


AS_RELEASED = Defects()


@dataclass(frozen=True)
class ReplayedRound:
    """One round as the released code drew it.

    Attributes:
        round_index: counted from 0, as in the logs.
        cohort: the 10 clients in the order drawn; None where the round is unknown.
        allocated: client of the cohort -> the layers it was allocated; a client that takes no part is left
            out. None where the round is unknown.
        trained: client -> the layers that really train, as ``allocated`` but for the freezing defect.
    """

    round_index: int
    cohort: tuple[int, ...] | None
    allocated: Mapping[int, tuple[int, ...]] | None
    trained: Mapping[int, tuple[int, ...]] | None

    @property
    def training_clients(self) -> int | None:
        """How many clients of the cohort train; None where the round is unknown."""
        return None if self.trained is None else len(self.trained)

    @property
    def median_layers(self) -> int | None:
        """Lower median of the numbers of trained layers (as `torch.median`, the logs' median).

        None where the round is unknown or nobody trains.
        """
        if not self.trained:
            return None
        return sorted(map(len, self.trained.values()))[(len(self.trained) - 1) // 2]


def replay(
    split: str, method: str, rounds: int = ROUNDS, defects: Defects = AS_RELEASED
) -> list[ReplayedRound]:
    """The first ``rounds`` rounds of an official CIFAR-100 run (seed 1, groups 1:1:1).

    Args:
        split: one of `SPLITS`.
        method: "exclusive" (only the high group trains, all layers) or "fed-hello" (random layers with the
            bottleneck's probabilities).
        rounds: 1 to 500.

    Returns:
        One record a round. Fed-HeLLo's from round 50 on are unknown (see `UNKNOWN`): nothing is invented.

    Raises:
        UnknownName: no such split or method.
        BadValue: rounds outside 1..500.

    >>> [r.training_clients for r in replay("iid", "exclusive", 4)]
    [5, 4, 3, 3]
    """
    if split not in SPLITS:
        raise UnknownName("split of the official logs", split, SPLITS)
    if method not in METHODS:
        raise UnknownName("method to replay", method, METHODS)
    if isinstance(rounds, bool) or not isinstance(rounds, int) or not 1 <= rounds <= ROUNDS:
        raise BadValue(
            f"rounds={rounds!r} cannot be replayed", f"the official runs have 1 to {ROUNDS} rounds"
        )
    rng = np.random.RandomState(_SEED)  # the legacy generator: its draws are fixed for ever
    examples = _EXAMPLES
    if method == "fed-hello":
        examples -= _FIM_EXAMPLES
        if defects.fim_draws_from_the_shared_stream:
            rng.choice(_EXAMPLES, _FIM_EXAMPLES, replace=False)
    _draw_partition(rng, SPLITS[split], examples)
    play = _exclusive_round if method == "exclusive" else _fed_hello_round
    known = rounds if method == "exclusive" else min(rounds, FIRST_FIM_ROUND)
    return [play(rng, r, defects) if r < known else ReplayedRound(r, None, None, None) for r in range(rounds)]


def _draw_partition(rng: np.random.RandomState, classes_per_client: int | None, examples: int) -> None:
    """Consume what the partition consumes; who holds which example is of no interest here."""
    if classes_per_client is None:
        share = examples // CLIENTS
        for client in range(CLIENTS):
            rng.choice(examples - client * share, share, replace=False)
        return
    classes = list(range(_CLASSES))
    for _ in range(CLIENTS * classes_per_client // _CLASSES):  # passes over all the classes
        rng.shuffle(classes)


def _exclusive_round(rng: np.random.RandomState, round_index: int, defects: Defects) -> ReplayedRound:
    cohort = _cohort(rng)
    layers = {k: tuple(range(LAYERS)) for k in cohort if k >= GROUPS[0] + GROUPS[1]}
    return ReplayedRound(round_index, cohort, layers, layers)


def _fed_hello_round(rng: np.random.RandomState, round_index: int, defects: Defects) -> ReplayedRound:
    sizes = np.repeat(GROUP_LAYERS, GROUPS)
    drawn = [rng.choice(LAYERS, size=int(size), replace=False, p=_BOTTLENECK) for size in sizes]
    cohort = _cohort(rng)
    allocated = {k: tuple(sorted(int(layer) for layer in drawn[k])) for k in cohort}
    trained = allocated
    if defects.freeze_by_substring:
        trained = {
            k: tuple(layer for layer in layers if layer not in frozen_by_substring(layers, LAYERS))
            for k, layers in allocated.items()
        }
    return ReplayedRound(round_index, cohort, allocated, trained)


def _cohort(rng: np.random.RandomState) -> tuple[int, ...]:
    return tuple(int(k) for k in rng.choice(CLIENTS, COHORT, replace=False))
