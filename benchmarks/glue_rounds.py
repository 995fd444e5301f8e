"""Federated LoRA on real GLUE text: the kit, the limit, and the loop that is usual in the field.

    FEDLORA_HUB=/some/mirror python benchmarks/glue_rounds.py [--repeats 5] [--only sst2]

A random RoBERTa of 4 layers, width 256, with LoRA on q, k, v, o; 10 clients of 200 examples, batches of 32,
at most 128 tokens; one round of 3 steps a client, then accuracy on 100 validation examples. In turn, on one
thread, by CPU time:

* limit: a plain PEFT loop over the same batches, sorted by length and cut in the same way. One model as
  transformers and PEFT make it, no federation, no evaluation.
* kit: `run_federation` without evaluation.
* kit, evaluating: the same, and the evaluation after the round.
* usual: a deep copy of the whole model, a new data loader and a new optimiser for each client; everything
  padded to 128 tokens; whole state dictionaries averaged; evaluation after the round, padded as well.

Bars: usual / kit, evaluating >= 3 (both evaluate, so that nothing is gained by leaving it out); kit / limit
<= 1.05.
"""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent))
from pairs import CPU, in_turn, line, options, ratio, store

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.data.batches import physical_batches, shuffled_batches
from fedlora_kit.data.encoded import EncodedText, encode_text
from fedlora_kit.data.sources import load_task
from fedlora_kit.data.tasks import get_task
from fedlora_kit.methods import method
from fedlora_kit.models.first_token import read_first_token
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.randomness import Streams
from fedlora_kit.training.federation import Federation
from fedlora_kit.training.rounds import run_federation
from fedlora_kit.training.settings import FederationSettings, LocalSettings

CLIENTS, EXAMPLES, STEPS, BATCH, LENGTH, SCORED = 10, 200, 3, 32, 128, 100


def tokenizer() -> transformers.PreTrainedTokenizerBase:
    """RoBERTa's tokenizer, from the mirror: beside the model, or on its own."""
    hub = Path(os.environ["FEDLORA_HUB"])
    for folder in (hub / "models/FacebookAI/roberta-base", hub / "tokenizers/roberta-base"):
        if (folder / "vocab.json").exists() or (folder / "tokenizer.json").exists():
            return transformers.RobertaTokenizerFast.from_pretrained(str(folder))
    raise SystemExit(f"no tokenizer of roberta-base in {hub}: fetch it with `fedlora fetch`")


