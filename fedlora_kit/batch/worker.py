"""The process of one notebook, forked (`forked.context`).

It ends with 0 (ok) or 1 (failed, recorded in ``status.json``); any other end means that it could not even
record. When its parent ends, whatever the reason, it stops its kernel and ends too.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from fedlora_kit.batch.forked import Kernel
from fedlora_kit.errors import FedloraError
from fedlora_kit.running.pools import follow_parent, settle


def main(lifeline: Connection, variables: Mapping[str, str], log: str, *job: Any) -> None:
    """Run one notebook; ends the process.

    Args:
        lifeline: a pipe whose other end only the parent holds.
        variables: the environment.
        log: takes what this process and the kernel print beside the notebook.
        job: of `runner.run_notebook`: what comes before the kernel.
    """
    os.setsid()  # Ctrl-C reaches the parent alone, which then stops the workers in order
    settle(variables, log)
    kernel = Kernel()
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    follow_parent(lifeline, lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        sys.exit(_run(*job, kernel))
    finally:
        kernel.kill()


def _run(*job: Any) -> int:
    from fedlora_kit.batch.runner import run_notebook

    logging.getLogger("papermill").setLevel(logging.ERROR)  # it calls parameters unknown that it cannot parse
    try:
        status = run_notebook(*job)
    except KeyboardInterrupt:
        return 130
    except FedloraError as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if status.good else 1


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the way out is not to be interrupted
    raise KeyboardInterrupt
