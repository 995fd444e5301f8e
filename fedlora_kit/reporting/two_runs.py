"""Two runs beside each other: what differs in their descriptions, and what came out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_OWN = ("started_utc", "wall_seconds", "peak_memory_bytes", "resumed_after_round", "seed")
"""Provenance that differs between any two runs, and explains nothing."""

ABSENT = "absent"


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested objects as one: dotted path -> value; lists and empty objects stay whole.

    >>> flat({"a": {"b": 1, "c": {}}, "d": [2]})
    {'a.b': 1, 'a.c': {}, 'd': [2]}
    """
    if isinstance(value, Mapping) and value:
        parts = [flat(inner, f"{path}.{name}" if path else str(name)) for name, inner in value.items()]
        return {name: inner for part in parts for name, inner in part.items()}
    return {path: value} if path else {}


def differences(one: Any, two: Any) -> list[dict[str, Any]]:
    """The fields in which two objects differ, in order: ``field``, ``a``, ``b``; "absent" where one lacks it.

    >>> differences({"lr": 0.1, "steps": 5}, {"lr": 0.2, "steps": 5, "clip": None})
    [{'field': 'lr', 'a': 0.1, 'b': 0.2}, {'field': 'clip', 'a': 'absent', 'b': None}]
    """
    a, b = flat(one or {}), flat(two or {})
    return [
        {"field": name, "a": a.get(name, ABSENT), "b": b.get(name, ABSENT)}
        for name in dict.fromkeys([*a, *b])
        if name not in a or name not in b or not _same(a[name], b[name])
    ]


def results(one: Any, two: Any) -> list[dict[str, Any]]:
    """The numbers of two runs side by side: ``field``, ``a``, ``b``, ``difference`` (b - a, None without).

    Left out: numbers of single clients, and the digest of the adapter (see `compare`).
    """
    a, b = _numbers(one), _numbers(two)
    rows = []
    for name in dict.fromkeys([*a, *b]):
        x, y = a.get(name), b.get(name)
        gap = y - x if x is not None and y is not None else None
        rows.append({"field": name, "a": x, "b": y, "difference": gap})
    return rows


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Two records (`one_run.record`) beside each other.

    Returns:
        ``a``, ``b``: their keys; ``description``, ``provenance``: lists of `differences`; ``results``: see
        `results`; ``same_adapter``: whether the final adapters are equal bit for bit, None where unknown.
    """
    ends = [(record["results"] or {}).get("adapter_digest") for record in (a, b)]
    origins = [{k: v for k, v in (r["provenance"] or {}).items() if k not in _OWN} for r in (a, b)]
    return {
        "a": a["key"],
        "b": b["key"],
        "description": differences(a["spec"], b["spec"]),
        "results": results(a["results"], b["results"]),
        "same_adapter": ends[0] == ends[1] if all(ends) else None,
        "provenance": differences(*origins) if all(origins) else [],
    }


def _numbers(results: Any) -> dict[str, float]:
    return {
        name: value
        for name, value in flat(results or {}).items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and ".clients." not in name
        and not name.startswith("local.examples.")
    }


def _same(x: Any, y: Any) -> bool:
    return bool(x == y) and isinstance(x, bool) == isinstance(y, bool)
