"""The Hub as a source of a mirror's files: `huggingface_hub` does the talking and the downloads."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fedlora_kit.fetching.plan import Listing, Piece, RemoteFile
from fedlora_kit.hub_errors import DISK, in_words
from fedlora_kit.numerals import duration

#: how often the Hub is asked, where it says that another try may help; of a download `huggingface_hub` makes
#: several tries of its own
TRIES, TRIES_OF_DOWNLOADS = 4, 2
#: seconds that one question may take, with all waiting between its tries: twice the Hub's window of 5 minutes
MOST_WAITING = 600.0
#: seconds until a list of files counts as not given; `huggingface_hub` itself would wait for ever
TIMEOUT = 60.0

Answer = TypeVar("Answer")


class HubSource:
    """Files of the Hub.

    An answer that says "later" (408, 429, 5xx), and a line that breaks, are tried again, after as long as the
    Hub says; a time-out and a machine without a network are not.

    Args:
        endpoint: address of the Hub; the usual one, or that of ``HF_ENDPOINT``, if None.
        say: is told when there is a wait of more than a few seconds.
    """

    def __init__(self, endpoint: str | None = None, say: Callable[[str], object] = lambda _: None) -> None:
        self._endpoint = endpoint
        self._say = say

    def look(self, piece: Piece) -> Listing:
        """The commit of the piece's revision, and its files with their sizes and digests.

        Raises:
            Unreachable: no answer.
            FedloraError: there is no such repository or revision, or it is not for this user.
        """
        from huggingface_hub import HfApi

        def question() -> Any:
            return HfApi(endpoint=self._endpoint).repo_info(
                piece.repo,
                revision=piece.revision or None,
                repo_type=piece.kind,
                files_metadata=True,
                timeout=TIMEOUT,
            )

        found = self._ask(piece, question)
        files = [
            RemoteFile(one.rfilename, int(one.size or 0), blob=one.blob_id or "")
            if one.lfs is None
            else RemoteFile(one.rfilename, int(one.size or 0), sha256=one.lfs.sha256)
            for one in found.siblings or []
        ]
        return Listing(str(found.sha), tuple(files), bool(found.gated))

    def check_access(self, piece: Piece, revision: str, file: RemoteFile) -> None:
        """Ask for the head of a file, as a download would.

        Raises:
            Unreachable, FedloraError: as `look`.
        """
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(
            piece.repo, file.name, repo_type=piece.kind, revision=revision, endpoint=self._endpoint
        )
        self._ask(piece, lambda: get_hf_file_metadata(url))

    def download(self, piece: Piece, revision: str, file: RemoteFile, folder: Path) -> Path:
        """Bring a file below ``folder``.

        A line that breaks is taken up where it broke; a call that was killed begins that file again.

        Raises:
            Unreachable, FedloraError: as `look`.
            OSError: the disk is full, or cannot be written.
        """
        from huggingface_hub import hf_hub_download

        where: Any = {"revision": revision, "local_dir": folder, "endpoint": self._endpoint}
        question = partial(hf_hub_download, piece.repo, file.name, repo_type=piece.kind, **where)
        return Path(self._ask(piece, question, TRIES_OF_DOWNLOADS))

    def _ask(self, piece: Piece, question: Callable[[], Answer], most: int = TRIES) -> Answer:
        started = time.monotonic()
        tries = 0
        while True:
            try:
                return question()
            except Exception as error:
                if isinstance(error, OSError) and error.errno in DISK:
                    raise
                tries += 1
                pause = _pause(error, tries)
                gone = time.monotonic() - started
                if pause is None or tries == most or gone + pause > MOST_WAITING:
                    page = piece.repo if piece.kind == "model" else f"datasets/{piece.repo}"
                    raise in_words(error, piece.title, page=page) from error
            if pause > 5:
                self._say(f"the Hub asks to wait: {duration(pause)}")
            time.sleep(pause)


def _pause(error: BaseException, tries: int) -> float | None:
    """Seconds until another try makes sense; None: it does not."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    first: BaseException | None = error
    while first is not None:
        response = getattr(first, "response", None)
        if response is not None:
            if response.status_code not in (408, 429) and response.status_code < 500:
                return None
            limit = parse_ratelimit_headers(response.headers)
            told = response.headers.get("Retry-After", "")
            if told.isdigit():
                return float(told)
            return float(limit.reset_in_seconds + 1) if limit is not None else 2.0**tries
        if any(kind.__name__ in ("RemoteProtocolError", "ReadError") for kind in type(first).__mro__):
            return 2.0**tries  # the line broke
        first = first.__cause__ or first.__context__
    return None
