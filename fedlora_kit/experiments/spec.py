"""A run, described: validated, frozen, and with a content key.

Unknown keys and impossible values are errors that name the key. The key of a run is the hash of its
description, of the source that decides its numbers (the package's, and all that methods and partitioners
from elsewhere reach), of its data and backbone, and of the releases of the libraries that compute. Device,
builds of libraries and number of threads are not in it: they may change the last bits of a result, and are in
the run's provenance.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fedlora_kit.data.image_ops import Augment
from fedlora_kit.data.prompts import template
from fedlora_kit.data.sources import fingerprint
from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import BadValue
from fedlora_kit.experiments import reach
from fedlora_kit.experiments.libraries import release, releases
from fedlora_kit.experiments.source import source_digest
from fedlora_kit.methods import METHODS, method
from fedlora_kit.models.backbones import Dtype, backbone_fingerprint, check_use
from fedlora_kit.models.lora import LoraSettings
from fedlora_kit.models.names import backbone
from fedlora_kit.partition import Partitioner, partitioner
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.training.precision import Precision, check_rows
from fedlora_kit.training.settings import FederationSettings, LocalSettings

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelSpec(BaseModel):
    """Backbone and adapter.

    Attributes:
        backbone: an id of the Hub, with ``@revision`` or without, a folder, or one of the kit's own (see
            `models.names`).
        weights: "random" is the control without pre-training.
        dtype: number format of the frozen base weights of a causal model; the adapter stays float32.
        gradient_checkpointing: recompute activations in the backward pass: less memory, same gradients.
        load_in_4bit: quantise the base weights of a causal model (a GPU and bitsandbytes are needed).
        head_scale: standard deviation of a classification head's random weights; None takes the model's own
            (initializer_range, .02 as a rule). A frozen head of a larger scale gives larger gradients.
    """

    model_config = _STRICT

    backbone: str
    weights: Literal["pretrained", "random"] = "pretrained"
    lora: LoraSettings = LoraSettings()
    dtype: Dtype = "fp32"
    gradient_checkpointing: bool = False
    load_in_4bit: bool = False
    head_scale: float | None = Field(None, gt=0)

    @field_validator("backbone")
    @classmethod
    def _known(cls, name: str) -> str:
        return backbone(name).name

    @model_validator(mode="after")
    def _number_formats_fit(self) -> ModelSpec:
        if self.load_in_4bit and self.weights == "random":
            raise ValueError("load_in_4bit quantises pre-trained weights; it does not go with weights=random")
        return self


class DataSpec(BaseModel):
    """Task and sizes.

    Attributes:
        task: a registered task.
        max_length: tokens an example; None takes the task's own.
        image_size: side in pixels that images are brought to; None takes the model's own. A ViT's position
            embeddings are interpolated to it (see `models.positions`).
        holdout: examples of the training split set aside as the scored part "holdout" (for choosing
            learning rates), never trained on.
        train_limit: at most so many training examples, after the holdout.
        eval_limit: at most so many examples of each scored split.
        augment: random views of the training images: "none", "flip", "crop_flip" or "zoom_flip" (see
            `data.image_ops`); images only.
        prompt, max_new_tokens: causal tasks: the template around the question, and the tokens that a
            generated answer may have; None takes the task's own.
        Which examples these are is drawn once a task, the same for all seeds.
        server_examples: training examples set aside at the server, as evenly over the labels as there are; no
            client trains on them. For methods that train at the server; set it for the others too, so that
            all see the same split.
        client_holdout: share of each client's own examples, in [0, 1), that it does not train on: they score
            its own adapter. At least one of a client's examples if the share is above 0 and it has two.
        Both are drawn with the run's seed.
    """

    model_config = _STRICT

    task: str
    max_length: int | None = Field(None, ge=4)
    image_size: int | None = Field(None, ge=1)
    holdout: int = Field(0, ge=0)
    train_limit: int | None = Field(None, ge=1)
    eval_limit: int | None = Field(None, ge=1)
    augment: Augment = "none"
    prompt: str | None = None
    max_new_tokens: int | None = Field(None, ge=1)
    server_examples: int = Field(0, ge=0)
    client_holdout: float = Field(0.0, ge=0, lt=1)

    @field_validator("task")
    @classmethod
    def _known(cls, name: str) -> str:
        return get_task(name).name

    @model_validator(mode="after")
    def _images_only(self) -> DataSpec:
        for name, value in (("augment", self.augment), ("image_size", self.image_size)):
            if value not in ("none", None) and get_task(self.task).modality != "image":
                raise ValueError(f"{name}={value!r} is for images, task {self.task!r} is not on images")
        return self

    @model_validator(mode="after")
    def _prompted_if_causal(self) -> DataSpec:
        if self.prompt is not None:
            template(self.prompt)
        asked = self.prompt is not None or self.max_new_tokens is not None
        if asked and get_task(self.task).modality != "causal":
            raise ValueError(f"prompt and max_new_tokens are for causal tasks; {self.task!r} is not one")
        return self


class SplitSpec(BaseModel):
    """Who holds what: a partitioner by name, with its settings."""

    model_config = _STRICT

    partitioner: str = "iid"
    clients: int = Field(3, ge=1)
    settings: dict[str, Any] = {}

    @model_validator(mode="after")
    def _usable(self) -> SplitSpec:
        taken = sorted({"seed", "num_clients"} & self.settings.keys())
        if taken:
            raise ValueError(f"{', '.join(taken)} in split.settings: use the run's seed and split.clients")
        self.build(0)
        return self

    def build(self, seed: int) -> Partitioner:
        """The partitioner of this split for a run's seed."""
        return partitioner(self.partitioner, num_clients=self.clients, seed=seed, **self.settings)


