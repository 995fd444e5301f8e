"""The workers of a Ray cluster: a task a run, several to a GPU where they fit, lost ones sent again."""

from __future__ import annotations

import json
import os
import warnings
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from fedlora_kit.devices import free_bytes
from fedlora_kit.engines.ray_worker import train
from fedlora_kit.errors import FedloraError
from fedlora_kit.running.shares import share_of_gpu

_PROBE_SECONDS = 180.0


class RayCluster:
    """Workers of a Ray cluster that take jobs (see `ray_worker.job_text`) and give replies.

    Args:
        address: of a running cluster ("auto": the one that this machine belongs to); None for the one that
            ``RAY_ADDRESS`` names, or else a Ray of this machine alone, started now.
        retries: how often a run whose worker or node was lost is sent again.

    Raises:
        FedloraError: Ray is not installed, or no cluster answers at the address.
    """

    def __init__(self, address: str | None = None, retries: int = 5) -> None:
        self._ray = need_ray()
        self._own = not self._ray.is_initialized()
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if self._own:
            where = address or os.environ.get("RAY_ADDRESS") or "local"
            extra: dict[str, Any] = {"include_dashboard": False} if where == "local" else {}
            try:
                self._ray.init(where, log_to_driver=False, logging_level="warning", **extra)
            except Exception as error:  # Ray raises bare ones where it cannot start
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                if where == "local":
                    raise FedloraError(
                        f"Ray could not start on this machine: {reason}",
                        "try again when the machine is less busy, or join a running cluster: --address",
                    ) from error
                raise FedloraError(
                    f"no Ray cluster answers at {where}: {reason}",
                    "start one (ray start --head), or leave --address out for a Ray of this machine alone",
                ) from error
        self._task = self._ray.remote(max_retries=retries)(_task)
        # one run a process: CUDA keeps to the GPU of a process's first run, Ray may give the next run another
        self._gpu_task = self._ray.remote(max_retries=retries, max_calls=1)(_task)
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        self.nodes = len(alive)
        self.gpus = sum(node["Resources"].get("GPU", 0) for node in alive)
        self._host = max((node["Resources"].get("memory", 0) for node in alive), default=0)
        self._with_gpu = [n["NodeID"] for n in alive if n["Resources"].get("GPU", 0)]
        self._card: int | None = None

    def device(self, asked: str) -> str:
        """What a notebook's ``device`` means here: "auto" is a GPU if the cluster has any."""
        return "cuda" if asked.startswith("cuda") or (asked == "auto" and self.gpus) else "cpu"

    def submit(self, text: str, needed: int | None, *, alone: bool = False) -> Future[str]:
        """Queue a job; its reply, or an error where its worker was lost for the last time.

        Args:
            needed: bytes of memory, of the GPU or of the machine; None if unknown.
            alone: no other run on its GPU.
        """
        wanted = json.loads(text)
        options: dict[str, Any] = {"num_cpus": 1, "name": f"run {wanted['key']}"}
        task = self._gpu_task if wanted["device"] == "cuda" else self._task
        if wanted["device"] == "cuda":
            options["num_gpus"] = 1.0 if alone else share_of_gpu(needed, self._smallest_card())
        elif needed is not None:
            options["memory"] = min(needed, int(self._host))  # more than any machine has would wait for ever
        reply: Future[str] = task.options(**options).remote(text).future()
        return reply

    def close(self) -> None:
        """Leave the cluster; what is still under way is stopped. A Ray of this machine alone ends."""
        if self._own:
            self._ray.shutdown()

    def _smallest_card(self) -> int | None:
        """Bytes that are free on the smallest GPU, asked of every node once; None if one does not say."""
        if self._card is None and self._with_gpu:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            probe = self._ray.remote(num_cpus=0, num_gpus=0.01, max_calls=1, max_retries=0)(free_bytes)
            here = [NodeAffinitySchedulingStrategy(node, soft=False) for node in self._with_gpu]
            asked = [probe.options(scheduling_strategy=place).remote() for place in here]
            self._card = 0
            with suppress(self._ray.exceptions.RayError):
                self._card = min(self._ray.get(asked, timeout=_PROBE_SECONDS))
        return self._card or None


def need_ray() -> Any:
    """The module ray.

    Raises:
        FedloraError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray
    except ImportError as error:
        raise FedloraError(
            "the engine ray needs the package ray, which is not installed",
            "pip install 'fedlora-kit[ray]', or leave --engine out",
        ) from error
    return ray


def _task(text: str) -> str:
    """What Ray runs: text in, text out."""
    return train(text, need_ray().get_runtime_context().get_node_id())
