"""Jupyter's way to a kernel that is there already (`forked.Kernel`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from typing import Any

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

from fedlora_kit.batch.forked import Kernel

NAME = "fedlora-forked"
_waiting: list[Kernel] = []


class ForkedProvisioner(LocalProvisioner):  # type: ignore[misc]
    """Gives the waiting process the command line, instead of starting one."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        kernel = _waiting.pop()
        self.cwd = kwargs.get("cwd") or os.getcwd()
        kernel.start(cmd, kwargs["env"], str(self.cwd))
        self.process, self.pid, self.pgid = kernel, kernel.pid, kernel.pid
        return self.connection_info


@contextmanager
def waiting(kernel: Kernel) -> Iterator[None]:
    """Within the block the next kernel whose spec names this provisioner is that process."""
    group = KernelProvisionerFactory.GROUP_NAME
    entry = EntryPoint(NAME, f"{__name__}:{ForkedProvisioner.__name__}", group)
    KernelProvisionerFactory.provisioners[NAME] = entry
    _waiting[:] = [kernel]
    try:
        yield
    finally:
        _waiting.clear()
