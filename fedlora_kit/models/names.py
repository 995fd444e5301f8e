"""What a backbone is called, and where it lies.

A name is that of one of the kit's own backbones (``kit/text-tiny``), a model's id on the Hub, with a revision
or without (``org/name@revision``), or a folder (``/path`` or ``./path``). Without a revision a model is taken
at the commit that is pinned here, else at its newest one.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from fedlora_kit import mirror, paths
from fedlora_kit.errors import BadValue, FedloraError, UnknownName

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class Backbone:
    """A backbone by its name.

    Attributes:
        name: as in a run's description; of a folder its absolute path.
        revision: commit, branch or tag on the Hub; empty for the newest, for a folder and for the kit's own.
    """

    name: str
    revision: str = ""

    @property
    def repo(self) -> str:
        """Its id on the Hub, without the revision."""
        return self.name.partition("@")[0]

    @property
    def is_folder(self) -> bool:
        """Whether the name is that of a folder."""
        return os.path.isabs(self.name)


#: the kit's own, and models at the commit that is pinned
BACKBONES: dict[str, Backbone] = {
    b.name: b
    for b in (
        Backbone("kit/text-tiny"),  # masked language model on the built-in text
        Backbone("kit/image-tiny"),  # small ViT on part of the digits
        Backbone("kit/causal-tiny"),  # small Llama on built-in sums
        Backbone("kit/instruct-tiny"),  # small Llama on built-in statements
        Backbone("FacebookAI/roberta-base", "e2da8e2f811d1448a5b465c236feacd80ffbac7b"),
        Backbone("FacebookAI/roberta-large", "722cf37b1afa9454edce342e7895e588b6ff1d59"),
        Backbone("google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594"),
        Backbone("google/vit-base-patch16-224-in21k", "b4569560a39a0f1af58e3ddaf17facf20ab919b0"),
        Backbone("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "fe8a4ea1ffedaf415f4da2f062534de366a451e6"),
        Backbone("huggyllama/llama-7b", "4782ad278652c7c71b72204d462d6d01eaaf7549"),
        Backbone("meta-llama/Llama-2-7b-hf", "01c7f73d771dfac7d292323805ebc428287df4f9"),
        # the Hub's own conversion to safetensors (refs/pr/3); the main branch has .bin files only
        Backbone("deepseek-ai/deepseek-llm-7b-base", "dbd6f0e98a1f2c9978e2d0c6370cdfc563218527"),
    )
}


def backbone_names() -> list[str]:
    """The kit's own backbones, and those whose commit is pinned."""
    return sorted(BACKBONES)


def backbone(name: str) -> Backbone:
    """The backbone that a name stands for; whether it can be had is not looked at.

    Raises:
        UnknownName: it begins with ``kit/``, and the kit has no such backbone.
        BadValue: it is neither an id of the Hub nor a folder.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    if name.startswith("kit/"):
        raise UnknownName("model", name, BACKBONES)
    if os.path.isabs(name) or re.match(r"\.{1,2}/|~", name):
        return Backbone(os.path.abspath(os.path.expanduser(name)))
    repo, at, revision = name.partition("@")
    if not _HUB_ID.fullmatch(repo) or (at and not re.fullmatch(r"\w[\w./-]*", revision)):
        near = next((f"did you mean {n!r}? " for n in BACKBONES if n.endswith(f"/{name}")), "")
        raise BadValue(
            f"{name!r} is no name of a model",
            f"{near}give an id of the Hub (org/name, or org/name@revision), a folder (/path or ./path), or "
            f"one of the kit's: {', '.join(n for n in backbone_names() if n.startswith('kit/'))}",
        )
    return Backbone(name, revision)


def backbone_folder(name: str) -> Path | None:
    """The local folder of a backbone (the kit's, a mirror's, the user's); ``None`` asks the Hub.

    Raises:
        FedloraError: the folder is missing; the message names the remedy.
    """
    known = backbone(name)
    if name.startswith("kit/"):
        folder = paths.data_dir() / "backbones" / name.removeprefix("kit/")
        if (folder / "model.safetensors").is_file():
            return folder
        raise FedloraError(f"backbone {name} has not been built", f"build it: fedlora backbones build {name}")
    if known.is_folder:
        folder = Path(known.name)
        if not (folder / "config.json").is_file():
            raise FedloraError(
                f"model {name}: {folder} is no folder with a config.json",
                "name a folder as save_pretrained writes it, with the tokenizer's files; or an id of the Hub",
            )
        return folder
    mirrored = paths.hub_dir()
    if mirrored is None:
        return None
    folder = paths.inside(mirrored, f"models/{known.repo}")
    if not (folder / "config.json").is_file():
        raise FedloraError(
            f"the mirror has no models/{known.repo} (model {name})",
            "put it into the folder named by FEDLORA_HUB, or unset that to ask the Hub; or name another "
            f"model (backbone=…), or one that stands in for it in the mirror's {mirror.STAND_INS}: "
            f'{{"{known.repo}": "org/name"}}. The mirror has: {", ".join(mirror.models(mirrored)) or "none"}',
        )
    for file in folder.iterdir():
        paths.inside(mirrored, file.relative_to(mirrored))  # no link in it leads out
    return folder
