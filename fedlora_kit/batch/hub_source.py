"""The Hub as a source of a mirror's files: `huggingface_hub` does the talking and the downloads."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from fedlora_kit.batch.fetch_plan import Piece, RemoteFile
from fedlora_kit.errors import FedloraError


class Unreachable(FedloraError):
    """The Hub gives no answer on this machine."""


class HubSource:
    """Files of the Hub.

    Args:
        endpoint: address of the Hub; the usual one, or that of ``HF_ENDPOINT``, if None.
    """

    def __init__(self, endpoint: str | None = None) -> None:
        self._endpoint = endpoint

    def look(self, piece: Piece) -> tuple[str, list[RemoteFile]]:
        """The commit of the piece's revision, and its files with their sizes and digests.

        Raises:
            Unreachable: no answer.
            FedloraError: there is no such repository or revision, or it asks for an agreement first.
        """
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self._endpoint)
        try:
            found: Any = api.repo_info(
                piece.repo, revision=piece.revision or None, repo_type=piece.kind, files_metadata=True
            )
        except Exception as error:
            raise _in_words(piece, error) from error
        files = [
            RemoteFile(
                sibling.rfilename,
                int(sibling.size or 0),
                sibling.lfs.sha256 if sibling.lfs is not None else "",
                sibling.blob_id or "" if sibling.lfs is None else "",
            )
            for sibling in found.siblings or []
        ]
        return str(found.sha), files

    def download(self, piece: Piece, revision: str, file: RemoteFile, folder: Path) -> Path:
        """Bring a file below ``folder``.

        A line that breaks is taken up where it broke; a call that was killed begins that file again.

        Raises:
            Unreachable, FedloraError: as `look`.
        """
        from huggingface_hub import hf_hub_download

        try:
            return Path(
                hf_hub_download(
                    piece.repo,
                    file.name,
                    repo_type=piece.kind,
                    revision=revision,
                    local_dir=folder,
                    endpoint=self._endpoint,
                )
            )
        except Exception as error:
            raise _in_words(piece, error) from error


def _in_words(piece: Piece, error: Any) -> FedloraError:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES):
        raise error  # the disk's
    if isinstance(error, GatedRepoError):
        return FedloraError(
            f"{piece.title} asks for an agreement first",
            f"accept it on https://huggingface.co/{piece.repo} and log in: hf auth login",
        )
    if isinstance(error, RepositoryNotFoundError):
        return FedloraError(f"{piece.title} is not on the Hub, or not for you", "log in: hf auth login")
    if isinstance(error, HfHubHTTPError) and error.response is not None and error.response.status_code < 500:
        status = error.response.status_code
        return FedloraError(f"the Hub refuses {piece.title}: status {status}", "look at the revision's name")
    return Unreachable(
        f"the Hub gives no answer about {piece.title}: {type(error).__name__}",
        "run this on a machine with a network; what was fetched is kept, and the same command goes on",
    )
