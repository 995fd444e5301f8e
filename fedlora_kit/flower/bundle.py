"""The folder that ``flwr run`` takes: a run's description, and no code."""

from __future__ import annotations

import json
from pathlib import Path

from fedlora_kit.experiments import atomic
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.flower.support import check_support

_APP = """\
[project]
name = "fedlora-run"
version = "1.0.0"
description = "One run of fedlora-kit as a Flower app."
license = "MIT"
dependencies = []

[tool.flwr.app]
publisher = "fedlora-kit"

[tool.flwr.app.components]
serverapp = "fedlora_kit.flower.server:app"
clientapp = "fedlora_kit.flower.client:app"

[tool.flwr.app.config]
"""


def write_app(
    spec: RunSpec, folder: Path, *, nodes: int, timeout: float, wait: float = 120.0, device: str = "auto"
) -> None:
    """Write the folder that ``flwr run`` takes: the description and two names of the installed kit, no code.

    Raises:
        BadValue: the run cannot be spread over so many nodes.
    """
    check_support(spec, nodes)
    config = {
        "spec": spec.canonical(),
        "nodes": nodes,
        "timeout": float(timeout),
        "wait": float(wait),
        "device": device,
    }
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in config.items()]
    atomic.write_text(folder / "pyproject.toml", _APP + "\n".join(lines) + "\n")
