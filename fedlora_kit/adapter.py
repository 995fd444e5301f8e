"""What travels between server and clients: the flat, named set of an adapter's tensors.

One backbone stays in memory; a client's adapter goes in and out of it by copying its tensors. Names are
those of the backbone's modules ("roberta.encoder.layer.0.attention.self.query.lora_A.weight"), in model
order. Nothing here touches the backbone's own weights.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedlora_kit.errors import FedloraError
from fedlora_kit.models.components import DIRECTION, MAGNITUDE

State = dict[str, torch.Tensor]
_PREFIX = "base_model.model."
#: end of the name of DoRA's magnitude vector of W0 + BA, one entry an output (LoraSettings.use_dora)
DORA = ".lora_magnitude_vector"


def canonical(name: str) -> str:
    """A PEFT parameter name without PEFT's own prefix and adapter name.

    >>> canonical("base_model.model.vit.layers.0.attention.q_proj.lora_A.default.weight")
    'vit.layers.0.attention.q_proj.lora_A.weight'

    The components of a factor that is parametrised (`models.components`) are named by what they are; DoRA's
    magnitude vector is named alike in a model and in a checkpoint, where PEFT leaves ".weight" out.

    >>> canonical("base_model.model.m.lora_B.default.parametrizations.weight.original0")
    'm.lora_B.magnitude'
    >>> canonical("base_model.model.m.lora_magnitude_vector")
    'm.lora_magnitude_vector.weight'
    """
    plain = name.removeprefix(_PREFIX).replace(".default.", ".")
    plain = plain.replace(".parametrizations.weight.original0", MAGNITUDE)
    plain = plain.replace(".parametrizations.weight.original1", DIRECTION)
    return plain + ".weight" if plain.endswith(DORA) else plain


class AdapterSlot:
    """The place in a PEFT model where adapters are put in and taken out.

    It covers every LoRA tensor and, where the head policy lets the head train, the head's tensors.
    The set is fixed when the slot is made; which of the tensors *train* is set by `set_trainable`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.parameters: dict[str, nn.Parameter] = {
            canonical(name): p for name, p in model.named_parameters() if p.requires_grad or ".lora_" in name
        }
        if not self.parameters:
            raise FedloraError("the model has no adapter", "attach LoRA first: models.attach_lora")

    @property
    def names(self) -> list[str]:
        """Names of all tensors, in model order."""
        return list(self.parameters)

    def set_trainable(self, names: Iterable[str]) -> None:
        """Let exactly ``names`` train; freeze the rest of the adapter.

        Raises:
            FedloraError: a name is not in the adapter.
        """
        wanted = set(names)
        unknown = wanted - self.parameters.keys()
        if unknown:
            raise FedloraError(f"not in the adapter: {sorted(unknown)[0]}", "name tensors of the adapter")
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(name in wanted)
            parameter.grad = None

    @property
    def trainable(self) -> list[str]:
        """Names of the tensors that train now, in model order."""
        return [name for name, p in self.parameters.items() if p.requires_grad]

    @torch.no_grad()
    def read(self, names: Iterable[str] | None = None) -> State:
        """Copies of the tensors (all, or ``names``), detached."""
        wanted = self.names if names is None else list(names)
        given = [self.parameters[n].detach() for n in wanted]
        copies = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in given]
        if copies:
            torch._foreach_copy_(copies, given)
        return dict(zip(wanted, copies, strict=True))

    @torch.no_grad()
    def write(self, state: Mapping[str, torch.Tensor]) -> None:
        """Copy a whole adapter in: keys sent are keys consumed, shapes are equal.

        Raises:
            FedloraError: a key is missing, left over, or of another shape. Nothing is written then.
        """
        if state.keys() != self.parameters.keys():
            missing = sorted(self.parameters.keys() - state.keys())
            extra = sorted(state.keys() - self.parameters.keys())
            raise FedloraError(
                f"this adapter does not fit: {len(missing)} tensors missing {missing[:1]}, "
                f"{len(extra)} left over {extra[:1]}",
                "the adapter belongs to another backbone, rank, target set or head policy",
            )
        for name, parameter in self.parameters.items():
            if state[name].shape != parameter.shape:
                raise FedloraError(
                    f"{name} has shape {tuple(state[name].shape)}, the model wants {tuple(parameter.shape)}",
                    "the adapter has another rank or belongs to another backbone",
                )
        torch._foreach_copy_(list(self.parameters.values()), [state[name] for name in self.parameters])


