"""The process of one notebook: ``python -m fedlora_kit.batch.worker JOB``, the job as JSON.

It ends with 0 (ok) or 1 (failed, recorded in ``status.json``); any other end means that it could not even
record.
Its input stays open as long as the parent lives: when that ends, whatever the reason, the worker stops its
kernel and ends too.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from types import FrameType


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the way out is not to be interrupted
    raise KeyboardInterrupt


def _follow_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):  # not sys.stdin: its lock would hang the interpreter's end
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Run one job; the exit status."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: it sends SIGTERM
    job = json.loads(sys.argv[1])
    threading.Thread(target=_follow_parent, daemon=True).start()
    from fedlora_kit.batch.runner import run_notebook
    from fedlora_kit.batch.status import Status
    from fedlora_kit.errors import FedloraError
    from fedlora_kit.study.item import Item

    logging.getLogger("papermill").setLevel(logging.ERROR)  # it calls parameters unknown that it cannot parse
    try:
        status = run_notebook(
            Item(**job["item"]), Status(**job["status"]), job["output_dir"], job["timeout"], job["run"]
        )
    except KeyboardInterrupt:
        return 130
    except FedloraError as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if status.good else 1


if __name__ == "__main__":
    sys.exit(main())
