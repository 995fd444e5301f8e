"""Ends what a federation on this machine has started, whatever became of its parents.

Flower's processes start others, some of them in sessions of their own. On Linux all are found by a mark in
their environment; elsewhere by their process groups. As a program (standard library only, started by
`launch`) it waits for its standard input to close, which happens when its parent ends, however it ends; then
it kills.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path


def marked(mark: str) -> list[int]:
    """Processes of this user with ``mark`` ("NAME=value") in the environment that they were started with."""
    found = []
    proc = Path("/proc")
    for folder in proc.iterdir() if proc.is_dir() else ():
        if folder.name.isdigit():
            try:
                variables = (folder / "environ").read_bytes().split(b"\0")
            except OSError:  # gone by now, or another user's
                continue
            if os.fsencode(mark) in variables:
                found.append(int(folder.name))
    return found


def end(mark: str, groups: Sequence[int], number: signal.Signals) -> None:
    """Send a signal to the process groups and to every marked process."""
    for group in groups:
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            continue
    for process in marked(mark):
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue


def main() -> None:
    """``guard.py MARK``: process groups come in on standard input, a line each."""
    groups = [int(line) for line in sys.stdin if line.strip().isdigit()]
    for _ in range(3):  # one that was just being started may be missed once
        end(sys.argv[1], groups, signal.SIGKILL)


if __name__ == "__main__":
    main()
