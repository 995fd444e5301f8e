"""From a description to a federation in memory: data, split, model."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

from fedlora_kit.data.doubts import doubts
from fedlora_kit.data.encoded import EncodedData, EncodedImages, encode_images, encode_text
from fedlora_kit.data.encoded_causal import EncodedCausal, encode_causal
from fedlora_kit.data.examples import Examples
from fedlora_kit.data.sources import fingerprint, load_task
from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import BadValue
from fedlora_kit.experiments.set_aside import Indices, hold_out, proxy_rows, set_aside_evenly
from fedlora_kit.experiments.spec import DataSpec, RunSpec
from fedlora_kit.methods import method
from fedlora_kit.models.backbones import backbone_config, backbone_fingerprint, load_backbone
from fedlora_kit.models.first_token import read_first_token
from fedlora_kit.models.image_input import image_input, image_side
from fedlora_kit.models.kinds import check_kind, default_kind
from fedlora_kit.models.lora import attach_lora
from fedlora_kit.models.memory import checkpoint_gradients
from fedlora_kit.models.padding import check_padding
from fedlora_kit.models.tokenizer import answering_positions, load_tokenizer
from fedlora_kit.randomness import Streams
from fedlora_kit.training.federation import Federation
from fedlora_kit.training.noise_plan import noise_of_clients


@lru_cache(maxsize=16)
def _encoded(
    task_name: str,
    backbone_name: str,
    max_length: int,
    prompt: str,
    max_new_tokens: int,
    image_size: int | None,
    _data: str,
    _backbone: str,
) -> tuple[EncodedData, Mapping[str, EncodedData]]:
    """Training split and scored splits, encoded once a process (the fingerprints guard the cache)."""
    kind = get_task(task_name)
    config = backbone_config(backbone_name)
    check_kind(backbone_name, config, kind.modality, f"task {task_name!r}")
    loaded = load_task(kind)
    if kind.modality == "image":
        wanted = image_input(backbone_name, image_size)
    else:
        tokenizer = load_tokenizer(backbone_name)

    def encoded(examples: Examples) -> EncodedData:
        if kind.modality == "image":
            return encode_images(examples, wanted)
        if kind.modality == "text":
            return encode_text(examples, tokenizer, max_length)
        return encode_causal(
            examples,
            tokenizer,
            prompt=prompt,
            max_length=max_length,
            max_new_tokens=max_new_tokens,
            metric=kind.metric,
            too_long=kind.too_long,
        )

    try:
        train, evals = encoded(loaded.train), {name: encoded(e) for name, e in loaded.evals.items()}
        if kind.modality == "causal":
            _check_room(evals.values(), answering_positions(config))
    except BadValue as error:
        raise BadValue(f"task {task_name}: {error.problem}", error.remedy) from error
    for doubt in doubts(kind, backbone_name, train):
        warnings.warn(doubt, stacklevel=4)
    return train, evals


def _check_room(parts: Iterable[EncodedData], positions: int) -> None:
    """See that a model can go on from every prompt to the longest answer that it may give."""
    for part in parts:
        assert isinstance(part, EncodedCausal)
        longest = int(part.prompt_lengths.max())
        if longest + part.max_new_tokens - 1 > positions:  # the last token is not read again
            raise BadValue(
                f"{part.max_new_tokens} new tokens after the longest prompt ({longest}) are more than the "
                f"{positions} positions of the model",
                f"set data.max_new_tokens to {positions + 1 - longest} or less, or leave long examples out",
            )


def load_data(spec: DataSpec, backbone_name: str) -> tuple[EncodedData, dict[str, EncodedData]]:
    """The training examples and the scored parts that ``spec`` asks for.

    Raises:
        BadValue: more examples are set aside than there are.
    """
    kind = get_task(spec.task)
    length = spec.max_length or kind.max_length
    prints = (fingerprint(kind), backbone_fingerprint(backbone_name))
    prompt, answer = spec.prompt or kind.prompt, spec.max_new_tokens or kind.max_new_tokens
    train, evals = _encoded(spec.task, backbone_name, length, prompt, answer, spec.image_size, *prints)
    order = Streams(0).generator("subset", spec.task, "train").permutation(len(train))
    if spec.holdout >= len(train):
        raise BadValue(
            f"data.holdout={spec.holdout} leaves none of {len(train)} training examples",
            "set fewer aside (holdout, where a table asks for it)",
        )
    scored: dict[str, EncodedData] = {}
    for name, data in evals.items():
        if spec.eval_limit is not None and spec.eval_limit < len(data):
            chosen = Streams(0).generator("subset", spec.task, name).permutation(len(data))
            data = data.subset(np.sort(chosen[: spec.eval_limit]))
        scored[name] = data
    if spec.holdout:
        scored["holdout"] = train.subset(np.sort(order[: spec.holdout]))
    rest = order[spec.holdout :]
    chosen_train = train.subset(np.sort(rest[: spec.train_limit]))
    if isinstance(chosen_train, EncodedImages):
        chosen_train = replace(chosen_train, augment=spec.augment)
    return chosen_train, scored


def split_indices(spec: RunSpec, train: EncodedData) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Who holds which training examples."""
    return spec.split.build(spec.seed).split(train.labels, groups=train.groups)


