"""What the federation costs over a plain PEFT loop on the very same batches.

    python benchmarks/federated_overhead.py [--repeats 7] [--out benchmarks/results]

Two programs train the same adapter on the same batches, in turn, on one thread:

* plain: one PEFT model, one optimiser a client and round, forward, backward, step. Nothing else.
* federated: `training.rounds.run_federation`, with copying adapters in and out, averaging, checks.

No evaluation in either. Timed by the process's CPU time; reported is the median of the paired ratios with
their quartiles. The bar is 1.15.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import transformers

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.data.batches import physical_batches, shuffled_batches
from fedlora_kit.data.encoded import EncodedText
from fedlora_kit.methods import method
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.randomness import Streams
from fedlora_kit.training.federation import Federation
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.settings import FederationSettings, LocalSettings

CLIENTS, EXAMPLES, ROUNDS = 3, 400, 4
CPU = torch.device("cpu")


def text(n: int, seed: int, shortest: int = 8, longest: int = 40) -> EncodedText:
    """n sequences of random tokens."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(shortest, longest + 1, size=n))]).astype(np.int64)
    tokens = rng.integers(5, 400, size=int(offsets[-1])).astype(np.int32)
    return EncodedText({"input_ids": tokens}, offsets, rng.integers(0, 2, size=n), {"input_ids": 1})


def model(width: int, layers: int) -> torch.nn.Module:
    """A random RoBERTa classifier with LoRA on q, k, v, o."""
    config = transformers.RobertaConfig(
        vocab_size=400,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * width,
        max_position_embeddings=160,
        num_labels=2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    base = transformers.AutoModelForSequenceClassification.from_config(config)
    return attach_lora(base, LoraSettings(rank=8, alpha=8), seed=1)


def plain(net: torch.nn.Module, clients: list[EncodedText], local: LocalSettings, streams: Streams) -> None:
    """The limit: the same batches through one PEFT model, and nothing else."""
    net.train()
    parameters = [p for p in net.parameters() if p.requires_grad]
    for r in range(ROUNDS):
        for k, data in enumerate(clients):
            optimizer = torch.optim.SGD(parameters, lr=local.lr)
            rng = streams.generator("data", r, k)
            for batch in shuffled_batches(len(data), local.batch_size, local.steps, rng):
                optimizer.zero_grad(set_to_none=True)
                for piece in physical_batches(data.lengths, batch, local.max_tokens):
                    inputs, labels = data.batch(piece, CPU)
                    logits = net(**inputs).logits
                    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
                    (loss / len(batch)).backward()
                optimizer.step()


def federated(
    net: torch.nn.Module, clients: list[EncodedText], local: LocalSettings, streams: Streams
) -> None:
    """The kit's round loop on the same clients."""
    run_federation(
        Federation(
            model=net,
            method=method("lora"),
            clients=clients,
            evals={},
            rounds=FederationSettings(rounds=ROUNDS, eval_every=0),
            local=local,
            streams=streams,
        )
    )


def measure(width: int, layers: int, repeats: int) -> dict[str, object]:
    """Paired ratios federated / plain, in alternating order."""
    clients = [text(EXAMPLES, seed=k) for k in range(CLIENTS)]
    local = LocalSettings(lr=1e-3, steps=10, batch_size=32)
    net = model(width, layers)
    start = AdapterSlot(net).read()
    ratios, seconds = [], []
    for repeat in range(repeats + 1):
        times = {}
        for program in (plain, federated) if repeat % 2 else (federated, plain):
            AdapterSlot(net).write(start)
            clock = time.process_time()
            program(net, clients, local, Streams(0))
            times[program] = time.process_time() - clock
        if repeat:  # the first pair warms up
            ratios.append(times[federated] / times[plain])
            seconds.append(times[plain])
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "width": width,
        "layers": layers,
        "ratio": middle,
        "quartiles": [low, high],
        "plain_seconds": statistics.median(seconds),
        "steps": ROUNDS * CLIENTS * local.steps,
    }


def main() -> None:
    """Print the ratios, and store them where --out says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(w, n, options.repeats) for w, n in ((96, 4), (256, 4))]
    for row in rows:
        low, high = row["quartiles"]  # type: ignore[misc]
        print(
            f"RoBERTa {row['layers']} x {row['width']}: federated / plain = {row['ratio']:.3f} "
            f"[{low:.3f}, {high:.3f}]  ({row['steps']} steps, plain {row['plain_seconds']:.2f} s)"
        )
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        record = {
            "benchmark": "federated_overhead",
            "rows": rows,
            "torch": torch.__version__,
            "machine": platform.machine(),
        }
        (options.out / "federated_overhead.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
