"""The libraries whose release decides a run's numbers."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

from fedlora_kit.errors import FedloraError

COMPUTES = (
    *("torch", "transformers", "peft", "opacus", "tokenizers", "numpy", "scipy", "scikit-learn"),
    *("rouge-score", "pillow"),  # the latter decodes and resizes images
)


def installed(name: str) -> str | None:
    """The version of an installed package, with its build; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def release(name: str) -> str:
    """The release of an installed library, without the build; "" if it is not known."""
    found = installed(name)
    return "" if found is None else Version(found).public


@lru_cache
def releases() -> dict[str, str]:
    """Name -> release, for `COMPUTES`: without the build ("+cpu", "+cu128"), which is in the provenance, so
    that machines with and without a GPU share runs.

    Taken once a process: what is loaded does not follow a later installation.

    Raises:
        FedloraError: one is not installed.
    """
    found = {name: release(name) for name in COMPUTES}
    if missing := [name for name, said in found.items() if not said]:
        raise FedloraError(
            f"not installed: {', '.join(missing)}; a run's key names its release",
            f"python -m pip install {' '.join(missing)} (tested releases: requirements.lock)",
        )
    return found
