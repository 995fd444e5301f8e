"""Backbones by name: the kit's own small ones, those of a mirror, those of the Hub.

A name is ``kit/<short>`` or a Hub id. Every id has a pinned commit, and no other one is loaded; weights are
safetensors only, and no code of a model repository is run.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fedlora_kit import hub, mirror, paths
from fedlora_kit.errors import BadValue, FedloraError, UnknownName
from fedlora_kit.models.memory import four_bit_config
from fedlora_kit.models.targets import HEADS, head_prefix

Kind = Literal["text", "image", "causal"]
#: number format of the base weights; what trains stays float32
Dtype = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Backbone:
    """A known backbone: its name, its kind, its pinned revision (empty for the kit's own).

    The kind is the modality of the tasks it is for: it classifies texts or images under a new head, or
    ("causal") it answers with its own language-model head.
    """

    name: str
    kind: Kind
    revision: str = ""
    note: str = ""


BACKBONES: dict[str, Backbone] = {
    b.name: b
    for b in (
        Backbone("kit/text-tiny", "text", note="masked LM on the built-in text; in the repository"),
        Backbone("kit/image-tiny", "image", note="small ViT on part of the digits; in the repository"),
        Backbone("kit/causal-tiny", "causal", note="small Llama on built-in sums; in the repository"),
        Backbone("kit/instruct-tiny", "causal", note="small Llama on built-in statements; in the repository"),
        Backbone("FacebookAI/roberta-base", "text", "e2da8e2f811d1448a5b465c236feacd80ffbac7b"),
        Backbone("FacebookAI/roberta-large", "text", "722cf37b1afa9454edce342e7895e588b6ff1d59"),
        Backbone("google-bert/bert-base-uncased", "text", "86b5e0934494bd15c9632b12f734a8a67f723594"),
        Backbone("google/vit-base-patch16-224-in21k", "image", "b4569560a39a0f1af58e3ddaf17facf20ab919b0"),
        Backbone("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "causal", "fe8a4ea1ffedaf415f4da2f062534de366a451e6"),
        Backbone("huggyllama/llama-7b", "causal", "4782ad278652c7c71b72204d462d6d01eaaf7549"),
        Backbone("meta-llama/Llama-2-7b-hf", "causal", "01c7f73d771dfac7d292323805ebc428287df4f9"),
        # the Hub's own conversion to safetensors (refs/pr/3); the main branch has .bin files only
        Backbone("deepseek-ai/deepseek-llm-7b-base", "causal", "dbd6f0e98a1f2c9978e2d0c6370cdfc563218527"),
    )
}


def backbone_names() -> list[str]:
    """Every known backbone."""
    return sorted(BACKBONES)


def backbone(name: str) -> Backbone:
    """The backbone called ``name``.

    Raises:
        UnknownName: no such backbone; the message lists the known ones.
    """
    if name not in BACKBONES:
        raise UnknownName("model", name, BACKBONES)
    return BACKBONES[name]


def register_backbone(new: Backbone, *, replace: bool = False) -> Backbone:
    """Make another model of the Hub (or of the mirror) known by its id.

    Its architecture must be one of `models.targets.TARGETS`. Give a commit as its
    revision; of another one, or of none, the newest commit is taken, and stands in the keys of runs.

    Raises:
        BadValue: the name is taken and ``replace`` is false, or it claims to be one of the kit's own.
    """
    if new.name in BACKBONES and not replace:
        raise BadValue(
            f"a model called {new.name!r} is already there", "choose another, or pass replace=True"
        )
    if new.name.startswith("kit/"):
        raise BadValue(f"{new.name!r} is a name of the kit's own backbones", "use the model's Hub id")
    BACKBONES[new.name] = new
    return new


def backbone_folder(name: str) -> Path | None:
    """The local folder of a backbone (the kit's, or the mirror's), or ``None`` if the Hub is to be asked.

    Raises:
        FedloraError: the folder is missing; the message names the remedy.
    """
    known = backbone(name)
    if name.startswith("kit/"):
        folder = paths.data_dir() / "backbones" / name.removeprefix("kit/")
        if (folder / "model.safetensors").is_file():
            return folder
        raise FedloraError(f"backbone {name} has not been built", f"build it: fedlora backbones build {name}")
    mirrored = paths.hub_dir()
    if mirrored is None:
        return None
    folder = paths.inside(mirrored, f"models/{known.name}")
    if not (folder / "config.json").is_file():
        raise FedloraError(
            f"the mirror has no models/{name} (model {name})",
            "put it into the folder named by FEDLORA_HUB, or unset FEDLORA_HUB to ask the Hub",
        )
    for file in folder.iterdir():
        paths.inside(mirrored, file.relative_to(mirrored))  # no link in it leads out
    return folder


def load_backbone(
    name: str,
    num_labels: int,
    head_seed: int,
    *,
    weights: Literal["pretrained", "random"] = "pretrained",
    dtype: Dtype = "fp32",
    load_in_4bit: bool = False,
    device: torch.device | None = None,
) -> nn.Module:
    """A classification model, the backbone's weights under a new random head; or a causal language model.

    Args:
        num_labels: width of the head's output; a causal model has none, and its own language-model head.
        head_seed: seed of the head's weights (and, with ``weights="random"``, of all weights).
        weights: "random" keeps only the architecture: the control that shows what pre-training gives.
        dtype: number format of the weights.
        load_in_4bit: quantise the weights while loading; needs a GPU and bitsandbytes.
        device: where it will compute. Weights in bf16 or 4 bits are loaded straight to a GPU, past the host's
            memory; others are left on the CPU.

    Raises:
        UnknownName: no such model.
        FedloraError: it cannot be had, its weights do not fit its architecture, or the platform has no 4-bit
            weights.
    """
    if load_in_4bit:
        model = _load(name, num_labels, head_seed, weights, dtype, four_bit_config(), device)
    elif weights == "pretrained" and name.startswith("kit/"):  # small, wanted for hundreds of short runs
        model = copy.deepcopy(_pristine(name, num_labels, dtype, backbone_fingerprint(name)))
    else:
        model = _load(name, num_labels, head_seed, weights, dtype, None, device)
    return _draw_head(model, head_seed).eval()


@lru_cache(maxsize=4)
def _pristine(name: str, num_labels: int, dtype: Dtype, _fingerprint: str) -> nn.Module:
    return _load(name, num_labels, 0, "pretrained", dtype)


def _load(
    name: str,
    num_labels: int,
    seed: int,
    weights: str,
    dtype: Dtype,
    quantise: Any = None,
    device: torch.device | None = None,
) -> nn.Module:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    kind = backbone(name).kind
    auto = {
        "image": transformers.AutoModelForImageClassification,
        "text": transformers.AutoModelForSequenceClassification,
        "causal": transformers.AutoModelForCausalLM,
    }[kind]
    head = {} if kind == "causal" else {"num_labels": num_labels}
    numbers = torch.bfloat16 if dtype == "bf16" else torch.float32
    straight = device is not None and device.type == "cuda" and (dtype == "bf16" or quantise is not None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if weights == "random":
            config = from_anywhere(name, transformers.AutoConfig.from_pretrained, head, hub.CONFIGURATION)
            return auto.from_config(config, dtype=numbers)  # type: ignore[no-any-return]
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
        model, info = from_anywhere(name, auto.from_pretrained, options, files)
    _check_loaded(name, model, info)
    return model  # type: ignore[no-any-return]


def _check_loaded(name: str, model: nn.Module, info: Mapping[str, Any]) -> None:
    """Refuse weights that leave a part of the backbone at random values, as from_pretrained would not."""
    head = HEADS.get(model.config.model_type, "classifier")  # type: ignore[union-attr,arg-type]
    lost = [k for k in info["missing_keys"] if not k.startswith(f"{head}.")]
    lost += [k for k, *_ in info["mismatched_keys"] if not k.startswith(f"{head}.")]
    if lost:
        raise FedloraError(
            f"the weights of {name} do not fit its architecture: {len(lost)} tensors are missing or of "
            f"another shape, such as {lost[0]}",
            "the checkpoint belongs to another model or release of transformers",
        )


def _draw_head(model: nn.Module, seed: int) -> nn.Module:
    """Draw the head's weights anew: normal with the configuration's initializer_range, biases zero.

    Always, so that the head depends on the seed alone, whatever head a checkpoint brought along.
    """
    head = head_prefix(model)
    if head is not None:
        generator = torch.Generator().manual_seed(seed)
        scale = float(model.config.initializer_range)  # type: ignore[union-attr,arg-type]
        with torch.no_grad():
            for parameter in getattr(model, head).parameters():
                if parameter.ndim > 1:  # drawn on the CPU, wherever the head lies: the same on every device
                    drawn = torch.empty(parameter.shape, dtype=parameter.dtype)
                    parameter.copy_(drawn.normal_(0.0, scale, generator=generator))
                else:
                    parameter.zero_()
    return model


def files_of(name: str, files: tuple[str, ...]) -> Path:
    """The folder of a backbone's files: the kit's, the mirror's (checked), or the Hub's at its commit."""
    folder, known = backbone_folder(name), backbone(name)
    if folder is None:
        folder = hub.model_folder(name, known.revision, files)
    else:
        mirror.check_folder(folder, revision=known.revision)
    if "model.safetensors" in files and not any(folder.glob("model*.safetensors")):
        raise FedloraError(
            f"model {name} has no safetensors weights at {known.revision[:12] or 'its newest revision'}",
            "other formats may hold code and are not taken: name a revision that has them, or fetch it again",
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
        remedy = f"remove {folder}, and fetch or build it again"
        if not (folder / "tokenizer.json").is_file() and (folder / "tokenizer.model").is_file():
            remedy = "its tokenizer has no tokenizer.json: python -m pip install sentencepiece protobuf"
        first = str(error).splitlines()[0][:160] if str(error) else ""
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
        return f"hub:{name}@{hub.commit('model', name, backbone(name).revision)}"
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
