"""Shared fixtures: one thread, quiet libraries, no GPU unless it is asked for."""

from __future__ import annotations

import os

# also of the processes that tests start
os.environ.update({} if os.environ.get("FEDLORA_TEST_GPU") == "1" else {"CUDA_VISIBLE_DEVICES": ""})
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
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
    for name in ("FEDLORA_HUB", "FEDLORA_JOBS", "FEDLORA_WITH", "FEDLORA_ITEM", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub_server(tmp_path, monkeypatch):
    """A stand-in of the Hub (`hub_server.HubServer`) that every library asks; empty caches, no waiting."""
    import datasets
    import huggingface_hub.constants as hub
    import huggingface_hub.file_download as download
    import huggingface_hub.utils._http as http
    from hub_server import HubServer

    from fedlora_kit import hub as kit_hub
    from fedlora_kit import paths

    server, cache = HubServer(), tmp_path / "hub-cache"
    own = tmp_path / "home" / "data"  # decoded images are known by their commit, which is a pretence here
    own.mkdir(parents=True)
    (own / "backbones").symlink_to(paths.data_dir() / "backbones")
    monkeypatch.setenv("FEDLORA_HOME", str(own.parent))
    monkeypatch.setattr(kit_hub, "_resolved", {})
    monkeypatch.setattr(kit_hub, "_failed", {})
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for module, values in (
        (
            hub,
            {
                "ENDPOINT": server.address,
                "HUGGINGFACE_CO_URL_TEMPLATE": server.address + "/{repo_id}/resolve/{revision}/{filename}",
                "HF_HUB_CACHE": str(cache / "hub"),
                "HF_TOKEN_PATH": str(cache / "token"),
                "HF_HUB_OFFLINE": False,
                "HF_HUB_DISABLE_XET": True,
            },
        ),
        (
            datasets.config,
            {
                "HF_ENDPOINT": server.address,
                "HUB_DATASETS_URL": server.address + "/datasets/{repo_id}/resolve/{revision}/{path}",
                "HF_DATASETS_CACHE": cache / "datasets",
                "DOWNLOADED_DATASETS_PATH": cache / "datasets" / "downloads",
                "HF_HUB_OFFLINE": False,
                "HF_UPDATE_DOWNLOAD_COUNTS": False,
            },
        ),
    ):
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    for module in (download, http):
        monkeypatch.setattr(module.time, "sleep", lambda _: None)
    yield server
    server.close()
