"""Columns as their makers hand them over (lists, arrays, pandas, torch, `datasets`), as what the kit reads.

A column is converted where its meaning is plain, and refused in one error where it is not: nothing is spelled
out, cut off or guessed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fedlora_kit.errors import BadValue

OWN = "convert or leave out what cannot be used where the examples are made"


def plain(values: Any) -> Any:
    """The values as a numpy array, if they come from torch or pandas; arrays and all else as they are."""
    if hasattr(values, "detach"):  # torch
        return values.detach().cpu().numpy()
    if not isinstance(values, np.ndarray) and hasattr(values, "to_numpy"):  # pandas
        return values.to_numpy()
    return values


def texts(values: Any, what: str, remedy: str = OWN) -> list[str]:
    """A column of texts, n strings; bytes are read as UTF-8.

    Args:
        what: names the column in an error.
        remedy: what to do about an error.

    Raises:
        BadValue: a value is missing or no text, or cannot be written in UTF-8; the message names the row.
    """
    found = _rows(values, what, remedy)
    for row, value in enumerate(found if set(map(type, found)) - {str} else []):
        if isinstance(value, bytes):
            try:
                found[row] = value.decode()
            except UnicodeDecodeError as error:
                raise BadValue(f"{what} holds bytes in row {row} that are no UTF-8 text", remedy) from error
        elif isinstance(value, str):  # a numpy string
            found[row] = str(value)
        else:
            raise BadValue(f"{what} holds {_kind(value)} in row {row}, which is no text", remedy)
    if not _writable("".join(found)):
        row = next(i for i, text in enumerate(found) if not _writable(text))
        raise BadValue(
            f"{what} holds a lone surrogate in row {row}, which no UTF-8 text has: {ascii(found[row])[:40]}",
            remedy,
        )
    return found


def whole_numbers(values: Any, what: str, remedy: str = OWN) -> npt.NDArray[np.int64]:
    """A column of labels as int64 (n,): no fraction is cut off, no text or list is taken for a number.

    Args:
        what: names the column in an error.
        remedy: what to do about an error.

    Raises:
        BadValue: a value is missing or no whole number; the message names the row.
    """
    array = plain(values)
    if isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype.kind in "iu" and array.itemsize < 8:
        return array.astype(np.int64)
    if isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype == np.int64:
        return array
    found = _rows(array, what, remedy)
    for row, value in enumerate(found):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or abs(int(value)) >= 2**63:
            raise BadValue(f"{what} holds {str(value)[:40]!r} in row {row}, which is no label", remedy)
    return np.array(found, dtype=np.int64)


def group_values(values: Any, what: str, remedy: str = OWN) -> npt.NDArray[Any]:
    """A column of groups as an array (n,): whole numbers, or strings.

    Args:
        what: names the column in an error.
        remedy: what to do about an error.

    Raises:
        BadValue: a value is missing, neither a whole number nor a text, or of another kind than the first.
    """
    array = plain(values)
    if isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype.kind in "iuU":
        return array
    found = _rows(array, what, remedy)
    kinds = [_group_kind(value) for value in found]
    for row, kind in enumerate(kinds):
        if kind is None:
            raise BadValue(
                f"{what} holds {_kind(found[row])} in row {row}: a group is a whole number or a text", remedy
            )
        if kind is not kinds[0]:
            raise BadValue(
                f"{what} mixes texts and numbers: {found[0]!r} in row 0, {found[row]!r} in row {row}", remedy
            )
    if kinds and kinds[0] is int:
        return whole_numbers(found, what, remedy)
    return np.array(texts(found, what, remedy), dtype=np.str_)


def _rows(values: Any, what: str, remedy: str) -> list[Any]:
    """The values as a list of their own, none of them missing."""
    values = plain(values)
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise BadValue(f"{what} has shape {values.shape}, not one value an example", remedy)
    try:
        found = None if isinstance(values, str | bytes | dict | set | frozenset) else list(values)
    except TypeError:
        found = None
    if found is None:
        raise BadValue(f"{what} is {_kind(values)}, not one value an example", remedy)
    plain_kinds = set(map(type, found)) <= {str, bytes, int}  # the usual case, of which nothing is missing
    empty = [] if plain_kinds else [row for row, value in enumerate(found) if _missing(value)]
    if empty:
        raise BadValue(f"{what} is empty in row {empty[0]} ({len(empty)} rows in all)", remedy)
    return found


def _missing(value: Any) -> bool:
    """None, NaN, and pandas' NA and NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _group_kind(value: Any) -> type | None:
    if isinstance(value, str | bytes):
        return str
    return int if isinstance(value, int | np.integer) and not isinstance(value, bool) else None


def _kind(value: Any) -> str:
    return f"a {type(value).__name__} ({str(value)[:30]!r})"


def _writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
