"""The three papers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """One of the three papers: its short id, its title and where it appeared."""

    id: str
    title: str
    reference: str


PAPERS: tuple[Paper, ...] = (
    Paper(
        "ffa-lora",
        "Improving LoRA in Privacy-preserving Federated Learning",
        "ICLR 2024, arXiv 2403.12313",
    ),
    Paper(
        "fed-hello",
        "Fed-HeLLo: Efficient Federated Foundation Model Fine-Tuning with Heterogeneous LoRA Allocation",
        "IEEE TNNLS 36(10) 2025, arXiv 2506.12213",
    ),
    Paper("fedlora-optimizer", "FedLoRA-Optimizer", "arXiv 2510.11274 (2025)"),
)
