"""What a model can be used for: to classify texts or images under a new head, or to answer.

The task says which of these is wanted, and transformers' own lists of classes say which the model can do.
"""

from __future__ import annotations

from typing import Any, Literal

from fedlora_kit.errors import BadValue

#: "text" and "image": it classifies under a new head; "causal": it answers with its own language-model head
Kind = Literal["text", "image", "causal"]

_CLASSES = {
    "text": ("AutoModelForSequenceClassification", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES"),
    "image": ("AutoModelForImageClassification", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES"),
    "causal": ("AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"),
}
_WANTS = {
    "text": "for a model that classifies texts",
    "image": "for a model that classifies images",
    "causal": "for a causal language model",
}
_EXAMPLES = {
    "text": "kit/text-tiny or FacebookAI/roberta-base",
    "image": "kit/image-tiny or google/vit-base-patch16-224-in21k",
    "causal": "kit/causal-tiny or TinyLlama/TinyLlama-1.1B-Chat-v1.0",
}


def auto_class(kind: Kind) -> Any:
    """The class of transformers that loads a model for tasks of this kind."""
    import transformers

    return getattr(transformers, _CLASSES[kind][0])


def why_not(config: Any, kind: Kind) -> str | None:
    """Why a model of this configuration cannot serve tasks of a kind; None if it can."""
    from transformers.models.auto import modeling_auto

    what = str(config.model_type)
    if what not in getattr(modeling_auto, _CLASSES[kind][1]):
        return f"transformers has no {_CLASSES[kind][0].removeprefix('AutoModel')} of type {what}"
    if kind != "image" and config.get_text_config() is not config:
        return f"{what} is more than a language model"
    if getattr(config, "is_encoder_decoder", False):
        return f"{what} has an encoder and a decoder, and layers of the same number in both"
    if kind == "text" and getattr(config, "summary_type", None) == "last":
        return f"{what}'s head reads the last token of a batch, which is padding after a shorter text"
    masked = what in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if kind == "causal" and masked and not getattr(config, "is_decoder", False):
        return f"{what} is an encoder: it reads in both directions, and does not write"
    return None


def default_kind(config: Any) -> Kind:
    """What a model is used for where no task says it: the first that it can do of image, causal, text."""
    kinds: tuple[Kind, ...] = ("image", "causal", "text")
    return next((kind for kind in kinds if why_not(config, kind) is None), "text")


def check_kind(name: str, config: Any, kind: Kind, asked: str = "this") -> None:
    """Refuse a model for what it cannot do.

    Args:
        asked: what asks for it, such as a task; for the message.

    Raises:
        BadValue: with the reason, and models that can.
    """
    reason = why_not(config, kind)
    if reason is not None:
        raise BadValue(
            f"{asked} is {_WANTS[kind]}, and model {name!r} is not: {reason}",
            f"choose another, such as {_EXAMPLES[kind]}",
        )
