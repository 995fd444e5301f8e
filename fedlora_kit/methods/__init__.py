"""Federated-LoRA methods by name. One small file a method; no loops in here."""

from fedlora_kit.methods.base import METHODS, ClientUpdate, Method, method, register, weighted_mean
from fedlora_kit.methods.fedit import FedIT
from fedlora_kit.methods.ffa_lora import FFALoRA

__all__ = ["METHODS", "ClientUpdate", "FFALoRA", "FedIT", "Method", "method", "register", "weighted_mean"]
