"""Many small clients: trained together in one pass over the backbone, against one after the other.

    python benchmarks/stacked_clients.py [--repeats 7] [--only text] [--out benchmarks/results]

The same 16 clients, batches and steps, in turn, on one thread, by CPU time:

* limit: a plain PEFT loop, client after client: one model as transformers and PEFT make it, one optimiser a
  client, each client's batch padded to its own longest example. No federation.
* alone: the kit's round loop, client after client.
* stacked: the kit's round loop with stacks.
* Opacus (DP only): the limit with Opacus' hooks and optimiser.

Without DP the bar for limit / stacked is 1.8; with DP, Opacus / stacked should reach 2.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent))
from pairs import CPU, in_turn, line, options, ratio, store

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.data.batches import poisson_batches, shuffled_batches
from fedlora_kit.data.encoded import EncodedData, EncodedImages, EncodedText
from fedlora_kit.methods import method
from fedlora_kit.models.first_token import read_first_token
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.privacy.dpsgd import PerExampleGradients, private_optimizer, private_step
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.randomness import Streams
from fedlora_kit.training.federation import Federation
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.settings import FederationSettings, LocalSettings

CLIENTS, EXAMPLES, STEPS = 16, 64, 6
SIGMA, CLIP = 1.0, 1.0


@dataclass(frozen=True)
class Case:
    """Backbone and batch of one comparison.

    Attributes:
        tokens: length of every text (the worst case for a stack, which cannot save padding), or (shortest,
            longest); ignored for images, which have 17.
        epsilon: with DP or without.
    """

    name: str
    width: int
    batch: int
    tokens: tuple[int, int]
    private: bool = False
    optimizer: str = "adamw"


CASES = (
    Case("text, width 128, batch 16 x 16 tokens", 128, 16, (16, 16)),
    Case("text, width 128, batch 8 x 16 tokens", 128, 8, (16, 16)),
    Case("text, width 128, batch 4 x 16 tokens", 128, 4, (16, 16)),
    Case("text, width 128, batch 16 x 32 tokens", 128, 16, (32, 32)),
    Case("text, width 128, batch 16 x 8 to 32 tokens", 128, 16, (8, 32)),
    Case("text, width 64, batch 16 x 8 to 32 tokens", 64, 16, (8, 32)),
    Case("image, width 64, batch 16 x 17 tokens", 64, 16, (17, 17)),
    Case("image, width 128, batch 16 x 17 tokens", 128, 16, (17, 17)),
    Case("dp text, width 128, batch 16 x 16 tokens", 128, 16, (16, 16), private=True, optimizer="sgd"),
    Case("dp text, width 64, batch 16 x 8 to 32 tokens", 64, 16, (8, 32), private=True, optimizer="sgd"),
    Case("dp image, width 64, batch 16 x 17 tokens", 64, 16, (17, 17), private=True, optimizer="sgd"),
)


def examples(case: Case, seed: int) -> EncodedData:
    """Random texts of the case's lengths, or random images of 4 x 4 patches."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, size=EXAMPLES)
    if "image" in case.name:
        return EncodedImages(rng.normal(size=(EXAMPLES, 1, 8, 8)).astype(np.float32), labels)
    low, high = case.tokens
    offsets = np.concatenate([[0], np.cumsum(rng.integers(low, high + 1, size=EXAMPLES))]).astype(np.int64)
    tokens = rng.integers(5, 400, size=int(offsets[-1])).astype(np.int32)
    return EncodedText({"input_ids": tokens}, offsets, labels, {"input_ids": 1})


def model(case: Case) -> torch.nn.Module:
    """Four random layers with LoRA of rank 8 on q, k, v, o."""
    size = {
        "hidden_size": case.width,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 2 * case.width,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "num_labels": 2,
    }
    torch.manual_seed(0)
    base: torch.nn.Module
    if "image" in case.name:
        config = transformers.ViTConfig(image_size=8, patch_size=2, num_channels=1, **size)
        base = transformers.AutoModelForImageClassification.from_config(config)
    else:
        text = transformers.RobertaConfig(vocab_size=400, max_position_embeddings=64, **size)
        base = transformers.AutoModelForSequenceClassification.from_config(text)
    return attach_lora(base, LoraSettings(rank=8, alpha=8), seed=1)


