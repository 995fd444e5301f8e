"""One run of the store for a reader: found by the beginning of its key, and described in a few lines.

Looks only: nothing is verified away, moved or trained.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fedlora_kit.errors import BadValue
from fedlora_kit.experiments.atomic import from_json
from fedlora_kit.experiments.checkpoints import CheckpointFolder
from fedlora_kit.experiments.entry import Entry
from fedlora_kit.experiments.store import Store
from fedlora_kit.numerals import MISSING, significant
from fedlora_kit.reporting.runs import scores_of, thinned

_KEY = re.compile(r"[0-9a-f]{16}")
_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_BARS = "_.-=+*#@"


def known_keys(store: Store) -> list[str]:
    """Keys of all runs, finished or not, sorted; reads the folders' names alone."""
    found: set[str] = set()
    for folder in (store.root, store.root / ".work", store.root / ".failed"):
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        found.update(name.removesuffix(".json") for name in names)
    return sorted(key for key in found if _KEY.fullmatch(key))


def find_key(text: str, store: Store) -> str:
    """The key that ``text`` is, or is the beginning of; a path into the run's folder also names it.

    Raises:
        BadValue: no such run, or several.
    """
    inside = _KEY.findall(text) if "/" in text else []
    wanted = inside[-1] if inside else text.strip().lower()
    if not re.fullmatch(r"[0-9a-f]{1,16}", wanted):
        raise BadValue(f"{text!r} is no key of a run", "a key, or its beginning: hex digits (0-9, a-f)")
    keys = [key for key in known_keys(store) if key.startswith(wanted)]
    if not keys:
        raise BadValue(f"no run {wanted!r} in {store.root}", "`fedlora runs` lists those there are")
    if len(keys) > 1:
        some = ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")
        raise BadValue(f"{wanted!r} is the beginning of {len(keys)} keys: {some}", "give more of the key")
    return keys[0]


def record(key: str, store: Store) -> dict[str, Any]:
    """What is known of a run, as JSON values.

    Returns:
        ``key``, ``status``, ``path`` (the entry's folder, None unless finished), ``spec``, ``results``,
        ``history`` (a list of rounds; of an unfinished run those up to its last checkpoint), ``privacy``,
        ``provenance``, ``failure``; None for what there is not.

    Raises:
        FedloraError: the entry is damaged.
    """
    known: dict[str, Any] = dict.fromkeys(("path", "spec", "results", "privacy", "provenance", "failure"))
    status = store.status(key)
    if status == "finished":
        entry = Entry(key, store.root / key)
        known |= {name: getattr(entry, name) for name in ("spec", "results", "privacy", "provenance")}
        known |= {"path": str(entry.path), "history": entry.history}
    else:
        folder = store.root / ".work" / key
        with contextlib.suppress(OSError, ValueError):
            known["spec"] = from_json((folder / "spec.json").read_bytes())
        known |= {"history": _so_far(CheckpointFolder(folder / "checkpoints"))}
        known["failure"] = store.failure(key) if status == "failed" else None
    return {"key": key, "status": status, **known}


