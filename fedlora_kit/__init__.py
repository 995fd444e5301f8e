"""fedlora-kit: reproduce, teach and extend three federated-LoRA papers."""

__version__ = "0.1.0"
