"""Images of the Hub or a mirror, decoded once and kept as bytes in a memory-mapped file.

``data/cache/images/<digest>/`` holds ``images.npy``, uint8 (n, 3, height, width), ``labels.npy``, and
``groups.npy`` where the task names a column of groups. All are images of one size: that of the source, or
(`Task.store_side`) the middle square, resized when decoded. A folder appears there whole or not at all, may
be removed at any time, and is found again by the source's bytes. Orientation tags of photographs are not
applied.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlora_kit import paths
from fedlora_kit.data.examples import whole_numbers
from fedlora_kit.data.task import Examples, Task
from fedlora_kit.errors import FedloraError

_VERSION = "1"  # of the decoding: part of every digest
_BLOCK = 256  # images decoded side by side
Pixels = npt.NDArray[np.uint8]


def stored_images(spec: Task, split: str, source: str, table: Callable[[], Any]) -> Examples:
    """One split of an image task: from the cache, or decoded now.

    Args:
        source: what names the split's bytes (a digest of the file, a revision).
        table: gives the split as a table of `datasets`; called only if there is nothing in the cache.

    Raises:
        FedloraError: a damaged or missing image, or images of different sizes; the message names the row.
    """
    parts = [_VERSION, spec.hub_id, spec.config, split, source, spec.columns[0], spec.label_column]
    parts += [str(spec.store_side), *filter(None, [spec.group_column])]
    folder = (
        paths.data_dir() / "cache" / "images" / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    )
    found = _read(folder, bool(spec.group_column))
    if found is None:
        _decode(spec, split, table(), folder)
        found = _read(folder, bool(spec.group_column))
        if found is None:
            raise FedloraError(f"{folder} was written and cannot be read", "check the disk, and run again")
    return found


def _read(folder: Path, grouped: bool) -> Examples | None:
    """The stored split, memory-mapped; None if it is not there or damaged (then it is removed)."""
    if not folder.is_dir():
        return None
    try:
        pixels = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / "labels.npy", allow_pickle=False)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or len(pixels) != len(labels):
            raise ValueError("not what was written")
        groups = np.load(folder / "groups.npy", allow_pickle=False) if grouped else None
        if groups is not None and len(groups) != len(labels):
            raise ValueError("not what was written")
    except (OSError, ValueError, EOFError):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return Examples((pixels,), labels, groups=groups)


def _decode(spec: Task, split: str, table: Any, folder: Path) -> None:
    """Decode every row into a new folder beside ``folder``, then rename it into place."""
    where = f"{spec.hub_id} ({split})"
    labels = whole_numbers(list(table[spec.label_column]), f"{where}: column {spec.label_column}")
    if len(labels) == 0:
        raise FedloraError(f"split {split!r} of {spec.name} has no examples", "check the source of the data")
    blocks = _blocks(_undecoded(table, spec.columns[0]), spec.columns[0], spec.store_side, where)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        part.mkdir(parents=True)
        with (part / "images.npy").open(
            "wb"
        ) as file:  # not a mapped file: a full disk would kill the process
            shape: tuple[int, ...] = ()
            row = 0
            for block in blocks:
                if not shape:
                    shape = block[0].shape
                    header = {"descr": "|u1", "fortran_order": False, "shape": (len(labels), *shape)}
                    np.lib.format.write_array_header_1_0(file, header)
                for image in block:
                    if image.shape != shape:
                        raise FedloraError(
                            f"row {row} of {where} is an image of {image.shape[2]} × {image.shape[1]} "
                            f"pixels, the first one of {shape[2]} × {shape[1]}",
                            "give the task a store_side, so that images are brought to one size",
                        )
                    file.write(image.tobytes())
                    row += 1
            file.flush()
            os.fsync(file.fileno())
        np.save(part / "labels.npy", labels, allow_pickle=False)
        if spec.group_column:
            np.save(part / "groups.npy", _groups(table, spec.group_column, where), allow_pickle=False)
        _rename(part, folder)
    except OSError as error:
        if error.errno is None:  # not the disk
            raise
        raise FedloraError(
            f"cannot write {folder}: {error.strerror or error}",
            "free some space there (a decoded split takes 3 bytes a pixel), or make the folder writable",
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _groups(table: Any, column: str, where: str) -> npt.NDArray[Any]:
    """The column of groups: integers or strings, one an image."""
    values = list(table[column])
    empty = [row for row, value in enumerate(values) if value is None]
    if empty:
        raise FedloraError(
            f"{where}: column {column} is empty in row {empty[0]} ({len(empty)} rows in all)",
            "the file is damaged or of another version; fetch it again",
        )
    return np.asarray(values)


def _rename(part: Path, folder: Path) -> None:
    try:
        os.rename(part, folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster, with the same content
            raise


def _undecoded(table: Any, column: str) -> Any:
    """The table with its image column as plain bytes and paths."""
    import datasets

    if isinstance(table.features[column], datasets.Image):
        return table.cast_column(column, datasets.Image(decode=False))
    return table


def _blocks(table: Any, column: str, side: int | None, where: str) -> Iterator[list[Pixels]]:
    """Decoded images in order, by several threads (Pillow computes outside the interpreter's lock)."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(table), _BLOCK):
            values = table[start : start + _BLOCK][column]
            jobs = [pool.submit(decode, v, side, f"row {start + i} of {where}") for i, v in enumerate(values)]
            yield [job.result() for job in jobs]


def _of_the_hub(path: Path) -> bool:
    """Whether `datasets` has fetched this file. A table could name any other file of the machine."""
    import datasets
    from huggingface_hub import constants

    known = (datasets.config.HF_CACHE_HOME, datasets.config.HF_DATASETS_CACHE, constants.HF_HUB_CACHE)
    return path.is_file() and any(path.resolve().is_relative_to(Path(k).resolve()) for k in known)


def decode(value: object, side: int | None, where: str) -> Pixels:
    """One image as uint8 (3, height, width).

    Args:
        value: ``{"bytes": …, "path": …}`` as `datasets` stores images, or the bytes of an image file.
        side: the shorter side is resized to this many pixels and the middle square cut out; None: as it is.
        where: names the image in an error.

    Raises:
        FedloraError: there is no image, or it cannot be decoded.
    """
    from PIL import Image

    remedy = (
        "the table is damaged: fetch it again into the mirror, or (without one) clear the Hub's cache of it"
    )
    data = value
    if isinstance(value, dict):
        data = value.get("bytes") or value.get("path")
        if data is None or (isinstance(data, str) and not _of_the_hub(Path(data))):
            raise FedloraError(f"{where} has no image (its path: {data})", remedy)
    if not isinstance(data, bytes | str):
        raise FedloraError(f"{where} holds a {type(value).__name__} and no image", remedy)
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            picture = image.convert("RGB")
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise FedloraError(f"{where} cannot be decoded: {type(error).__name__}", remedy) from error
    if side is not None:
        wide, high = picture.size
        edge = min(wide, high)
        left, top = (wide - edge) // 2, (high - edge) // 2
        box = (left, top, left + edge, top + edge)
        picture = picture.crop(box).resize((side, side), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1))
