"""The Hub at commits: which one a name stands for, and a model's files at it, whole.

Downloads, caches and retries are `huggingface_hub`'s. A folder of the working directory is never looked at.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from fedlora_kit.errors import FedloraError
from fedlora_kit.hub_errors import Unreachable, in_words
from fedlora_kit.mirror import is_commit

Kind = Literal["model", "dataset"]

#: files of a model that loading reads, as patterns
CONFIGURATION = ("config.json", "generation_config.json", "preprocessor_config.json")
TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt"),
    *("tokenizer.model", "spm.model", "spiece.model", "sentencepiece.bpe.model"),
)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")

#: seconds that a question to the Hub may take
TIMEOUT = 10.0
_PATIENCE = 60.0  # seconds for which a failure is told again without asking
_resolved: dict[tuple[Kind, str, str], str] = {}
_failed: dict[tuple[Kind, str, str], tuple[float, FedloraError]] = {}


def commit(kind: Kind, repo: str, revision: str) -> str:
    """The commit that a revision stands for: itself, or what the Hub says, once a process.

    Without the Hub it is the commit that this machine saw last.

    Args:
        revision: a commit, a branch, a tag, or empty for the newest.

    Raises:
        FedloraError: the Hub gives no answer and this machine knows none, or there is no such revision.
    """
    if is_commit(revision):
        return revision
    asked = (kind, repo, revision)
    if asked not in _resolved:
        when, failure = _failed.get(asked, (0.0, None))
        if failure is not None and time.monotonic() - when < _PATIENCE:
            raise type(failure)(failure.problem, failure.remedy)
        try:
            _resolved[asked] = _resolve(kind, repo, revision)
        except FedloraError as error:
            _failed[asked] = (time.monotonic(), error)
            raise
    return _resolved[asked]


def _resolve(kind: Kind, repo: str, revision: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionResolutionError

    api, named = HfApi(), revision or None
    try:
        api.repo_info(repo, repo_type=kind, revision=named, timeout=TIMEOUT)  # the next call has no limit
        return str(api.resolve_revision(repo, repo_type=kind, revision=named).resolved)
    except Exception as error:
        failure = explained(error, kind, repo, revision)
        if isinstance(failure, Unreachable):
            with contextlib.suppress(RevisionResolutionError):
                known = api.resolve_revision(repo, repo_type=kind, revision=named, local_files_only=True)
                return str(known.resolved)
        raise failure from error


def explained(
    error: Exception, kind: Kind, repo: str, revision: str, place: str = "", partly: bool = False
) -> FedloraError:
    """A failed request in words.

    Args:
        place: where a mirror would have it.
        partly: a part of it is on this machine.
    """
    what = f"{'data set' if kind == 'dataset' else 'model'} {repo}{f' at {revision[:12]}' * bool(revision)}"
    place = place or f"{kind}s/{repo}"
    page = f"datasets/{repo}" if kind == "dataset" else repo
    mirrored = f"set FEDLORA_HUB to a mirror that holds {place} (fedlora fetch)"
    return in_words(error, what, page=page, otherwise=mirrored, partly=partly)


def why_not(kind: Kind, repo: str, revision: str, error: Exception, place: str = "") -> FedloraError:
    """Why a data set or a model could not be had: the Hub is asked once more, plainly.

    Libraries that fall back to a cache lose what the Hub said.

    Args:
        error: what the library raised; told where the Hub does answer.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().repo_info(repo, repo_type=kind, revision=revision or None, timeout=TIMEOUT)
    except Exception as cause:
        error = cause
    return explained(error, kind, repo, revision, place)


@contextlib.contextmanager
def not_waiting(kind: Kind, repo: str, revision: str) -> Iterator[None]:
    """Where the Hub cannot be reached, libraries look into their caches at once inside the block: left alone,
    they would first try for half a minute."""
    import datasets
    from huggingface_hub import HfApi, constants

    there: tuple[Any, ...] = constants, datasets.config
    before = [module.HF_HUB_OFFLINE for module in there]
    if not any(before):
        try:
            HfApi().repo_info(repo, repo_type=kind, revision=revision or None, timeout=TIMEOUT)
        except Exception as error:
            gone = isinstance(explained(error, kind, repo, revision), Unreachable)
            for module in there if gone and getattr(error, "response", None) is None else ():
                module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in zip(there, before, strict=True):
            module.HF_HUB_OFFLINE = value


def model_folder(repo: str, revision: str, patterns: Sequence[str]) -> Path:
    """The folder of a model's files at its revision (it bears the commit's name), downloaded where needed.

    Args:
        patterns: which files: `CONFIGURATION` and others.

    Raises:
        FedloraError: they cannot be had, or are not complete here.
    """
    from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache

    wanted = commit("model", repo, revision)
    try:
        hf_hub_download(
            repo, "config.json", revision=wanted
        )  # gives up after a while; the next call does not
        return Path(snapshot_download(repo, revision=wanted, allow_patterns=list(patterns)))
    except Exception as error:
        partly = isinstance(try_to_load_from_cache(repo, "config.json", revision=wanted), str)
        raise explained(error, "model", repo, wanted, partly=partly) from error
