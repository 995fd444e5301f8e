"""One split of a data set from the Hub, at one commit and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedlora_kit import hub
from fedlora_kit.data.origin import place
from fedlora_kit.data.task import Task
from fedlora_kit.errors import FedloraError


def hub_table(spec: Task, split: str) -> Any:
    """The table of a split at the task's commit: downloaded, or out of the cache of `datasets`.

    Where the Hub gives no answer, `datasets` takes the newest version in its cache, whatever its commit. Here
    such a table is an error.

    Raises:
        FedloraError: it cannot be had; the message says what the Hub answered.
    """
    import datasets

    commit = hub.commit("dataset", spec.hub_id, spec.revision)
    try:
        with hub.not_waiting("dataset", spec.hub_id, commit):
            table = datasets.load_dataset(
                f"hf://datasets/{spec.hub_id}",  # never a folder of that name in the working directory
                spec.config or None,
                split=split,
                revision=commit,
                keep_in_memory=False,
            )
    except Exception as error:
        raise _why_not(spec, split, commit, error) from error
    files = [Path(file["filename"]) for file in table.cache_files]
    if not files or not all(commit in file.parts for file in files):
        why = _why_not(spec, split, commit, FileNotFoundError("only another revision is in the cache"))
        raise type(why)(f"{why.problem}; the revision in the cache is another one", why.remedy)
    return table


def _why_not(spec: Task, split: str, commit: str, error: Exception) -> FedloraError:
    return hub.why_not("dataset", spec.hub_id, commit, error, place(spec, split))