def all_finite(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether no tensor holds a NaN or an infinity; the host reads one number from the device."""
    if not state:
        return True
    largest = torch._foreach_norm(list(state.values()), ord=float("inf"))
    return bool(torch.isfinite(torch.stack(list(largest))).all())


def on_host(state: Mapping[str, torch.Tensor]) -> State:
    """The tensors on the CPU, detached: themselves if they are there, else by one copy a number format."""
    out = {name: t.detach() for name, t in state.items()}
    away: dict[torch.dtype, list[str]] = {}
    for name, tensor in out.items():
        if tensor.device.type != "cpu":
            away.setdefault(tensor.dtype, []).append(name)
    for names in away.values():
        flat = torch.cat([out[n].reshape(-1) for n in names]).cpu()
        for name, part in zip(names, torch.split(flat, [out[n].numel() for n in names]), strict=True):
            out[name] = part.view(out[name].shape)
    return out


def placed_like(state: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor]) -> State:
    """The tensors of the CPU on the device of ``like``'s: themselves, or by one copy a number format."""
    out = dict(state)
    alike: dict[tuple[torch.device, torch.dtype], list[str]] = {}
    for name, tensor in state.items():
        if like[name].device != tensor.device:
            alike.setdefault((like[name].device, tensor.dtype), []).append(name)
    for (device, _), names in alike.items():
        flat = torch.cat([state[n].reshape(-1) for n in names]).to(device)
        for name, part in zip(names, torch.split(flat, [state[n].numel() for n in names]), strict=True):
            out[name] = part.view(state[name].shape)
    return out


def size_bytes(state: Mapping[str, torch.Tensor]) -> int:
    """Bytes of the tensors' values: what one transfer of them costs, names and framing left out."""
    return sum(t.numel() * t.element_size() for t in state.values())


def count(state: Mapping[str, torch.Tensor]) -> int:
    """Number of scalar parameters."""
    return sum(t.numel() for t in state.values())


def digest(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, shapes, types and bits: equal digests are bit-identical adapters."""
    total = hashlib.sha256()
    for name, tensor in sorted(on_host(state).items()):
        tensor = tensor.contiguous()
        total.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def save_peft(model: nn.Module, state: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write ``state`` as an ordinary PEFT checkpoint (adapter_config.json, adapter_model.safetensors).

    The classification head goes along in PEFT's ``modules_to_save`` form, also when it was frozen: a head
    drawn at random belongs to the result, and without it the logits could not be had again. So
    ``PeftModel.from_pretrained(backbone, folder)`` gives the logits of this run. What was merged into the
    base (`models.residual`) is written as factors of a higher rank.
    """
    from safetensors.torch import save_file

    from fedlora_kit.models.residual import factorised
    from fedlora_kit.models.targets import head_modules

    base: nn.Module = model.get_base_model()  # type: ignore[operator]
    head = head_modules(base)
    plain, rank = factorised(state)
    tensors = {_exported(name): t.contiguous() for name, t in on_host(plain).items()}
    config: Any = copy.copy(model.peft_config["default"])  # type: ignore[index]
    if rank is not None:  # with the same scale alpha / r
        config.lora_alpha, config.r = config.lora_alpha / config.r * rank, rank
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)  # PEFT keeps a set: its order is not stable
    config.base_model_name_or_path = None
    config.modules_to_save = head or None
    for part in head:
        for name, value in getattr(base, part).state_dict().items():
            tensors.setdefault(f"{_PREFIX}{part}.{name}", value.detach().cpu().contiguous())
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(str(folder))


def _exported(name: str) -> str:
    """A canonical name as a PEFT checkpoint spells it."""
    return _PREFIX + (name.removesuffix(".weight") if DORA in name else name)


def load_peft(folder: Path) -> State:
    """The tensors of a PEFT checkpoint under their canonical names (a saved head included)."""
    from safetensors.torch import load_file

    return {
        canonical(name): tensor for name, tensor in load_file(folder / "adapter_model.safetensors").items()
    }
