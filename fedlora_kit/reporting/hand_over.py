"""A finished run as a model that others load: an adapter for PEFT or merged weights, with a model card."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from fedlora_kit import disk, numerals
from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.experiments import atomic
from fedlora_kit.experiments.entry import Entry
from fedlora_kit.experiments.setup import bare_model
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.models.backbones import backbone_fingerprint
from fedlora_kit.models.names import backbone, backbone_folder
from fedlora_kit.models.tokenizer import load_tokenizer

_CLASSES = {
    "text": ("AutoModelForSequenceClassification", "AutoPeftModelForSequenceClassification", "SEQ_CLS"),
    "causal": ("AutoModelForCausalLM", "AutoPeftModelForCausalLM", "CAUSAL_LM"),
    "image": ("AutoModelForImageClassification", "AutoPeftModel", None),
}
"""modality → transformers' class, PEFT's class, PEFT's type of task (it has none for images)."""


def write_model(entry: Entry, folder: Path, *, merged: bool = False) -> list[Path]:
    """Write the run's final global model as a folder for the Hub; its files.

    Args:
        entry: a finished run.
        folder: made if it is not there; must be empty.
        merged: the whole model with ΔW added to W0 (PEFT's ``merge_and_unload``), for
            ``AutoModel….from_pretrained``. Otherwise the adapter with its head, for ``AutoPeftModel…``, which
            loads the base by the id that stands in ``adapter_config.json``.

    The classes' names stand in ``config.json`` (merged) or in the card, and the base's commit, method, data,
    split, epsilon and scores in the card, ``README.md``.

    Raises:
        BadValue: the folder is not empty; the run's task or method is not known here; its base was drawn at
            random, has changed since, or is quantised to 4 bits and cannot be merged.
    """
    folder = disk.folder(str(folder), "the model's folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise BadValue(f"{folder} is not empty", "name a new folder: nothing is overwritten")
    try:
        spec = RunSpec.parse(entry.spec)
    except UnknownName as error:
        raise BadValue(
            f"run {entry.key}: {error.problem}", "name the file that registers it: --with FILE"
        ) from error
    if spec.model.weights == "random":
        raise BadValue(
            f"run {entry.key} adapts a base of random weights, which nobody else has",
            "choose a run with model.weights=pretrained",
        )
    if merged and spec.model.load_in_4bit:
        raise BadValue(
            f"run {entry.key} adapts a base in 4 bits, and its sum with the adapter is none of 4 bits",
            "write the adapter alone: leave out --merged",
        )
    loaded = _as_loaded(entry, spec)
    folder.mkdir(parents=True, exist_ok=True)
    if merged:
        _merged(entry, loaded).save_pretrained(str(folder))
    else:
        _adapter(entry, spec, folder)
    if get_task(spec.data.task).modality != "image":
        load_tokenizer(loaded.model.backbone).save_pretrained(str(folder))
    atomic.write_text(folder / "README.md", card(entry, spec, merged))
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _as_loaded(entry: Entry, spec: RunSpec) -> RunSpec:
    """The description with the base that the run adapted: of the Hub at its commit then.

    Raises:
        BadValue: the base's files here are others now.
    """
    name, then = spec.model.backbone, str(entry.provenance.get("model", ""))
    base, revision = _base(entry, spec)
    if then.startswith("hub:") and revision:
        return spec.model_copy(
            update={"model": spec.model.model_copy(update={"backbone": f"{base}@{revision}"})}
        )
    now = backbone_fingerprint(name)
    if then.startswith("files:") and now.startswith("files:") and now != then:
        raise BadValue(
            f"run {entry.key} adapts {name}, whose files have changed since",
            "put those of then back, or train the run again",
        )
    return spec


def _merged(entry: Entry, spec: RunSpec) -> Any:
    from peft import PeftModel

    task, adapter = get_task(spec.data.task), str(entry.path / "adapter")
    model: Any = PeftModel.from_pretrained(bare_model(spec), adapter)  # type: ignore[arg-type]
    model = model.merge_and_unload()
    if task.modality != "causal":
        model.config.id2label = dict(enumerate(task.label_names))
        model.config.label2id = {name: at for at, name in enumerate(task.label_names)}
    return model


def _adapter(entry: Entry, spec: RunSpec, folder: Path) -> None:
    source = entry.path / "adapter"
    config = json.loads((source / "adapter_config.json").read_text("utf-8"))
    _, _, kind = _CLASSES[get_task(spec.data.task).modality]
    base, revision = _base(entry, spec)
    config |= {"base_model_name_or_path": base, "revision": revision, "task_type": kind}
    if kind is None:
        model = type(bare_model(spec)).__name__
        config["auto_mapping"] = {"base_model_class": model, "parent_library": "transformers"}
    atomic.write_text(folder / "adapter_config.json", json.dumps(config, indent=2) + "\n")
    atomic.write_bytes(
        folder / "adapter_model.safetensors", (source / "adapter_model.safetensors").read_bytes()
    )


def _base(entry: Entry, spec: RunSpec) -> tuple[str, str | None]:
    """The base as others name it: its Hub id and the commit that was loaded; the folder of a local one."""
    name, known = spec.model.backbone, backbone(spec.model.backbone)
    said = re.fullmatch(r"hub:.*@([0-9a-f]{40})", str(entry.provenance.get("model", "")))
    if name.startswith("kit/") or known.is_folder:
        return str(backbone_folder(name)), None
    return known.repo, said.group(1) if said else known.revision or None


def card(entry: Entry, spec: RunSpec, merged: bool) -> str:
    """The model card, as Markdown with the Hub's header."""
    from huggingface_hub import ModelCardData

    task, results, ledger = get_task(spec.data.task), entry.results, entry.privacy
    base, revision = _base(entry, spec)
    licence = _licence(spec.model.backbone)
    header = ModelCardData(
        library_name="transformers" if merged else "peft",
        base_model=None if Path(base).is_absolute() else base,
        datasets=[task.hub_id] if task.hub_id else None,
        license=licence,
        tags=["federated-learning", "lora", *(["differential-privacy"] if ledger else [])],
    )
    split, local, lora = spec.split, spec.local, spec.model.lora
    settings = ", ".join(f"{name} = {value}" for name, value in split.settings.items())
    private = (
        f"example-level DP-SGD at each client: ε = {numerals.significant(ledger['epsilon'])} at "
        f"δ = {ledger['delta']:g} (largest over the clients), σ = {numerals.significant(ledger['sigma'])}, "
        f"C = {numerals.significant(ledger['clip'])}, {ledger['sampling']} sampling"
        if ledger
        else "none: the adapter may give away examples that it was trained on"
    )
    rows = {
        "base": f"{spec.model.backbone}{f' at commit {revision}' if revision else ''}",
        "licence of the base": licence or "not said in its files: look at its page before you publish this",
        "task": f"{task.name}{f' ({task.hub_id})' if task.hub_id else ''}",
        "method": f"{spec.method.name}{f', {spec.method.settings}' if spec.method.settings else ''}",
        "LoRA": f"r = {lora.rank}, α = {numerals.significant(lora.alpha)} on {', '.join(lora.targets)}; "
        f"head {lora.head}",
        "clients": f"{split.clients}, split {split.partitioner}{f' ({settings})' if settings else ''}",
        "training": f"rounds × local steps = {spec.rounds.rounds} × {local.steps}, batch {local.batch_size}, "
        f"{local.optimizer}, learning rate {numerals.significant(local.lr)}, seed {spec.seed}",
        "privacy": private,
        "run": f"{entry.key}, source {str(entry.provenance.get('source', 'unknown'))[:16]}",
    }
    scores = [
        f"| {part} | {numerals.fixed(100 * score['final'], 2)} | {numerals.significant(score['loss'])} | "
        f"{int(score['examples'])} |"
        for part, score in results["scores"].items()
    ]
    classes = "" if task.modality == "causal" else f"\nClasses, in order: {', '.join(task.label_names)}.\n"
    return "\n".join(
        [
            f"---\n{header.to_yaml()}\n---",
            f"# {task.name}: {base} with a federated LoRA adapter\n",
            "| | |\n|---|---|",
            *(f"| {name} | {text} |" for name, text in rows.items()),
            "\nScores of the global model after the last round:\n",
            "| scored on | accuracy (%) | loss (nats) | examples |\n|---|---|---|---|",
            *scores,
            classes,
            "```python",
            _usage(task.modality, task.num_labels, merged),
            "```\n",
            "Written by fedlora-kit from a run in its store.\n",
        ]
    )


def _usage(modality: str, labels: int, merged: bool) -> str:
    whole, adapted, _ = _CLASSES[modality]
    name = whole if merged else adapted
    heads = "" if merged or modality == "causal" else f", num_labels={labels}"
    library = "transformers" if merged else "peft"
    return f'from {library} import {name}\n\nmodel = {name}.from_pretrained("path/to/this/folder"{heads})'


def _licence(name: str) -> str | None:
    """The licence in the header of the base's own card, where its folder has one."""
    from huggingface_hub import ModelCard

    folder = backbone_folder(name)
    if folder is None or not (folder / "README.md").is_file():
        return None
    try:
        found = ModelCard.load(folder / "README.md").data.get("license")
    except ValueError:  # a header that is no YAML
        return None
    return str(found) if found else None
