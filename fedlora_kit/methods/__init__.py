"""Federated-LoRA methods by name. One small file a method; no loops in here."""

from fedlora_kit.methods.base import METHODS, ClientUpdate, Context, Method, method, register, weighted_mean
from fedlora_kit.methods.ditto import Ditto
from fedlora_kit.methods.exclusive import Exclusive
from fedlora_kit.methods.fed_hello import FedHeLLo
from fedlora_kit.methods.fedit import FedIT
from fedlora_kit.methods.fedlora_optimizer import FedLoRAOptimizer
from fedlora_kit.methods.fedra import FedRA
from fedlora_kit.methods.fedsa_lora import FedSALoRA
from fedlora_kit.methods.ffa_lora import FFALoRA
from fedlora_kit.methods.fim_hla import FIMHLA
from fedlora_kit.methods.flexlora import FlexLoRA
from fedlora_kit.methods.flora import FLoRA
from fedlora_kit.methods.gd_hla import GDHLA
from fedlora_kit.methods.hetlora import HETLoRA
from fedlora_kit.methods.local_only import LocalOnly
from fedlora_kit.methods.resources import Resources
from fedlora_kit.methods.rgd_hla import RGDHLA
from fedlora_kit.methods.stages import Stage
from fedlora_kit.methods.straggler import Straggler

__all__ = [
    "FIMHLA",
    "GDHLA",
    "METHODS",
    "RGDHLA",
    "ClientUpdate",
    "Context",
    "Ditto",
    "Exclusive",
    "FFALoRA",
    "FLoRA",
    "FedHeLLo",
    "FedIT",
    "FedLoRAOptimizer",
    "FedRA",
    "FedSALoRA",
    "FlexLoRA",
    "HETLoRA",
    "LocalOnly",
    "Method",
    "Resources",
    "Stage",
    "Straggler",
    "method",
    "register",
    "weighted_mean",
]