def external_proxy(spec: RunSpec, proxy_examples: int, streams: Streams) -> EncodedData:
    """Proxy examples from the task's external set (`Task.external`), drawn from the stream "subset".

    Raises:
        BadValue: the set has fewer.
    """
    alike = {name: getattr(spec.data, name) for name in ("max_length", "image_size", "prompt")}
    seen_as = DataSpec(task=spec.tasks()[-1], **alike)
    outside, _ = load_data(seen_as, spec.model.backbone)
    if proxy_examples > len(outside):
        raise BadValue(
            f"proxy_examples={proxy_examples}, but task {spec.tasks()[-1]!r} has {len(outside)} examples",
            "ask for fewer: method.settings.proxy_examples",
        )
    order = streams.generator("subset", "proxy").permutation(len(outside))
    return outside.subset(np.sort(order[:proxy_examples]))


@dataclass(frozen=True)
class Holdings:
    """Who holds which examples (see `training.federation.Federation` for the parts)."""

    clients: list[EncodedData]
    held_out: list[EncodedData | None]
    evals: dict[str, EncodedData]
    proxy: EncodedData | None
    server: EncodedData | None


def holdings(spec: RunSpec) -> Holdings:
    """The examples of a run, dealt out.

    The server's examples are set aside first; the split is of what is left, and a method's proxy examples are
    taken out of the clients' parts. So clients hold the same at a seed, but for the proxy examples.

    Raises:
        BadValue: more examples are asked for than there are, or the split cannot be made.
    """
    train, evals = load_data(spec.data, spec.model.backbone)
    streams = Streams(spec.seed)
    chosen = method(spec.method.name, **spec.method.settings)
    train, server = set_aside_evenly(train, spec.data.server_examples, streams)
    if chosen.proxy_examples and chosen.proxy == "external":
        aside: Indices = np.empty(0, dtype=np.int64)
        proxy: EncodedData | None = external_proxy(spec, chosen.proxy_examples, streams)
    else:
        aside = proxy_rows(train, chosen.proxy_examples, streams, chosen.proxy)
        proxy = train.subset(aside) if len(aside) else None
    held = [
        hold_out(train.subset(part[~np.isin(part, aside)]), spec.data.client_holdout, streams, client)
        for client, part in enumerate(split_indices(spec, train))
    ]
    return Holdings([kept for kept, _ in held], [own for _, own in held], evals, proxy, server)


def check_splits(specs: Sequence[RunSpec]) -> None:
    """Deal out the examples of every run and find its noise, before any is trained.

    A split that cannot be made, or a privacy budget that cannot be kept, shows at once.

    Raises:
        BadValue: see `holdings` and `privacy.noise.noise_multiplier`.
    """
    seen: dict[tuple[str, ...], list[int]] = {}
    for spec in specs:
        chosen = method(spec.method.name, **spec.method.settings)
        aside = f"{chosen.proxy}:{chosen.proxy_examples}"
        parts = (spec.data, spec.split)
        place = (*(part.model_dump_json() for part in parts), spec.model.backbone, str(spec.seed), aside)
        if place not in seen:
            seen[place] = [len(client) for client in holdings(spec).clients]
        if all(seen[place]):  # a client without examples is refused by name when its run begins
            steps = spec.rounds.rounds * spec.local.steps
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the run itself says what is doubtful
                noise_of_clients(spec.privacy, seen[place], spec.local.batch_size, steps)


def bare_model(spec: RunSpec, device: torch.device | None = None) -> nn.Module:
    """The run's backbone under the head that it began with, without an adapter."""
    task, name = get_task(spec.data.task), spec.model.backbone
    model = load_backbone(
        name,
        task.num_labels,
        Streams(spec.seed).seed("init", "head"),
        kind=task.modality,
        weights=spec.model.weights,
        dtype=spec.model.dtype,
        load_in_4bit=spec.model.load_in_4bit,
        image_size=image_side(name, spec.data.image_size) if task.modality == "image" else None,
        head_scale=spec.model.head_scale,
        device=device,
    )
    config: Any = model.config
    if task.modality == "text":
        pad = _padding_token(name, backbone_fingerprint(name))
        if default_kind(config) == "causal":
            # a decoder's head reads the last token that is no padding, and asks its configuration for it
            config.pad_token_id = pad
            config.use_cache = False  # it has a place for each layer, also for those that are left out
        check_padding(name, model, pad)
    return model


@lru_cache(maxsize=16)
def _padding_token(name: str, _backbone: str) -> int:
    """Found once a process: a tokenizer takes longer to load than a small model."""
    return int(load_tokenizer(name).pad_token_id)


def build(spec: RunSpec, device: torch.device) -> Federation:
    """Everything the round loop needs.

    The head, and LoRA's A, are drawn from the run's stream "init"; every client starts from the same ones.
    """
    held, streams = holdings(spec), Streams(spec.seed)
    model = bare_model(spec, device)
    read_first_token(model)
    if spec.model.gradient_checkpointing:
        checkpoint_gradients(model)
    adapted = attach_lora(model, spec.model.lora, streams.seed("init", "lora")).to(device)
    return Federation(
        model=adapted,
        method=method(spec.method.name, **spec.method.settings),
        clients=held.clients,
        evals=held.evals,
        rounds=spec.rounds,
        local=spec.local,
        streams=streams,
        head=spec.model.lora.head,
        privacy=spec.privacy,
        device=device,
        precision=spec.precision,
        proxy=held.proxy,
        server=held.server,
        held_out=held.held_out if spec.data.client_holdout else (),
    )
