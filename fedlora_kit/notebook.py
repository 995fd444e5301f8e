"""What the notebooks of items use, in one import: runs, frames, tables, published numbers, claims, files."""

from __future__ import annotations

import os
from pathlib import Path

from fedlora_kit.data import get_task as get_task
from fedlora_kit.data import load_task as load_task
from fedlora_kit.experiments import own_code
from fedlora_kit.experiments.setup import load_data as load_data
from fedlora_kit.experiments.setup import split_indices as split_indices
from fedlora_kit.papers.items import all_items
from fedlora_kit.papers.published import published as published
from fedlora_kit.papers.rooms import rooms
from fedlora_kit.partition import label_counts as label_counts
from fedlora_kit.partition import partition_figure as partition_figure
from fedlora_kit.partition import partitioner as partitioner
from fedlora_kit.reporting.comparison import compare as compare
from fedlora_kit.reporting.opening import opening
from fedlora_kit.reporting.outputs import STAGING_VARIABLE, ItemOutputs
from fedlora_kit.reporting.rounds import runs_frame as runs_frame
from fedlora_kit.reporting.style import set_style
from fedlora_kit.reporting.two_lines import latex_table as latex_table
from fedlora_kit.reporting.two_lines import score_over_rounds as score_over_rounds
from fedlora_kit.study.claims import judge_all as judge_all
from fedlora_kit.study.grid import choose as choose
from fedlora_kit.study.grid import grid_frame as grid_frame
from fedlora_kit.study.grid import grid_matrix as grid_matrix
from fedlora_kit.study.grid import mean_std_table as mean_std_table
from fedlora_kit.study.grid import privacy_frame as privacy_frame
from fedlora_kit.study.grid import results_frame as results_frame
from fedlora_kit.study.grid import run_cells as run_cells


def use(*files: str | Path) -> None:
    """Import what is the user's own: .py files, or a paper's folder; what ``--with`` is on the command line.

    The processes that train know them, too. A relative path counts from the notebook's folder.

    Raises:
        BadValue: one that is missing, cannot be imported, or is a paper that cannot be used.
    """
    own_code.name_files(map(Path, files))
    rooms()


def begin(item: str, profile: str, output_dir: str | Path = "figures") -> ItemOutputs:
    """Set the style of all figures; show the item's title, how long it will take, and what came of the last
    time; where its tables, figures and claims go.

    A notebook that is run headlessly shows its title alone.

    Args:
        item: its id, as ``fedlora list`` shows it.
        output_dir: top of all outputs; relative to the kit's home, not to the notebook's folder.

    Raises:
        BadValue: see `ItemOutputs`.
    """
    from IPython.display import Image, Markdown, display

    set_style()
    out = ItemOutputs(item, profile, output_dir)
    title = next((one.title for one in all_items() if one.id == out.item_id), None)
    if title is not None:
        display(Markdown(f"**{out.item_id}**: {title}"))
    if STAGING_VARIABLE not in os.environ:
        known = opening(out.item_id, profile, out.folder)
        display(Markdown("\n\n".join(said for said in (known.time, known.last) if said)))
        if known.picture is not None:
            table = known.picture.suffix == ".md"
            display(Markdown(known.picture) if table else Image(known.picture, width=560))
    return out
