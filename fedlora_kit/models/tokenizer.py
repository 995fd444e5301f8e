"""A backbone's tokenizer, checked: not empty, with its first token, within the model's positions."""

from __future__ import annotations

import json
import sys
from typing import Any

from torch import device

from fedlora_kit import hub
from fedlora_kit.errors import FedloraError
from fedlora_kit.models.backbones import backbone_config, files_of, from_anywhere
from fedlora_kit.models.kinds import default_kind
from fedlora_kit.models.names import backbone


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a backbone; its ``model_max_length`` is the shorter of its own and the model's limit.

    One without a padding token pads with its end-of-sequence token, or with that for unknown words.

    Raises:
        FedloraError: it cannot be had, is empty, or leaves out the first token that its configuration
            asks for.
    """
    from transformers import AutoTokenizer

    files = (*hub.CONFIGURATION, *hub.TOKENIZER)
    tokenizer = from_anywhere(name, AutoTokenizer.from_pretrained, {}, files)
    words = len(tokenizer) - len(set(tokenizer.all_special_ids))
    if words < 1:  # transformers makes an empty tokenizer where the files are missing, and says nothing
        raise FedloraError(
            f"model {name} comes without its tokenizer's files (tokenizer.json, or vocabulary and merges)",
            "put them beside the weights"
            + ("" if backbone(name).is_folder else f", into models/{backbone(name).repo} of the mirror"),
        )
    tokenizer = _with_first_token(name, tokenizer, files)
    if tokenizer.pad_token is None:  # padding is masked: any token will do
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise FedloraError(
            f"the tokenizer of {name} has no token to pad with: neither pad, nor eos, nor unk",
            "give it one and save it again: tokenizer.pad_token = ...",
        )
    positions = positions_of(backbone_config(name))
    tokenizer.model_max_length = min(int(tokenizer.model_max_length), positions)
    return tokenizer


def _with_first_token(name: str, tokenizer: Any, files: tuple[str, ...]) -> Any:
    """The tokenizer, so that texts begin as ``add_bos_token`` in tokenizer_config.json says.

    transformers 5 leaves that word out where there is a tokenizer.json, which may add no token.
    """
    from transformers import AutoTokenizer

    told = files_of(name, files) / "tokenizer_config.json"
    if not told.is_file() or json.loads(told.read_text("utf-8")).get("add_bos_token") is not True:
        return tokenizer
    for _ in range(2):
        if tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]:
            return tokenizer
        tokenizer = from_anywhere(name, AutoTokenizer.from_pretrained, {"add_bos_token": True}, files)
    raise FedloraError(
        f"the tokenizer of {name} does not begin texts with {tokenizer.bos_token}, as its configuration says",
        "the files are of another release of transformers; a tokenizer.json that adds the token is needed",
    )


def positions_of(config: Any) -> int:
    """Tokens that a model takes at most; where padding has a position of its own (RoBERTa and its
    descendants), those of the tokens begin after it."""
    from transformers import AutoModel

    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int):
        return sys.maxsize
    if default_kind(config) != "text":
        return positions
    with device("meta"):
        model = AutoModel.from_config(config)
    padding = [m.padding_idx for n, m in model.named_modules() if n.endswith("position_embeddings")]
    return positions - next((int(p) + 1 for p in padding if p is not None), 0)


def answering_positions(config: Any) -> int:
    """Tokens of a prompt and its answer that a causal model can read: a table of positions ends there,
    rotations (which go on) do not."""
    return sys.maxsize if getattr(config, "rope_parameters", None) else positions_of(config)