def limit(
    net: torch.nn.Module, clients: list[EncodedData], start: dict[str, torch.Tensor], local: LocalSettings
) -> None:
    """A plain PEFT loop: what a client's training costs at least, one client at a time."""
    net.train()
    slot = AdapterSlot(net)
    slot.set_trainable(slot.names)
    parameters = list(slot.parameters.values())
    for k, data in enumerate(clients):
        slot.write(start)
        make = torch.optim.SGD if local.optimizer == "sgd" else torch.optim.AdamW
        optimizer = make(parameters, lr=local.lr)
        rng = Streams(0).generator("data", 0, k)
        for batch in shuffled_batches(len(data), local.batch_size, local.steps, rng):
            inputs, labels = data.batch(batch, CPU)
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(net(**inputs).logits, labels).backward()
            optimizer.step()


def opacus(
    net: torch.nn.Module, clients: list[EncodedData], start: dict[str, torch.Tensor], local: LocalSettings
) -> None:
    """The same with Opacus: Poisson samples, hooks, clipping and noise; the hooks are attached once."""
    slot = AdapterSlot(net)
    slot.set_trainable(slot.names)
    with PerExampleGradients(net) as hooks:
        for k, data in enumerate(clients):
            slot.write(start)
            optimizer = private_optimizer(
                torch.optim.SGD(hooks.parameters, lr=local.lr),
                sigma=SIGMA,
                clip=CLIP,
                expected_batch_size=local.batch_size,
                generator=torch.Generator().manual_seed(k),
            )

            def losses(rows: object, data: EncodedData = data) -> torch.Tensor:
                inputs, labels = data.batch(rows, CPU)  # type: ignore[arg-type]
                return torch.nn.functional.cross_entropy(net(**inputs).logits, labels, reduction="none")

            seed = Streams(0).seed("data", 0, k)
            for batch in poisson_batches(len(data), local.batch_size / len(data), local.steps, seed):
                private_step(hooks, optimizer, [batch] if len(batch) else [], losses)


def measure(case: Case, repeats: int) -> dict[str, object]:
    """Ratios of the programs' times."""
    clients = [examples(case, seed) for seed in range(CLIENTS)]
    local = LocalSettings(
        optimizer=case.optimizer,  # type: ignore[arg-type]
        lr=1e-3,
        steps=STEPS,
        batch_size=case.batch,
    )
    plain, net = model(case), model(case)
    read_first_token(net)  # as runs do
    slot = AdapterSlot(net)
    start = slot.read()

    def federated(stack: str) -> Callable[[], object]:
        def run() -> None:
            slot.write(start)
            run_federation(
                Federation(
                    model=net,
                    method=method("lora"),
                    clients=clients,
                    evals={},
                    rounds=FederationSettings(rounds=1, eval_every=0),
                    local=local.model_copy(update={"stack": stack}),
                    streams=Streams(0),
                    privacy=PrivacySettings(sigma=SIGMA, clip=CLIP) if case.private else None,
                )
            )

        return run

    reference = "Opacus" if case.private else "limit"
    loop = opacus if case.private else limit
    seconds = in_turn(
        {
            reference: lambda: loop(plain, clients, start, local),
            "alone": federated("never"),
            "stacked": federated("auto"),
        },
        repeats,
    )
    speedup = ratio(seconds[reference], seconds["stacked"])
    print(f"{case.name}: {1000 * float(np.median(seconds[reference])) / STEPS / CLIENTS:.1f} ms a step alone")
    line(f"{reference} / stacked", speedup, ">= 2.0" if case.private else ">= 1.8")
    line(f"alone / {reference}", ratio(seconds["alone"], seconds[reference]), "-")
    return {
        "case": case.name,
        "reference": reference,
        "speedup": speedup,
        "alone_over_reference": ratio(seconds["alone"], seconds[reference]),
        "seconds": {name: float(np.median(values)) for name, values in seconds.items()},
        "bar": 2.0 if case.private else 1.8,
    }


def main() -> None:
    """Print the ratios and store them."""
    import warnings

    warnings.filterwarnings("ignore", message="delta=")
    given = options(__doc__, 7)
    rows = [measure(case, given.repeats) for case in CASES if case.name.startswith(given.only)]
    store("stacked_clients", rows, given.out)


if __name__ == "__main__":
    main()