def model(words: int) -> torch.nn.Module:
    """Random weights: they do not change the time."""
    config = transformers.RobertaConfig(
        vocab_size=words,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=LENGTH + 2,
        num_labels=2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    base = transformers.AutoModelForSequenceClassification.from_config(config)
    return attach_lora(base, LoraSettings(rank=8, alpha=8), seed=1)


def limit(net: torch.nn.Module, clients: list[EncodedText], local: LocalSettings) -> None:
    """Forward, backward, step on the same batches; nothing else."""
    net.train()
    slot = AdapterSlot(net)
    slot.set_trainable(slot.names)
    parameters = list(slot.parameters.values())
    for k, data in enumerate(clients):
        optimizer = torch.optim.SGD(parameters, lr=local.lr)
        rng = Streams(0).generator("data", 0, k)
        for batch in shuffled_batches(len(data), local.batch_size, local.steps, rng):
            optimizer.zero_grad(set_to_none=True)
            for piece in physical_batches(data.lengths, batch, local.max_tokens):
                inputs, labels = data.batch(piece, CPU)
                loss = torch.nn.functional.cross_entropy(net(**inputs).logits, labels, reduction="sum")
                (loss / len(batch)).backward()
            optimizer.step()


class Padded(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """What the field's loops train on: every example as long as the longest allowed."""

    def __init__(self, data: EncodedText) -> None:
        self.ids = torch.full((len(data), LENGTH), data.pad["input_ids"])
        self.mask = torch.zeros(len(data), LENGTH, dtype=torch.int64)
        self.labels = torch.from_numpy(data.labels)
        for i, n in enumerate(data.lengths):
            start = data.offsets[i]
            flat = data.fields["input_ids"][start : start + n]
            self.ids[i, :n] = torch.from_numpy(flat.astype(np.int64))
            self.mask[i, :n] = 1

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[i], "attention_mask": self.mask[i], "labels": self.labels[i]}


def usual(net: torch.nn.Module, clients: list[Padded], scored: Padded, local: LocalSettings) -> None:
    """One round as federated-LoRA research code commonly writes it."""
    torch.manual_seed(0)
    states = []
    for data in clients:
        own = copy.deepcopy(net)
        own.train()
        loader = torch.utils.data.DataLoader(data, batch_size=local.batch_size, shuffle=True)
        optimizer = torch.optim.SGD([p for p in own.parameters() if p.requires_grad], lr=local.lr)
        for step, batch in enumerate(loader):
            if step == local.steps:
                break
            optimizer.zero_grad()
            own(**batch).loss.backward()
            optimizer.step()
        states.append(copy.deepcopy(own.state_dict()))
    mean = {
        name: torch.stack([s[name].float() for s in states]).mean(0).to(first.dtype)
        for name, first in states[0].items()
    }
    server = copy.deepcopy(net)
    server.load_state_dict(mean)
    server.eval()
    right = 0
    with torch.no_grad():
        for batch in torch.utils.data.DataLoader(scored, batch_size=local.batch_size):
            right += int((server(**batch).logits.argmax(-1) == batch["labels"]).sum())


def measure(task: str, repeats: int) -> dict[str, object]:
    """All programs on one task."""
    loaded = load_task(get_task(task))
    words = tokenizer()
    whole = encode_text(loaded.train, words, LENGTH)
    order = np.random.default_rng(0).permutation(len(whole))
    clients = [whole.subset(order[k * EXAMPLES : (k + 1) * EXAMPLES]) for k in range(CLIENTS)]
    scored = encode_text(next(iter(loaded.evals.values())), words, LENGTH).subset(np.arange(SCORED))
    padded, padded_scored = [Padded(c) for c in clients], Padded(scored)
    net, bare = model(len(words)), model(len(words))
    read_first_token(net)  # as runs do
    slot, bare_slot = AdapterSlot(net), AdapterSlot(bare)
    start = slot.read()
    local = LocalSettings(lr=1e-3, steps=STEPS, batch_size=BATCH)

    def kit(evals: dict[str, EncodedText]) -> None:
        slot.write(start)
        run_federation(
            Federation(
                model=net,
                method=method("lora"),
                clients=clients,
                evals=evals,
                rounds=FederationSettings(rounds=1),
                local=local,
                streams=Streams(0),
            )
        )

    def plain() -> None:
        bare_slot.write(start)
        limit(bare, clients, local)

    def field() -> None:
        bare_slot.set_trainable(bare_slot.names)
        usual(bare, padded, padded_scored, local)

    seconds = in_turn(
        {
            "limit": plain,
            "kit": lambda: kit({}),
            "kit, evaluating": lambda: kit({"validation": scored}),
            "usual": field,
        },
        repeats,
    )
    against_usual = ratio(seconds["usual"], seconds["kit, evaluating"])
    against_limit = ratio(seconds["kit"], seconds["limit"])
    mean = float(np.mean([c.lengths.mean() for c in clients]))
    print(f"{task}: {mean:.0f} tokens an example, limit {np.median(seconds['limit']):.2f} s a round")
    line("usual / kit, evaluating", against_usual, ">= 3")
    line("kit / limit", against_limit, "<= 1.05")
    return {
        "task": task,
        "mean_tokens": mean,
        "usual_over_kit": against_usual,
        "kit_over_limit": against_limit,
        "seconds": {name: float(np.median(values)) for name, values in seconds.items()},
    }


def main() -> None:
    """Print the ratios and store them."""
    given = options(__doc__, 5)
    if "FEDLORA_HUB" not in os.environ:
        print("glue_rounds: skipped, FEDLORA_HUB names no mirror with SST-2 and QNLI")
        return
    rows = [measure(task, given.repeats) for task in ("sst2", "qnli") if task.startswith(given.only)]
    store("glue_rounds", rows, given.out)


if __name__ == "__main__":
    main()
