"""Backbones by name, LoRA on them, and what happens to the head."""

from fedlora_kit.models.backbones import backbone_fingerprint, load_backbone
from fedlora_kit.models.first_token import read_first_token
from fedlora_kit.models.lora import HeadPolicy, LoraSettings, attach_lora
from fedlora_kit.models.names import backbone_names
from fedlora_kit.models.targets import layer_index, lora_targets
from fedlora_kit.models.tokenizer import load_tokenizer

__all__ = [
    "HeadPolicy",
    "LoraSettings",
    "attach_lora",
    "backbone_fingerprint",
    "backbone_names",
    "layer_index",
    "load_backbone",
    "load_tokenizer",
    "lora_targets",
    "read_first_token",
]
