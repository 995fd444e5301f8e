"""Shared fixtures: one thread, quiet libraries, no GPU unless it is asked for."""

from __future__ import annotations

import os

# also of the processes that tests start
os.environ.update({} if os.environ.get("FEDLORA_TEST_GPU") == "1" else {"CUDA_VISIBLE_DEVICES": ""})
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """What wants a GPU is skipped without one."""
    if not (os.environ.get("FEDLORA_TEST_GPU") == "1" and torch.cuda.is_available()):
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="wants a GPU, and FEDLORA_TEST_GPU=1"))


@pytest.fixture(autouse=True)
def _own_store(tmp_path, monkeypatch):
    """No test reads or writes the user's store, or sees the user's mirror."""
    monkeypatch.setenv("FEDLORA_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("FEDLORA_HUB", raising=False)
    monkeypatch.delenv("FEDLORA_JOBS", raising=False)
