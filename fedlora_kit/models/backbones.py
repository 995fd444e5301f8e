"""Backbones in memory: the pre-trained weights, and a new head where one is wanted.

Weights are safetensors only, and no code of a model repository is run.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fedlora_kit import hub, mirror
from fedlora_kit.errors import FedloraError
from fedlora_kit.models.kinds import Kind, auto_class, check_kind, default_kind
from fedlora_kit.models.memory import four_bit_config
from fedlora_kit.models.names import backbone, backbone_folder
from fedlora_kit.models.positions import resize_positions
from fedlora_kit.models.targets import head_modules, linear_modules

#: number format of the base weights; what trains stays float32
Dtype = Literal["fp32", "bf16"]


def load_backbone(
    name: str,
    num_labels: int,
    head_seed: int,
    *,
    kind: Kind | None = None,
    weights: Literal["pretrained", "random"] = "pretrained",
    dtype: Dtype = "fp32",
    load_in_4bit: bool = False,
    image_size: int | None = None,
    head_scale: float | None = None,
    device: torch.device | None = None,
) -> nn.Module:
    """A classification model, the backbone's weights under a new random head; or a causal language model.

    Args:
        name: see `models.names`.
        num_labels: width of the head's output; a causal model has none, and its own language-model head.
        head_seed: seed of the head's weights (and, with ``weights="random"``, of all weights).
        kind: what it is used for; None for what the model is made for (`kinds.default_kind`).
        weights: "random" keeps only the architecture: the control that shows what pre-training gives.
        dtype: number format of the weights.
        load_in_4bit: quantise the weights while loading; needs a GPU and bitsandbytes.
        image_size: side in pixels of the images that it reads; None for the model's own.
        head_scale: standard deviation of the head's weights; None for the configuration's initializer_range.
        device: where it will compute. Weights in bf16 or 4 bits are loaded straight to a GPU, past the host's
            memory; others are left on the CPU.

    Raises:
        UnknownName, BadValue: no such model; it cannot be used so; images of this size it cannot read.
        FedloraError: it cannot be had, its weights do not fit its architecture, or the platform has no 4-bit
            weights.
    """
    if load_in_4bit:
        made = _load(name, num_labels, head_seed, kind, weights, dtype, image_size, four_bit_config(), device)
    elif weights == "pretrained" and name.startswith("kit/"):  # small, wanted for hundreds of short runs
        fingerprint = backbone_fingerprint(name)
        made = copy.deepcopy(_pristine(name, num_labels, kind, dtype, image_size, fingerprint))
    else:
        made = _load(name, num_labels, head_seed, kind, weights, dtype, image_size, None, device)
    return _draw_head(*made, head_seed, head_scale).eval()


@lru_cache(maxsize=4)
def _pristine(
    name: str, num_labels: int, kind: Kind | None, dtype: Dtype, image_size: int | None, _fingerprint: str
) -> tuple[nn.Module, list[str]]:
    return _load(name, num_labels, 0, kind, "pretrained", dtype, image_size)


def _load(
    name: str,
    num_labels: int,
    seed: int,
    kind: Kind | None,
    weights: str,
    dtype: Dtype,
    image_size: int | None,
    quantise: Any = None,
    device: torch.device | None = None,
) -> tuple[nn.Module, list[str]]:
    """The model, and the modules of its head that are to be drawn anew."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    config = backbone_config(name)
    kind = kind or default_kind(config)
    check_kind(name, config, kind)
    head = {} if kind == "causal" else {"num_labels": num_labels}
    numbers = torch.bfloat16 if dtype == "bf16" else torch.float32
    straight = device is not None and device.type == "cuda" and (dtype == "bf16" or quantise is not None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if weights == "random":
            config = backbone_config(name, **head, **({"image_size": image_size} if image_size else {}))
            model = auto_class(kind).from_config(config, dtype=numbers)
            return model, head_modules(model)
        options = {
            **head,
            **({"quantization_config": quantise} if quantise is not None else {}),
            **({"device_map": {"": device}} if straight else {}),
            "dtype": numbers,
            "use_safetensors": True,
            "ignore_mismatched_sizes": True,  # a head of another width; checked below
            "output_loading_info": True,
        }
        files = (*hub.CONFIGURATION, *hub.WEIGHTS)
        model, info = from_anywhere(name, auto_class(kind).from_pretrained, options, files)
    if image_size not in (None, getattr(config, "image_size", None)):
        resize_positions(model, image_size)
    return model, _new_parts(name, model, num_labels, info)


def _new_parts(name: str, model: nn.Module, num_labels: int, info: Mapping[str, Any]) -> list[str]:
    """The modules of the head that depend on the number of classes, or that the checkpoint has not.

    Refuses weights that leave a part of the backbone at random values, as from_pretrained would not.
    """
    lost = [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]
    new = []
    for part in head_modules(model):
        inside = [key for key in lost if key.startswith(f"{part}.")]
        lost = [key for key in lost if key not in inside]
        layers = linear_modules(getattr(model, part)).values()
        if inside or any(getattr(layer, "out_features", None) == num_labels for layer in layers):
            new.append(part)
    if lost:
        raise FedloraError(
            f"the weights of {name} do not fit its architecture: {len(lost)} tensors are missing or of "
            f"another shape, such as {lost[0]}",
            "the checkpoint belongs to another model or release of transformers",
        )
    return new


def _draw_head(model: nn.Module, parts: list[str], seed: int, scale: float | None = None) -> nn.Module:
    """Draw these modules anew: normal with ``scale`` (else initializer_range), biases zero.

    Always, so that the head depends on the seed alone, whatever head a checkpoint brought along.
    """
    config: Any = model.config
    generator = torch.Generator().manual_seed(seed)
    own_scale = float(getattr(config, "initializer_range", getattr(config, "init_std", 0.02)))
    scale = own_scale if scale is None else scale
    for module in (module for part in parts for module in getattr(model, part).modules()):
        own = list(module.parameters(recurse=False))
        if own and all(p.ndim == 1 for p in own):
            module.reset_parameters()  # a norm: ones and zeros
            continue
        with torch.no_grad():
            for parameter in own:
                if parameter.ndim > 1:  # drawn on the CPU, wherever the head lies: the same on every device
                    drawn = torch.empty(parameter.shape, dtype=parameter.dtype)
                    parameter.copy_(drawn.normal_(0.0, scale, generator=generator))
                else:
                    parameter.zero_()
    return model


def backbone_config(name: str, **changes: Any) -> Any:
    """The transformers configuration of a backbone, some fields changed."""
    from transformers import AutoConfig

    return from_anywhere(name, AutoConfig.from_pretrained, changes, hub.CONFIGURATION)


def check_use(name: str, kind: Kind, asked: str) -> None:
    """Refuse a model for what it cannot do, if its configuration lies on this machine; the Hub is not asked.

    Raises:
        BadValue: see `kinds.check_kind`.
    """
    try:
        folder = backbone_folder(name)
        file = folder / "config.json" if folder is not None else None
        config = _config_here(name, file.stat().st_mtime_ns) if file is not None else None
    except (FedloraError, OSError):  # who loads it says what is missing
        return
    if config is not None:
        check_kind(name, config, kind, asked)


@lru_cache(maxsize=32)
def _config_here(name: str, _changed: int) -> Any:
    return backbone_config(name)


def files_of(name: str, files: tuple[str, ...]) -> Path:
    """The folder of a backbone's files: the user's, the kit's, the mirror's (checked), or the Hub's at its
    commit."""
    folder, known = backbone_folder(name), backbone(name)
    if folder is None:
        folder = hub.model_folder(known.repo, known.revision, files)
    else:
        mirror.check_folder(folder, revision=known.revision)
    if "model.safetensors" in files and not any(folder.glob("model*.safetensors")):
        raise FedloraError(
            f"model {name} has no safetensors weights"
            + ("" if known.is_folder else f" at {known.revision[:12] or 'its newest revision'}"),
            "other formats may hold code and are not taken: "
            + ("save_pretrained writes them" if known.is_folder else "name a revision that has them")
            + ", or fetch it again" * (not known.is_folder),
        )
    return folder


def from_anywhere(name: str, load: Any, options: dict[str, Any], files: tuple[str, ...]) -> Any:
    """Call a transformers loader on the local folder, or on the Hub's cache at the pinned revision.

    Args:
        files: which of the model's files it reads, as patterns.
    """
    folder = files_of(name, files)
    try:  # no remote code: said aloud; left open, transformers would ask the user
        return load(str(folder), local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:
        own = backbone(name).is_folder
        remedy = "save it again" if own else f"remove {folder}, and fetch or build it again"
        if not (folder / "tokenizer.json").is_file() and any(folder.glob("*.model")):
            remedy = "its tokenizer has no tokenizer.json: python -m pip install sentencepiece protobuf"
        first = str(error).splitlines()[0][:160] if str(error) else ""
        if "does not recognize this architecture" in str(error) or "trust_remote_code" in str(error):
            raise FedloraError(
                f"model {name}: transformers does not know its architecture ({first})",
                "choose another model, or a release of transformers that has it; no code of a model's is run",
            ) from error
        raise FedloraError(
            f"model {name}: the folder is damaged ({type(error).__name__}: {first})", remedy
        ) from error


def backbone_fingerprint(name: str) -> str:
    """What the weights are, as a short text: part of a run's key (see `data.sources.fingerprint`).

    Raises:
        FedloraError: the files are missing, or the Hub does not tell the commit of what is not pinned.
    """
    folder = backbone_folder(name)
    if folder is None:
        known = backbone(name)
        return f"hub:{known.repo}@{hub.commit('model', known.repo, known.revision)}"
    files = sorted(f for f in folder.iterdir() if f.suffix in {".safetensors", ".json", ".txt", ".model"})
    stats = tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files)
    return "files:" + _digest(stats)


@lru_cache(maxsize=64)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for file, _, _ in files:
        digest.update(Path(file).name.encode())
        digest.update(bytes.fromhex(mirror.file_sha256(Path(file))))
    return digest.hexdigest()[:16]
