"""How one notebook ended, and the ``status.json`` that says so beside its outputs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedlora_kit.experiments import atomic

STATUS_FILE = "status.json"
OK, FAILED, UNCHANGED, PLANNED = "ok", "failed", "unchanged", "planned"


@dataclass(frozen=True)
class Status:
    """How one notebook ended.

    ``status``: ``ok``, ``failed``, ``unchanged`` (the outputs of an earlier ok run are up to date; never
    written to disk) or ``planned`` (there is no notebook yet; never written either). ``seconds`` is wall
    time; ``files`` maps each output's name to its SHA-256; ``finished`` is ISO 8601, UTC.
    """

    item: str
    status: str
    profile: str = ""
    error: str | None = None
    seconds: float = 0.0
    parameters: dict[str, Any] = field(default_factory=dict)
    cache_key: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    finished: str = ""
    files: dict[str, str] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether the item's outputs are there and up to date."""
        return self.status in (OK, UNCHANGED)


def now() -> str:
    """The present moment, ISO 8601, UTC, in whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_status(folder: Path) -> Status | None:
    """The status kept in an item's folder; ``None`` if there is none or it cannot be read."""
    try:
        return Status(**atomic.from_json((folder / STATUS_FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_status(folder: Path, status: Status) -> None:
    """Write ``status.json`` into ``folder``, atomically."""
    atomic.write_json(folder / STATUS_FILE, asdict(status))


def digests(folder: Path) -> dict[str, str]:
    """File name → SHA-256 of the files directly in ``folder``, without ``status.json``."""
    return {
        path.name: atomic.sha256_file(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != STATUS_FILE
    }
