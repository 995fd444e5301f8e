"""A tiny random causal language model and question-answer pairs for tests."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import transformers

from fedlora_kit.data.encoded_causal import EncodedCausal, encode_causal
from fedlora_kit.data.task import Examples
from fedlora_kit.pretraining.causal import train_tokenizer

CPU = torch.device("cpu")
MAX_NEW_TOKENS = 12


@lru_cache(maxsize=1)
def tokenizer():
    """Bytes and single digits only: 256 + 3 tokens."""
    return train_tokenizer(["a"], vocabulary=0, max_length=512)


def causal_model(kind: str = "llama", seed: int = 0) -> torch.nn.Module:
    """A Llama of 2 layers with random weights, large enough to make its answers differ."""
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer()),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=24,
        initializer_range=0.3,
        tie_word_embeddings=False,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transformers.LlamaForCausalLM(config).eval()


def pairs(n: int) -> Examples:
    """Sums of unequal length."""
    numbers = [(3 + 7 * i, 5 * i**3) for i in range(n)]
    questions = [f"How much is {a} and {b}{' really' * (i % 3)}?" for i, (a, b) in enumerate(numbers)]
    answers = [f"{'so ' * (i % 2)}\n#### {a + b}".strip() for i, (a, b) in enumerate(numbers)]
    return Examples((questions, answers), np.zeros(n, np.int64))


def causal_data(n: int, seed: int = 0) -> EncodedCausal:
    """The pairs, encoded; another seed is another order."""
    examples = pairs(n).take(np.random.default_rng(seed).permutation(n)) if seed else pairs(n)
    return encode_causal(examples, tokenizer(), prompt="plain", max_length=200, max_new_tokens=MAX_NEW_TOKENS)
