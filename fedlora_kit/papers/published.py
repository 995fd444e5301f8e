"""The numbers that a paper reports, the kit's or the user's own, from its own CSV."""

from __future__ import annotations

import pandas as pd

from fedlora_kit.errors import BadValue, UnknownName
from fedlora_kit.papers.rooms import rooms
from fedlora_kit.study import reported


def published(paper: str, item: str) -> pd.DataFrame:
    """The reported numbers of one item, in the file's order; no rows if none is known.

    Args:
        paper: id of the paper (``"ffa-lora"``).
        item: name of the item in it (``"table1"``).

    Raises:
        UnknownName: no such paper.
        BadValue, FedloraError: as in `reported.read`; a line of the file names an item that is not there.
    """
    found = {room.paper.id: room for room in rooms() if room.paper is not None}
    if paper not in found:
        raise UnknownName("paper", paper, found)
    where = found[paper].reported
    frame = reported.read(where)
    known = {one.id for room in found.values() if room.reported == where for one in room.items}
    for name in frame["paper"] + "/" + frame["item"]:
        if name not in known:
            raise BadValue(
                f"{where} has a number of {name}, which is no item", f"known: {', '.join(sorted(known))}"
            )
    return frame[(frame["paper"] == paper) & (frame["item"] == item)].reset_index(drop=True)