def _so_far(folder: CheckpointFolder) -> list[dict[str, Any]]:
    """The history in the newest checkpoint that can be read. Its owner may be writing: nothing is touched."""
    from safetensors import SafetensorError, safe_open

    for round_index in reversed(folder.rounds()):
        try:
            with safe_open(folder.path(round_index), "pt") as file:
                return list(from_json(file.metadata()["meta"])["history"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            continue
    return []


def description(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A run's description in short: (what, in words). Defaults that change nothing are left out."""

    parts = (spec.get(name) for name in ("method", "model", "data", "split", "local", "rounds"))
    method, model, data, split, local, rounds = (p if isinstance(p, Mapping) else {} for p in parts)
    lora = model.get("lora") or {}
    targets = " ".join(lora.get("targets") or ["?"])
    steps, batch = local.get("steps", "?"), local.get("batch_size", "?")
    usual = {"dropout": 0.0, "use_dora": False, "init": "kaiming"}
    plain = {"lr_decay": 1.0, "momentum": 0.0, "weight_decay": 0.0, "max_tokens": 4096}
    told = {
        "method": _named(method, "name"),
        "model": model.get("backbone", "?") + _others(model, {"weights": "pretrained", "dtype": "fp32"}),
        "LoRA": f"rank {lora.get('rank', '?')}, α {shortened(lora.get('alpha', '?'))} on {targets}, "
        f"head {lora.get('head', '?')}{_others(lora, usual)}",
        "data": data.get("task", "?") + _others(data, {"augment": "none", "server_examples": 0}),
        "clients": f"{split.get('clients', '?')}, {_named(split, 'partitioner')}",
        "rounds": f"{rounds.get('rounds', '?')} × {steps} steps of {batch} examples, "
        f"cohort {rounds.get('cohort') or 'all'}",
        "optimiser": f"{local.get('optimizer', '?')}, lr {shortened(local.get('lr', '?'))}"
        f"{_others(local, plain)}",
        "privacy": _privacy(spec.get("privacy")),
        "seed": f"{spec.get('seed', '?')}, precision {spec.get('precision', '?')}",
    }
    return list(told.items())


_SAID = {"backbone", "lora", "rank", "alpha", "targets", "head", "task", "steps", "batch_size", "optimizer"}
_SAID |= {"lr", "stack", "client_holdout", "holdout"}
_EXTRA = {"holdout": "held out for choosing", "client_holdout": "of each client's held out"}


def _others(values: Mapping[str, Any], usual: Mapping[str, Any]) -> str:
    """The settings that are neither said already nor as usual, behind a comma."""
    told = [f"{_EXTRA[k]}: {values[k]}" for k in _EXTRA if values.get(k)]
    for name, value in values.items():
        if name in _SAID or value in (None, False) or (name in usual and value == usual[name]):
            continue
        told.append(f"{name} {shortened(value)}")
    return "".join(f", {text}" for text in told)


def _named(values: Mapping[str, Any], key: str) -> str:
    settings = values.get("settings") or {}
    inside = ", ".join(f"{name}={shortened(value)}" for name, value in settings.items())
    return f"{values.get(key, '?')}{f' ({inside})' if inside else ''}"


def _privacy(privacy: Any) -> str:
    if not isinstance(privacy, Mapping):
        return "none"
    asked = [
        f"{symbol} {shortened(privacy[name])}"
        for name, symbol in (("epsilon", "ε"), ("sigma", "σ"), ("delta", "δ"), ("clip", "clipping norm C"))
        if privacy.get(name) is not None
    ]
    return ", ".join(asked)


def shortened(value: Any, width: int = 60) -> str:
    """A value in at most ``width`` characters."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return text if len(text) <= width else f"{text[: width - 3]}..."
    return f"{value:g}"


def number(value: Any) -> str:
    """A number with five significant digits; `numerals.MISSING` where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return MISSING if value is None else shortened(value)
    return significant(value, 5)


def score_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """The summary's scores as rows: scored part, metric, final, mean of the last 10 rounds, best."""
    rows = []
    for part, scores in (results.get("scores") or {}).items():
        at = scores.get("best_round")
        rows.append([part, *_score("accuracy", scores, f" (round {at + 1})" if at is not None else "")])
        rows.append([part, "loss", number(scores.get("loss")), "-", "-"])
        rows += [[part, *_score(name, s)] for name, s in scores.items() if isinstance(s, Mapping)]
    own = {k: v for k, v in (results.get("local") or {}).items() if k != "examples"}
    return rows + [["clients' own", *_score(name, scores)] for name, scores in own.items()]


def _score(name: str, scores: Mapping[str, Any], at: str = "") -> list[str]:
    return [
        name,
        number(scores.get("final")),
        number(scores.get("last10")),
        number(scores.get("best")) + at,
    ]


def history_table(history: Sequence[Mapping[str, Any]], most: int) -> tuple[list[str], list[list[str]]]:
    """The rounds as a table: header and rows, at most ``most`` of them, evenly, with both ends; 0 for all.

    Rounds are counted from 1, as on the report page. A cell is ``-`` where the round has no such number.
    """
    scores = dict.fromkeys(place for record in history for place in scores_of(record))
    epsilon = any("epsilon" in record for record in history)
    header = ["round", "clients", "train loss", *(f"{p}\n{m}" for p, m in scores), "bytes up"]
    rows = [
        [
            str(record.get("round", 0) + 1),
            _clients(record),
            number(record.get("train_loss")),
            *(number(scores_of(record).get(place)) for place in scores),
            number(record.get("bytes_up")),
            *([number(record.get("epsilon"))] if epsilon else []),
        ]
        for record in thinned(history, most)
    ]
    return header + (["ε"] if epsilon else []), rows


def _clients(record: Mapping[str, Any]) -> str:
    drawn = len(record.get("cohort") or [])
    trained = record.get("training_clients", drawn)
    return str(drawn) if trained == drawn else f"{trained} of {drawn}"


def spark(values: Sequence[float], plain: bool = False) -> str:
    """A curve as a row of bars, the smallest value lowest; level if all are equal.

    >>> spark([0.0, 0.5, 1.0])
    '▁▅█'

    Args:
        values: finite.
        plain: with ASCII characters, for a terminal without blocks.
    """
    bars = _PLAIN_BARS if plain else _BARS
    low, high = min(values, default=0.0), max(values, default=0.0)
    if low == high:
        return bars[0] * len(values)
    return "".join(bars[round((v - low) / (high - low) * (len(bars) - 1))] for v in values)
