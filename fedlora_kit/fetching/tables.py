"""Tables of a mirror from files of the Hub, some rows at a time, so that large ones need little memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

#: rows that are in memory together
ROWS = 1_000


def make(how: str, parts: Sequence[Path], to: Path, classes: Sequence[str]) -> None:
    """Make a table in a target's way (`plan.Target.how`) from its files."""
    if how == "join":
        join(parts, to)
    elif how == "images":
        images(parts, to, classes)
    else:
        convert(parts[0], to)


def join(parts: Sequence[Path], to: Path) -> None:
    """Tables one after the other."""
    import pyarrow.parquet

    schema = pyarrow.parquet.read_schema(parts[0])
    with pyarrow.parquet.ParquetWriter(to, schema) as writer:
        for part in parts:
            # pre_buffer would read whole row groups ahead
            table = pyarrow.parquet.ParquetFile(part, pre_buffer=False, buffer_size=2**20)
            for batch in table.iter_batches(batch_size=ROWS):
                writer.write_batch(batch)


def convert(lines: Path, to: Path) -> None:
    """JSON lines as a table."""
    import pandas as pd

    pd.read_json(lines, lines=True, dtype=False).to_parquet(to, index=False)


def images(parts: Sequence[Path], to: Path, classes: Sequence[str]) -> None:
    """Image files ``<class>/<name>`` as a table with the columns that `datasets` makes of such a folder.

    image: bytes and name of each file, in the given order; label: its class, by its place in ``classes``.
    """
    import datasets
    import pyarrow
    import pyarrow.parquet

    names = datasets.ClassLabel(names=list(classes))
    schema = datasets.Features({"image": datasets.Image(), "label": names}).arrow_schema
    with pyarrow.parquet.ParquetWriter(to, schema) as writer:
        for start in range(0, len(parts), ROWS):
            rows = [
                {
                    "image": {"bytes": part.read_bytes(), "path": part.name},
                    "label": names.str2int(part.parent.name),
                }
                for part in parts[start : start + ROWS]
            ]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
