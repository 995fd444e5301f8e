"""What went wrong between this machine and the Hub, in words: one cause and one remedy.

`huggingface_hub` and `datasets` wrap the answer of the Hub in errors of several kinds. The status, where
there is one, is looked for in the whole chain.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from fedlora_kit.errors import FedloraError

#: what a full or read-only disk says
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


class Unreachable(FedloraError):
    """The Hub gives no answer on this machine, or none for now: another try may succeed."""


def in_words(
    error: BaseException, what: str, *, page: str = "", otherwise: str = "", partly: bool = False
) -> FedloraError:
    """The one clear error for a failed request.

    Args:
        error: as `huggingface_hub` or `datasets` raised it.
        what: names what was asked for ("model FacebookAI/roberta-base").
        page: of the repository below the Hub's address ("datasets/nyu-mll/glue"), for an agreement.
        otherwise: another way to it, added to the remedy.
        partly: a part of it is on this machine, from a download that broke off.

    Returns:
        Unreachable: no network, no answer in time, too many requests, the Hub is out of order, or it must not
            be asked (``HF_HUB_OFFLINE``). FedloraError: the Hub says no, or the disk does.
    """
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled

    chain = list(_chain(error))
    disk = next((e for e in chain if isinstance(e, OSError) and e.errno in DISK), None)
    if disk is not None:
        return FedloraError(
            f"{what} cannot be written to {disk.filename or 'this disk'}: {disk.strerror}",
            "free some space there, or name another folder with HF_HOME",
        )
    gated = any(isinstance(e, GatedRepoError) for e in chain)
    answered = next((e for e in chain if getattr(e, "response", None) is not None), None)
    half = "; what is on this machine is not complete" if partly else ""
    if gated:
        return FedloraError(f"{what} asks for an agreement first", _agreement(page))
    if answered is not None:
        return _answered(answered, what, half, otherwise)
    if any(isinstance(e, OfflineModeIsEnabled) for e in chain) or "offline mode" in str(error).lower():
        return Unreachable(
            f"{what} is not {'wholly ' if partly else ''}on this machine, and HF_HUB_OFFLINE is set",
            _or("unset HF_HUB_OFFLINE on a machine with a network", otherwise),
        )
    if any("timeout" in f"{type(e).__name__} {e}".lower().replace(" ", "") for e in chain):
        return Unreachable(
            f"{what}: the Hub gives no answer in time{half}", _or("try again later", otherwise)
        )
    broken = [type(e).__name__ for e in chain if _no_line(e)]
    if broken:
        return Unreachable(
            f"{what}: the Hub cannot be reached ({broken[-1]}){half}",
            _or("connect this machine to the network", otherwise),
        )
    first = next((line for line in str(error).splitlines() if line.strip()), "")[:200]
    return FedloraError(
        f"{what} cannot be had from the Hub ({type(error).__name__}: {first}){half}",
        _or("look at the names of the repository, its configuration and its revision", otherwise),
    )


def _answered(error: Any, what: str, half: str, otherwise: str) -> FedloraError:
    """In words: an answer of the Hub with a status of 400 or more."""
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    status = int(error.response.status_code)
    told = f"(status {status})"
    if isinstance(error, RevisionNotFoundError):
        return FedloraError(f"{what}: the Hub has no such revision {told}", "look at the revision's name")
    if isinstance(error, EntryNotFoundError):
        return FedloraError(
            f"{what}: the repository has no such file {told}",
            "look at the names of its files, or its revision",
        )
    if isinstance(error, RepositoryNotFoundError):
        return FedloraError(
            f"{what} is not on the Hub, or not for everybody {told}",
            f"look at its name; if that is right, {_login()}",
        )
    if status == 401:
        yours = "does not accept your token" if has_token() else "asks for a token"
        return FedloraError(f"{what}: the Hub {yours} {told}", _login())
    if status == 403:
        return FedloraError(
            f"{what}: the Hub does not let you have it {told}",
            "log in with a token that may read it: hf auth login",
        )
    if status == 429:
        return Unreachable(
            f"{what}: too many requests came from your address {told}{half}",
            _or("wait five minutes; the limit is higher for who is logged in (hf auth login)", otherwise),
        )
    if status == 408 or status >= 500:
        late = "gives no answer in time" if status in (408, 504) else "is out of order"
        return Unreachable(f"{what}: the Hub {late} {told}{half}", _or("try again later", otherwise))
    says = "has no such page" if status == 404 else "refuses it"
    return FedloraError(
        f"{what}: the Hub {says} {told}{half}",
        "look at the name, the revision, and HF_ENDPOINT if that is set",
    )


def has_token() -> bool:
    """Whether requests to the Hub carry a token."""
    from huggingface_hub import get_token

    return get_token() is not None


def _login() -> str:
    if has_token():
        return "log in anew (hf auth login), and unset HF_TOKEN if it holds an old token"
    return "log in (hf auth login)"


def _agreement(page: str) -> str:
    from huggingface_hub import constants

    accept = f"accept it on {constants.ENDPOINT}/{page}" if page else "accept it on its page"
    if has_token():
        return f"{accept} with the account that your token belongs to, and wait until it is granted"
    return f"{accept}, and log in (hf auth login)"


def _or(remedy: str, otherwise: str) -> str:
    return f"{remedy}, or {otherwise}" if otherwise else remedy


def _no_line(error: BaseException) -> bool:
    """Whether this is a connection that was refused, dropped or never made."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"TransportError", "ConnectionError", "LocalEntryNotFoundError"})


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
