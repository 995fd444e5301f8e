"""The libraries whose release decides a run's numbers."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

from fedlora_kit.errors import FedloraError

COMPUTES = (
    *(
        "torch",
        "transformers",
        "peft",
        "opacus",
        "tokenizers",
        "numpy",
        "scipy",
        "scikit-learn",
        "rouge-score",
    ),
    "pillow",  # decodes and resizes images
)


def release(name: str) -> str:
    """The release of an installed library, without the build; "" if it is not known."""
    try:
        return Version(version(name)).public
    except PackageNotFoundError:
        return ""


@lru_cache
def releases() -> dict[str, str]:
    """Name -> release, for `COMPUTES`: without the build ("+cpu", "+cu128"), which is in the provenance, so
    that machines with and without a GPU share runs.

    Taken once a process: what is loaded does not follow a later installation.

    Raises:
        FedloraError: one is not installed.
    """
    found, missing = {}, []
    for name in COMPUTES:
        found[name] = release(name)
        if not found[name]:
            missing.append(name)
    if missing:
        raise FedloraError(
            f"not installed: {', '.join(missing)}; a run's key names its release",
            f"python -m pip install {' '.join(missing)} (tested releases: requirements.lock)",
        )
    return found
