"""One notebook through papermill: its own folder as working directory, a private kernel, a status from
exceptions.

The working directory and the environment belong to the process, so notebooks that run at the same time run in
processes of their own (`batch.pool`).
"""

from __future__ import annotations

import os
import re
import time
import traceback
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from fedlora_kit.batch.folders import LOG_FILE, NOTEBOOK_FILE, Staging
from fedlora_kit.batch.forked import Kernel
from fedlora_kit.batch.kernel import KERNEL_NAME, private_kernel
from fedlora_kit.batch.parameters import notebook_path
from fedlora_kit.batch.status import Status, now
from fedlora_kit.errors import FedloraError
from fedlora_kit.experiments import atomic
from fedlora_kit.numerals import duration
from fedlora_kit.papers.items import OWN
from fedlora_kit.reporting.outputs import STAGING_VARIABLE, read_claims
from fedlora_kit.reporting.whose import ITEM_VARIABLE
from fedlora_kit.study.item import Item
from fedlora_kit.surroundings import QUIET, environment

_EXPECTED = {"table": ("table.csv", "table.md"), "figure": ("figure.svg", "figure.png")}
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def run_notebook(
    item: Item,
    begun: Status,
    output_dir: str | Path = "figures",
    timeout: float | None = None,
    run: str | None = None,
    kernel: Kernel | None = None,
) -> Status:
    """Execute one item's notebook and put its outputs in place.

    A failing cell, a killed kernel and a timed-out cell are failures, returned and kept as ``status.json``,
    never raised; nothing of an earlier run is then mistaken for this one's (see `folders.Staging.fail`).

    Args:
        begun: what is known of the run before it: profile, checked parameters, key, versions (`order.plan`).
        timeout: seconds that one cell may take; ``None``: no limit.
        run: name of the scratch folder, unique among runs at the same time.
        kernel: a process that waits to be its kernel; None: one is started.

    Raises:
        BadValue: there is no notebook.
        FedloraError: the outputs cannot be written.
    """
    source, values = notebook_path(item), begun.parameters
    start = time.monotonic()
    staging = Staging(item.id, begun.profile, output_dir, run or uuid.uuid4().hex)
    staging.open()
    try:
        with (staging.folder / LOG_FILE).open("w", encoding="utf-8") as log:
            log.write(f"{item.id}, profile {begun.profile}, begun {now()}\n\n")
            log.flush()
            error = _execute(source, staging, values, timeout, log, kernel)
            error = error or _missing(item, staging)
            seconds = round(time.monotonic() - start, 3)
            log.write(f"\n{'failed: ' + error if error else 'ok'} after {duration(seconds)}\n")
        _tidy(staging.folder / NOTEBOOK_FILE, item, values, error)
        status = replace(begun, error=error, seconds=seconds, finished=now())
        return staging.fail(status) if error else staging.succeed(status)
    finally:
        staging.drop()


def _execute(
    source: Path,
    staging: Staging,
    values: dict[str, Any],
    timeout: float | None,
    log: TextIO,
    kernel: Kernel | None,
) -> str | None:
    """Run the notebook; what went wrong, in a line or two, or ``None``."""
    import nbformat
    import papermill

    node = nbformat.read(source, as_version=4)
    node.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": KERNEL_NAME}
    target = (
        str(staging.folder / NOTEBOOK_FILE).replace("{", "{{").replace("}", "}}")
    )  # papermill formats paths
    try:
        told = {STAGING_VARIABLE: str(staging.output_dir), ITEM_VARIABLE: staging.item}
        with private_kernel(kernel), environment({**QUIET, **told}):
            papermill.execute_notebook(
                node,
                target,
                parameters=values,
                kernel_name=KERNEL_NAME,
                language="python",
                progress_bar=False,
                stdout_file=log,
                stderr_file=log,
                cwd=source.parent,
                execution_timeout=timeout,
            )
    except Exception as error:
        log.write("\n" + _COLOUR.sub("", "".join(traceback.format_exception_only(error))))
        return _short(error, timeout)
    return None


def _short(error: Exception, timeout: float | None) -> str:
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    if isinstance(error, PapermillExecutionError):
        value = _COLOUR.sub("", str(error.evalue)).strip()
        return f"{error.ename}: {value} (cell {error.exec_count})"
    if isinstance(error, CellTimeoutError):
        return f"a cell took longer than {timeout:g} s"
    if isinstance(error, DeadKernelError):
        return "the kernel died while a cell ran (out of memory, or killed)"
    lines = _COLOUR.sub("", str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def _missing(item: Item, staging: Staging) -> str | None:
    """A notebook that runs to its end but leaves no result has not done its work."""
    folder = staging.folder
    here = f'ItemOutputs("{item.id}", profile, output_dir)'
    if item.id.startswith(f"{OWN}/") and not staging.written():
        return f"the notebook ran to its end but wrote no result: write what it finds with {here}"
    missing = [name for name in _EXPECTED.get(item.kind, ()) if not (folder / name).is_file()]
    if missing:
        return f"the notebook ran to its end but wrote no {' and no '.join(missing)}"
    try:
        read_claims(folder)
    except (FedloraError, ValueError, KeyError, AttributeError, TypeError) as error:
        return f"claims.json cannot be read: {error}"
    return None


def _tidy(path: Path, item: Item, values: dict[str, Any], error: str | None) -> None:
    """Make the saved notebook say what happened: papermill marks cells as completed that never ran."""
    import nbformat

    if not path.is_file():
        return
    node = nbformat.read(path, as_version=4)
    about = node.metadata.setdefault("papermill", {})
    about["input_path"] = f"notebooks/{item.notebook}"
    about["output_path"] = f"{values['profile']}/{item.id}/{NOTEBOOK_FILE}"
    about.pop("environment_variables", None)
    about["exception"] = bool(error) or None
    running: int | None = None
    for index, cell in enumerate(node.cells):
        mark = cell.metadata.get("papermill")
        if not mark:
            continue
        if mark.get("start_time") is None:
            mark["status"] = "pending"
        elif error:
            running = index
    marked = any("papermill-error-cell-tag" in cell.metadata.get("tags", []) for cell in node.cells)
    if error and not marked:
        if running is not None:
            node.cells[running].metadata["papermill"].update(status="failed", exception=True)
        note = nbformat.v4.new_markdown_cell(f"**This run failed:** {error}")
        note.metadata["tags"] = [
            "papermill-error-cell-tag"
        ]  # papermill removes it when it runs this file again
        node.cells.insert(0, note)
    nbformat.validator.normalize(node)
    atomic.write_text(path, nbformat.writes(node) + os.linesep)
