"""What a run will cost, before it is trained: operations, passes, memory, traffic and disk.

Who trains what in which round is asked of the run's own method, cohort and split settings
(`planning.counting`), and traffic of `training.costs`: an estimate knows the same rules as the round loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Any

from fedlora_kit import paths
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.models.targets import head_modules
from fedlora_kit.planning.architectures import empty_model, weights_bytes
from fedlora_kit.planning.counting import Counter
from fedlora_kit.planning.operations import operations
from fedlora_kit.training.costs import client_costs
from fedlora_kit.training.federation import trained_names

#: bytes of a finished run beside its tensors: description, summary, provenance, manifest; and of each round
RECORDS, RECORD = 12_000, 500
#: copies of the trained values that DP holds for each example of a physical batch: values, gradient, and one
#: that is on its way to be clipped
PRIVATE_COPIES = 3


@dataclass(frozen=True)
class Estimate:
    """The cost of one run.

    Attributes:
        training_flops, evaluation_flops: operations of matrix products; evaluation holds generated answers.
        forward_layers, backward_layers: layers passed through in all forward and all backward passes: each
            takes a time of its own, however small the batch.
        rounds: of the federation.
        weights_bytes: the backbone's weights in memory.
        memory_bytes: largest memory on the device: weights, adapter with gradients and optimiser, and what
            the largest batch holds in training (under DP with each example's gradient) or in scoring.
        bytes_up, bytes_down: all clients' traffic, all rounds.
        store_bytes: the finished run on disk.
        private: whether it trains under DP.
        known: where the data's sizes are from: "data" or "published sizes".
    """

    training_flops: float
    evaluation_flops: float
    forward_layers: float
    backward_layers: float
    rounds: int
    weights_bytes: float
    memory_bytes: float
    bytes_up: float
    bytes_down: float
    store_bytes: float
    private: bool
    known: str

    @property
    def flops(self) -> float:
        """All operations."""
        return self.training_flops + self.evaluation_flops


def estimate(spec: RunSpec, gpu: bool = False) -> Estimate:
    """The cost of a run.

    Args:
        gpu: trained on a GPU, where a pass costs more and batches are cut less (`data.batches`).

    Raises:
        FedloraError: the shape of its backbone, or the size of its data, is not known on this machine.
    """
    return _estimate(_without_what_costs_nothing(spec).canonical(), gpu, str(paths.hub_dir()))


@lru_cache(maxsize=4096)
def _estimate(canonical: str, gpu: bool, _hub: str) -> Estimate:
    count = Counter(RunSpec.model_validate_json(canonical), gpu)
    spec, shape = count.spec, count.shape
    (trained, deepest), scored = count.training(), count.evaluation()
    # the mean over all clients is what a cohort drawn at random sends, whatever their groups; 20 clients
    # stand for more, in the same proportions
    costs = client_costs(count.fed if spec.split.clients <= 20 else count.federation(20), 0)
    visits = spec.rounds.rounds * (spec.rounds.cohort or spec.split.clients)
    weights = weights_bytes(shape, count.labels, spec.model.dtype, spec.model.load_in_4bit)
    adapter = max(cost.training_bytes for cost in costs)
    return Estimate(
        training_flops=trained.flops,
        evaluation_flops=scored.flops,
        forward_layers=trained.forward + scored.forward,
        backward_layers=trained.backward,
        rounds=spec.rounds.rounds,
        weights_bytes=weights,
        memory_bytes=weights + adapter + max(_training(count, deepest), _scoring(count)),
        bytes_up=visits * fmean(cost.upload_bytes for cost in costs),
        bytes_down=visits * fmean(cost.download_bytes for cost in costs),
        store_bytes=_disk(count),
        private=spec.privacy is not None,
        known=count.amounts.known,
    )


def _without_what_costs_nothing(spec: RunSpec) -> RunSpec:
    """Runs that differ in rates, seeds, starts and noise cost the same: counted once."""
    lora = spec.model.lora.model_copy(update={"alpha": 1.0, "init": "kaiming"})
    parts: dict[str, Any] = {
        "model": spec.model.model_copy(update={"lora": lora, "weights": "pretrained"}),
        "local": spec.local.model_copy(update={"lr": 1.0, "lr_decay": 1.0, "weight_decay": 0.0}),
        "seed": 0,
    }
    if spec.privacy is not None:
        parts["privacy"] = spec.privacy.model_copy(update={"epsilon": 1.0, "clip": 1.0})
    return spec.model_copy(update=parts)


def _bytes_each(count: Counter) -> int:
    return 2 if "bf16" in (count.spec.precision, count.spec.model.dtype) else 4


def _training(count: Counter, layers: int) -> float:
    """Of the largest physical batch that trains, in bytes: its activations, and DP's gradients one by one."""
    spec, clients = count.spec, count.fed.clients
    size = min(spec.local.batch_size, len(clients[0]))
    if spec.privacy is not None:  # a Poisson sample: four standard deviations above its mean
        size = min(len(clients[0]), round(size + 4 * size**0.5))
    together = size * count.stacked(len(clients))
    rows, width = count.largest_piece(count.amounts.train.lengths, together, spec.local.max_tokens)
    passed = [True] * max(1, layers)
    kept = count.operations.step(width, passed, first_token=count.reads_first_token, kept=True)
    inside = rows * kept.activation_bytes * _bytes_each(count) / 4
    if spec.model.gradient_checkpointing:
        inside += rows * _layer_bytes(count, width)
    scored = count.answer(count.amounts.train)
    if scored is not None:  # its scores as computed, in float32, and their gradient
        inside += rows * scored * count.shape.config.vocab_size * (_bytes_each(count) + 8)
    if spec.privacy is None:
        return inside
    trained = sum(count.slot.parameters[n].numel() for n in trained_names(count.fed, count.slot, 0, 0))
    return inside + 4.0 * PRIVATE_COPIES * rows * trained


def _layer_bytes(count: Counter, width: float) -> float:
    """What one layer keeps of an example for its backward pass; about what it holds at a time."""
    plain = operations(count.shape, count.labels, count.spec.model.lora)
    one, two = (plain.step(width, [True] * n, kept=True).activation_bytes for n in (1, 2))
    return (two - one) * _bytes_each(count) / 4


def _scoring(count: Counter) -> float:
    """Of the largest batch that is scored, in bytes; of generated answers with their keys and values."""
    budget, largest = count.spec.rounds.eval_max_tokens, 0.0
    for part in count.amounts.evals.values():
        if not part.count:
            continue
        rows, width = count.largest_piece(part.lengths, part.count, budget)
        held = rows * _layer_bytes(count, width)
        if count.causal:
            rows, width = count.largest_piece(part.prompts + count.amounts.new_tokens, part.count, budget)
            numbers = float(count.shape.layers * count.operations.cache_numbers * rows * width)
            prompts = rows * _layer_bytes(count, width - count.amounts.new_tokens)
            held = max(held, numbers * _bytes_each(count) + prompts)
        largest = max(largest, held)
    return largest


def _disk(count: Counter) -> float:
    """The adapter, what clients keep of it, and the records, in bytes."""
    spec, chosen = count.spec, count.fed.method
    sizes = {name: 4 * p.numel() for name, p in count.slot.parameters.items()}
    own_head = spec.model.lora.head == "personal" or not chosen.sends_head
    kept = [n for n in sizes if (not chosen.sends(n) if ".lora_" in n else own_head)]
    stays: float = sum(sizes[n] for n in kept)
    for stage in chosen.stages(spec.rounds.rounds - 1, last=True):  # magnitudes are next to nothing
        factors = {part[0] for part in stage.trains if not part.endswith("_M") and part not in stage.shares}
        if stage.where == "clients":
            stays = max(
                stays, sum(n for name, n in sizes.items() if any(f".lora_{f}" in name for f in factors))
            )
    bare = empty_model(count.shape, count.labels)
    parts = head_modules(bare)  # a frozen random head is kept beside the adapter
    head: int = sum(4 * p.numel() for part in parts for p in getattr(bare, part).parameters())
    trained = sum(n for name, n in sizes.items() if ".lora_" in name)
    return trained + head + spec.split.clients * stays + RECORDS + RECORD * spec.rounds.rounds
