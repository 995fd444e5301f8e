"""Environment variables of this process and of those that it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import fedlora_kit

#: what keeps progress bars and notices of the libraries out of a log
QUIET = {
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


@contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the block, and put them back after it."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def in_front(first: str, variable: str) -> str:
    """A variable that lists folders, with one more in front."""
    rest = os.environ.get(variable)
    return os.pathsep.join([first, rest]) if rest else first


def python_path() -> str:
    """``PYTHONPATH`` with which another process imports the same ``fedlora_kit`` as this one."""
    return in_front(str(Path(fedlora_kit.__file__).resolve().parent.parent), "PYTHONPATH")
