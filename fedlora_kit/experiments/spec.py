"""A run, described: validated, frozen, and with a content key.

Unknown keys and impossible values are errors that name the key. The key of a run is the hash of its
description, of the package's source that decides its numbers, and of its data and backbone: nothing that
could change the result can change without changing the key.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fedlora_kit.data.sources import fingerprint
from fedlora_kit.data.task import get_task
from fedlora_kit.errors import BadValue
from fedlora_kit.experiments.source import source_digest
from fedlora_kit.methods import method
from fedlora_kit.models.backbones import backbone, backbone_fingerprint
from fedlora_kit.models.lora import LoraSettings
from fedlora_kit.partition import Partitioner, partitioner
from fedlora_kit.privacy.settings import PrivacySettings
from fedlora_kit.training.settings import FederationSettings, LocalSettings

_STRICT = ConfigDict(frozen=True, extra="forbid")


class ModelSpec(BaseModel):
    """Backbone and adapter. ``weights="random"`` is the control without pre-training."""

    model_config = _STRICT

    backbone: str
    weights: Literal["pretrained", "random"] = "pretrained"
    lora: LoraSettings = LoraSettings()

    @field_validator("backbone")
    @classmethod
    def _known(cls, name: str) -> str:
        return backbone(name).name


class DataSpec(BaseModel):
    """Task and sizes.

    Attributes:
        task: a registered task.
        max_length: tokens an example; None takes the task's own.
        holdout: examples of the training split set aside as the scored part "holdout" (for choosing
            learning rates), never trained on.
        train_limit: at most so many training examples, after the holdout.
        eval_limit: at most so many examples of each scored split.
        Which examples these are is drawn once a task, the same for all seeds.
    """

    model_config = _STRICT

    task: str
    max_length: int | None = Field(None, ge=4)
    holdout: int = Field(0, ge=0)
    train_limit: int | None = Field(None, ge=1)
    eval_limit: int | None = Field(None, ge=1)

    @field_validator("task")
    @classmethod
    def _known(cls, name: str) -> str:
        return get_task(name).name


class SplitSpec(BaseModel):
    """Who holds what: a partitioner by name, with its settings."""

    model_config = _STRICT

    partitioner: str = "iid"
    clients: int = Field(3, ge=1)
    settings: dict[str, Any] = {}

    @model_validator(mode="after")
    def _usable(self) -> SplitSpec:
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
    seed: int = Field(0, ge=0)
    precision: Literal["fp32", "bf16"] = "fp32"

    @model_validator(mode="after")
    def _fits(self) -> RunSpec:
        if self.privacy is not None and self.local.clip_norm is not None:
            raise ValueError("local.clip_norm is for runs without DP; DP clips examples by privacy.clip")
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

    def key(self) -> str:
        """16 hex digits: description, source, data and backbone (see the module's docstring)."""
        parts = (
            self.canonical(),
            source_digest(),
            fingerprint(get_task(self.data.task)),
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
    parts: dict[str, type[BaseModel]] = {
        "model": ModelSpec,
        "data": DataSpec,
        "method": MethodSpec,
        "local": LocalSettings,
        "split": SplitSpec,
        "rounds": FederationSettings,
        "privacy": PrivacySettings,
        "model.lora": LoraSettings,
    }
    return sorted(parts.get(".".join(str(p) for p in path), RunSpec).model_fields)