class MethodSpec(BaseModel):
    """A method by name, with its settings."""

    model_config = _STRICT

    name: str
    settings: dict[str, Any] = {}

    @model_validator(mode="after")
    def _usable(self) -> MethodSpec:
        method(self.name, **self.settings)
        return self


class RunSpec(BaseModel):
    """One federated training run.

    Attributes:
        precision: of the model's passes, in training and in scoring: "fp32", "tf32" or "bf16" (see
            `training.precision`).

    Make it with `RunSpec.parse` to get errors in plain words.
    """

    model_config = _STRICT

    model: ModelSpec
    data: DataSpec
    method: MethodSpec
    local: LocalSettings
    split: SplitSpec = SplitSpec()
    rounds: FederationSettings = FederationSettings()
    privacy: PrivacySettings | None = None
    seed: int = Field(0, ge=0, strict=True)
    precision: Precision = "fp32"

    @model_validator(mode="after")
    def _fits(self) -> RunSpec:
        m, modality = self.model, get_task(self.data.task).modality
        check_use(m.backbone, modality, f"task {self.data.task!r}")
        if modality != "causal" and (m.dtype != "fp32" or m.load_in_4bit):
            raise ValueError(
                f"dtype and load_in_4bit are for causal language models; for task {self.data.task!r} "
                f"{m.backbone} classifies, and its head stays float32 with the rest"
            )
        if self.privacy is not None and self.local.clip_norm is not None:
            raise ValueError("local.clip_norm is for runs without DP; DP clips examples by privacy.clip")
        if self.privacy is not None and self.precision == "bf16":
            check_rows(m.dtype, m.lora.dropout, m.gradient_checkpointing, self.local.stack)
        chosen = method(self.method.name, **self.method.settings)
        if self.privacy is not None and chosen.proxy_examples:
            raise ValueError(
                f"method {self.method.name!r} reads its proxy examples without noise: not under DP"
            )
        if self.privacy is not None and chosen.not_private:
            raise ValueError(f"method {self.method.name!r} cannot run under DP: {chosen.not_private}")
        if self.privacy is not None and self.model.lora.use_dora:
            raise ValueError("model.lora.use_dora cannot run under DP: Opacus' hooks lose its gradients")
        if chosen.proxy_examples and chosen.proxy == "external" and not get_task(self.data.task).external:
            raise ValueError(
                f"task {self.data.task!r} has no external proxy examples: proxy=random, balanced"
            )
        if chosen.server_stage and not self.data.server_examples:
            raise ValueError(
                f"method {self.method.name!r} trains at the server: set data.server_examples, or "
                "method.settings.global_data to 'clients'"
            )
        if self.rounds.cohort is not None and self.rounds.cohort > self.split.clients:
            raise ValueError(f"rounds.cohort={self.rounds.cohort} exceeds split.clients={self.split.clients}")
        return self

    @classmethod
    def parse(cls, description: dict[str, Any]) -> RunSpec:
        """A validated description.

        Raises:
            BadValue: an unknown key or an impossible value; the message names the key.
            UnknownName: an unknown task, model, method or partitioner.
        """
        try:
            return cls.model_validate(description)
        except ValidationError as error:
            raise BadValue(_in_words(error), "see the docstring of RunSpec and its parts") from error

    def canonical(self) -> str:
        """The description as JSON with sorted keys; every default spelled out."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def tasks(self) -> list[str]:
        """The tasks whose examples the run reads: its own, and that of external proxy examples."""
        chosen, own = method(self.method.name, **self.method.settings), self.data.task
        outside = chosen.proxy_examples and chosen.proxy == "external"
        return [own, get_task(own).external] if outside else [own]

    def named_classes(self) -> tuple[type, type]:
        """The classes of its method and its partitioner."""
        return METHODS[self.method.name], type(self.split.build(self.seed))

    def key(self) -> str:
        """16 hex digits: description, source, data and backbone (see the module's docstring).

        A folder counts by what is in it, not by its path.
        """
        named = backbone(self.model.backbone)
        of_folder = self.model.model_copy(update={"backbone": "folder"})
        described = self.model_copy(update={"model": of_folder}) if named.is_folder else self
        parts = (
            described.canonical(),
            source_digest(),
            *filter(None, map(reach.digest, self.named_classes())),
            *(f"{name}=={known}" for name, known in releases().items()),
            *([f"{library}=={release(library)}"] if (library := self.split.build(0).library) else []),
            *(fingerprint(get_task(name)) for name in self.tasks()),
            *([repr(template(self.data.prompt))] if self.data.prompt else []),
            backbone_fingerprint(self.model.backbone),
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _in_words(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False):
        where = ".".join(str(p) for p in item["loc"]) or "the run"
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown key {where!r}; allowed there: {', '.join(_fields_at(item['loc'][:-1]))}")
        elif item["type"] == "missing":
            lines.append(f"key {where!r} is missing")
        else:
            value = "" if isinstance(item["input"], dict) else f" = {item['input']!r}"
            lines.append(f"{where}{value}: {item['msg'].removeprefix('Value error, ')}")
    return "bad run description: " + "; ".join(lines)


def _fields_at(path: tuple[str | int, ...]) -> list[str]:
    """Field names of the sub-model at ``path`` of `RunSpec`."""
    model: type[BaseModel] = RunSpec
    for part in path:
        kind = model.model_fields[str(part)].annotation
        model = next(k for k in (kind, *get_args(kind)) if isinstance(k, type) and issubclass(k, BaseModel))
    return sorted(model.model_fields)
