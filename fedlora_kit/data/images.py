"""Images of the Hub, a mirror or the caller's, decoded once and kept as bytes in a memory-mapped file.

``data/cache/images/<digest>/`` holds ``images.npy``, uint8 (n, 3 or, in grey, 1, height, width),
``labels.npy``, ``names.json`` (what the source calls the labels, or null, and whether these are all), and
``groups.npy`` where the task names a column of groups. All are images of one size: that of the source, or
(`Task.store_side`, `store_fit`) of a square that each is brought to when decoded. A folder appears there
whole or not at all, may be removed at any time, and is found again by the source's bytes. Orientation tags of
photographs are not applied.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedlora_kit import paths
from fedlora_kit.columns import group_values
from fedlora_kit.data.labels import FileLabels, file_labels, task_labels
from fedlora_kit.data.origin import Origin, undecoded
from fedlora_kit.data.task import Examples
from fedlora_kit.errors import FedloraError

_VERSION = "3"  # of the decoding: part of every digest
_BLOCK = 256  # images decoded side by side
Pixels = npt.NDArray[np.uint8]


def stored_images(at: Origin, table: Callable[[], Any]) -> Examples:
    """One split of an image task: from the cache, or decoded now.

    Args:
        table: gives the split as a table of `datasets`; called only if there is nothing in the cache.

    Raises:
        FedloraError: a damaged or missing image, or images of different sizes; the message names the row.
    """
    spec = at.spec
    parts = [_VERSION, at.where, spec.config, at.digest(), spec.columns[0], spec.label_column]
    parts += [str(spec.store_side), spec.store_fit, str(spec.grey), spec.group_column]
    folder = (
        paths.data_dir() / "cache" / "images" / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    )
    found = _read(folder, bool(spec.group_column))
    if found is None:
        _decode(at, table(), folder)
        found = _read(folder, bool(spec.group_column))
        if found is None:
            raise FedloraError(f"{folder} was written and cannot be read", "check the disk, and run again")
    examples, labels = found
    return replace(examples, labels=task_labels(spec, labels, at.where))


def _read(folder: Path, grouped: bool) -> tuple[Examples, FileLabels] | None:
    """The stored split, memory-mapped, and its labels as the file has them.

    None if it is not there or damaged (then it is removed).
    """
    if not folder.is_dir():
        return None
    try:
        pixels = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / "labels.npy", allow_pickle=False)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or len(pixels) != len(labels):
            raise ValueError("not what was written")
        names, complete = json.loads((folder / "names.json").read_text(encoding="utf-8"))
        if names is not None and not (isinstance(names, list) and all(isinstance(n, str) for n in names)):
            raise ValueError("not what was written")
        groups = np.load(folder / "groups.npy", allow_pickle=False) if grouped else None
        if groups is not None and len(groups) != len(labels):
            raise ValueError("not what was written")
    except (OSError, ValueError, EOFError, TypeError):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return Examples((pixels,), labels, groups=groups), FileLabels(labels, names, bool(complete))


def _decode(at: Origin, table: Any, folder: Path) -> None:
    """Decode every row into a new folder beside ``folder``, then rename it into place."""
    spec, where = at.spec, at.where
    found = file_labels(table, spec.label_column, where, at.remedy)
    labels, named = found.codes, [found.names, found.complete]
    if len(labels) == 0:
        raise FedloraError(
            f"split {at.split!r} of {spec.name} has no examples", "check the source of the data"
        )
    blocks = _blocks(undecoded(table, spec.columns[0]), at)
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
        (part / "names.json").write_text(json.dumps(named), encoding="utf-8")
        if spec.group_column:
            what = f"{where}: column {spec.group_column}"
            groups = group_values(table[spec.group_column], what, at.remedy)
            np.save(part / "groups.npy", groups, allow_pickle=False)
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


def _rename(part: Path, folder: Path) -> None:
    try:
        os.rename(part, folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster, with the same content
            raise


def _blocks(table: Any, at: Origin) -> Iterator[list[Pixels]]:
    """Decoded images in order, by several threads (Pillow computes outside the interpreter's lock)."""
    spec, paths_too = at.spec, at.kind == "table" or at.spec.form == "images"
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(table), _BLOCK):
            jobs = [
                pool.submit(
                    decode,
                    value,
                    spec.store_side,
                    f"row {start + i} of {at.where}",
                    spec.store_fit,
                    grey=spec.grey,
                    paths_too=paths_too,
                )
                for i, value in enumerate(table[start : start + _BLOCK][spec.columns[0]])
            ]
            yield [job.result() for job in jobs]


def _of_the_hub(path: Path) -> bool:
    """Whether `datasets` has fetched this file. A table could name any other file of the machine."""
    import datasets
    from huggingface_hub import constants

    known = (datasets.config.HF_CACHE_HOME, datasets.config.HF_DATASETS_CACHE, constants.HF_HUB_CACHE)
    return path.is_file() and any(path.resolve().is_relative_to(Path(k).resolve()) for k in known)


def decode(
    value: object,
    side: int | None,
    where: str,
    fit: str = "crop",
    *,
    grey: bool = False,
    paths_too: bool = False,
) -> Pixels:
    """One image as uint8 (channels, height, width).

    Args:
        value: ``{"bytes": …, "path": …}`` as `datasets` stores images, or the bytes of an image file.
        side: of the square that the image is brought to, in pixels; None: as it is.
        where: names the image in an error.
        fit: "crop" resizes the shorter side and cuts out the middle square, "stretch" resizes both sides.
        grey: one channel instead of three.
        paths_too: a path without bytes is followed, wherever it leads: the caller's own files.

    Raises:
        FedloraError: there is no image, or it cannot be decoded.
    """
    from PIL import Image

    fetch = "fetch it again into the mirror, or (without one) clear the Hub's cache of it"
    remedy = "leave that file out" if paths_too else f"the table is damaged: {fetch}"
    data = value
    if isinstance(value, dict):
        data = value.get("bytes") or value.get("path")
        if isinstance(data, str) and not paths_too and not _of_the_hub(Path(data)):
            raise FedloraError(
                f"{where} holds the path of an image ({data}) and not its bytes",
                "write the table with the bytes (map datasets.table.embed_table_storage over it, in the "
                "format arrow, before to_parquet), or name the folder of the images: task_from(images=…); a "
                f"table from elsewhere: {fetch}",
            )
        if data is None:
            raise FedloraError(f"{where} has no image", remedy)
    if not isinstance(data, bytes | str):
        raise FedloraError(
            f"{where} holds a {type(data).__name__} and no image",
            "make the column one of images: Dataset.cast_column(…, datasets.Image())"
            if paths_too
            else remedy,
        )
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            picture = image.convert("L" if grey else "RGB")
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise FedloraError(f"{where} cannot be decoded: {type(error).__name__}", remedy) from error
    if side is not None:
        if fit == "crop":
            wide, high = picture.size
            edge = min(wide, high)
            left, top = (wide - edge) // 2, (high - edge) // 2
            picture = picture.crop((left, top, left + edge, top + edge))
        picture = picture.resize((side, side), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, dtype=np.uint8).reshape(picture.height, picture.width, -1)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
