"""How large the adapters of the paper's own model are: counted on the real modules, without their weights."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from fedlora_kit.adapter import AdapterSlot
from fedlora_kit.methods import method
from fedlora_kit.models.lora import LoraSettings, attach_lora
from fedlora_kit.papers.ffa_lora.grid import METHODS

#: RoBERTa-large (Liu et al. 2019): 24 layers of width 1024
ROBERTA_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "vocab_size": 50265,
}


def roberta_large_sizes(ranks: Sequence[int], methods: Sequence[str] = METHODS) -> pd.DataFrame:
    """Trained parameters and bytes sent per client and round at RoBERTa-large's size, q, k, v and o adapted.

    Built on PyTorch's meta device: every shape is there, no weight is.

    Returns:
        Columns rank and method (text), trained_parameters, sent_bytes (float32), seed (0: nothing random).
    """
    from transformers import RobertaConfig, RobertaForSequenceClassification

    rows = []
    for rank in ranks:
        with torch.device("meta"):
            model = RobertaForSequenceClassification(RobertaConfig(**ROBERTA_LARGE))
            slot = AdapterSlot(attach_lora(model, LoraSettings(rank=rank, alpha=rank), seed=0))
        for name in methods:
            rule = method(name)
            trained = [t for n, t in slot.parameters.items() if ".lora_" in n and rule.trains(n, 0, 0)]
            sent = [
                t
                for n, t in slot.parameters.items()
                if ".lora_" in n and rule.trains(n, 0, 0) and rule.sends(n)
            ]
            rows.append(
                {
                    "rank": str(rank),
                    "method": name,
                    "trained_parameters": sum(t.numel() for t in trained),
                    "sent_bytes": sum(4 * t.numel() for t in sent),
                    "seed": 0,
                }
            )
    return pd.DataFrame(rows)
