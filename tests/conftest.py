"""Shared fixtures: one thread, quiet libraries, tiny random models of every architecture."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_store(tmp_path, monkeypatch):
    """No test reads or writes the user's store, or sees the user's mirror."""
    monkeypatch.setenv("FEDLORA_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("FEDLORA_HUB", raising=False)
    monkeypatch.delenv("FEDLORA_JOBS", raising=False)
