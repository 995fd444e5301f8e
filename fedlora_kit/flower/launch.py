"""A whole Flower federation on this machine: one SuperLink and some SuperNodes as processes, for trying out.

They listen on 127.0.0.1 alone, on free ports, without TLS. All end with this process, however it ends.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from fedlora_kit import paths
from fedlora_kit.devices import gpu_count, kind_of
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments.placing import wanted_device
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.experiments.store import Entry, Store
from fedlora_kit.flower import guard
from fedlora_kit.flower.bundle import write_app
from fedlora_kit.flower.guard import end, marked
from fedlora_kit.flower.support import check_support

_START_SECONDS = 120.0  # for the SuperLink's port to open
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 15.0


class ProcessEnded(FedloraError):
    """A process of the federation ended before the run did."""


def needs_flower() -> None:
    """One clear error where the extra is not installed.

    Raises:
        FedloraError: Flower is not installed.
    """
    if importlib.util.find_spec("flwr") is None:
        raise FedloraError("Flower is not installed", "pip install 'fedlora-kit[flower]'")


class LocalFederation:
    """One SuperLink and ``nodes`` SuperNodes for one run; a context manager.

    Args:
        folder: for logs, the app and Flower's own files; must be new or empty.
        timeout: seconds that a node may take for one round, or for one evaluation.

    Attributes:
        processes: name ("SuperLink", "SuperNode 0", ...) -> process.
    """

    def __init__(
        self,
        spec: RunSpec,
        *,
        nodes: int = 2,
        device: str = "auto",
        timeout: float = 600.0,
        store: Store | None = None,
        folder: Path,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        needs_flower()
        check_support(spec, nodes)
        self._spec, self._nodes, self._timeout = spec, nodes, timeout
        self._device = wanted_device(spec, device)
        self._store, self._folder, self._say = store or Store(), folder.absolute(), say
        self._report, self._shown = self._folder / "report.json", 0
        self._mark = ("FEDLORA_FLOWER_REPORT", str(self._report))
        self._guard: subprocess.Popen[bytes] | None = None
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> LocalFederation:
        try:
            self._begin()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def result(self) -> Entry:
        """Wait for the end of the run.

        Raises:
            ProcessEnded: a process of the federation died.
            FedloraError: what stopped the run, as the server said it.
        """
        submit = self.processes["flwr run"]
        ended: float | None = None
        while not self._report.exists():
            self._show()
            self._all_alive()
            if submit.poll() is not None:
                if submit.returncode:
                    raise self._died("flwr run")
                ended = ended or time.monotonic()
                if time.monotonic() - ended > _GRACE_SECONDS:
                    raise ProcessEnded("the server ended without a result", self._see("SuperLink"))
            time.sleep(_POLL_SECONDS)
        self._show()
        said = json.loads(self._report.read_text("utf-8"))
        if "problem" in said:
            raise FedloraError(said["problem"], said["remedy"])
        entry = self._store.load(said["key"])
        if entry is None:
            raise FedloraError(
                f"run {said['key']} is finished, and not in the store", f"look at {self._folder}"
            )
        return entry

    def close(self) -> None:
        """End all processes, with what they have started."""
        groups, mark = [p.pid for p in self.processes.values()], "=".join(self._mark)
        end(mark, groups, signal.SIGTERM)
        deadline = time.monotonic() + 3.0
        while marked(mark) and time.monotonic() < deadline:
            for process in self.processes.values():
                process.poll()
            time.sleep(0.05)
        end(mark, groups, signal.SIGKILL)
        for process in self.processes.values():
            process.wait()
        if self._guard is not None:
            self._guard.kill()
            self._guard.wait()
            if self._guard.stdin is not None:
                self._guard.stdin.close()

    def _begin(self) -> None:
        command = [sys.executable, "-I", guard.__file__, "=".join(self._mark)]
        self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        app, port = self._folder / "app", _free_port()
        address, host = f"127.0.0.1:{port}", ["--host", "127.0.0.1"]
        write_app(self._spec, app, nodes=self._nodes, timeout=self._timeout, device=self._device)
        home = self._home("flwr run")
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "local"\n\n[superlink.local]\naddress = "{address}"\ninsecure = true\n'
        )
        link = ["flower-superlink", "--insecure", *host, "--port", str(port)]
        self._start("SuperLink", [*link, "--disable-runtime-dependency-installation"])
        self._wait_for(port)
        for i in range(self._nodes):
            device = device_of_node(self._device, i)
            config = f'partition-id={i} num-partitions={self._nodes} device="{device}"'
            own = [*host, "--port", str(_free_port())]
            where = ["--superlink", address, "--node-config", config]
            self._start(f"SuperNode {i}", ["flower-supernode", "--insecure", *where, *own])
        self._start("flwr run", ["flwr", "run", str(app), "local", "--stream"])

    def _start(self, name: str, command: Sequence[str]) -> None:
        tools = Path(sys.executable).parent
        environment = {
            **os.environ,
            "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}",
            "FLWR_HOME": str(self._home(name)),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),  # nodes share this machine
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
            "FEDLORA_HOME": str(paths.home()),  # they start in another folder
            "FEDLORA_RUNS": str(self._store.root),
            **({"CUDA_VISIBLE_DEVICES": ""} if kind_of(self._device) == "cpu" else {}),
            **dict([self._mark]),
        }
        try:
            with open(self._log(name), "wb") as log:
                process = subprocess.Popen(
                    command,
                    cwd=self._folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except FileNotFoundError:
            raise FedloraError(
                f"{command[0]} is not in {tools}", "pip install 'fedlora-kit[flower]' into this environment"
            ) from None
        self.processes[name] = process
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.write(b"%d\n" % process.pid)
            self._guard.stdin.flush()

    def _wait_for(self, port: int) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            self._all_alive()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(_POLL_SECONDS)
        raise FedloraError(f"the SuperLink is not up after {_START_SECONDS:g} s", self._see("SuperLink"))

    def _all_alive(self) -> None:
        for name, process in self.processes.items():
            if name != "flwr run" and process.poll() is not None:
                raise self._died(name)

    def _died(self, name: str) -> ProcessEnded:
        code = self.processes[name].returncode
        how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
        return ProcessEnded(f"{name} ended before the run did ({how})", self._see(name))

    def _see(self, name: str) -> str:
        lines = self._log(name).read_text("utf-8", "replace").strip().splitlines()
        return f"see {self._log(name)}" + (f"; its last line: {lines[-1][:300]}" if lines else "")

    def _show(self) -> None:
        """Hand on the server's lines about its rounds, each once."""
        path = Path(f"{self._report}.lines")
        lines = path.read_text("utf-8").split("\n")[:-1] if path.exists() else []
        for line in lines[self._shown :]:
            self._say(line)
        self._shown = len(lines)

    def _home(self, name: str) -> Path:
        folder = self._folder / "flwr" / name.replace(" ", "-").lower()  # of its own: apps are unpacked there
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _log(self, name: str) -> Path:
        return self._folder / f"{name.replace(' ', '-').lower()}.log"


def federate(
    spec: RunSpec,
    *,
    nodes: int = 2,
    device: str = "auto",
    timeout: float = 600.0,
    store: Store | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Entry:
    """The finished run: from the store, or trained by a SuperLink and SuperNodes on this machine.

    The logs are removed if all goes well; an error says where they are.

    Raises:
        BadValue: the run cannot be spread; FedloraError: what stopped it.
    """
    needs_flower()
    check_support(spec, nodes)
    store = store or Store()
    finished = store.load(spec.key())
    if finished is not None:
        return finished
    folder = Path(tempfile.mkdtemp(prefix="fedlora-flower-"))
    try:
        with LocalFederation(
            spec, nodes=nodes, device=device, timeout=timeout, store=store, folder=folder, say=say
        ) as local:
            entry = local.result()
    except FedloraError as error:
        raise type(error)(error.problem, f"{error.remedy} (logs: {folder})") from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return entry


def device_of_node(asked: str, node: int) -> str:
    """The device of a SuperNode: GPUs go around among the nodes, unless the one is named.

    Raises:
        BadValue: see `devices.check_device`.
    """
    if kind_of(asked) == "cpu" or ":" in asked:
        return asked
    return f"cuda:{node % gpu_count()}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
