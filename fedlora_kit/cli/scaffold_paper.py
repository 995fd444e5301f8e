"""A paper of the user's own to start from: a folder with items, notebook, reported numbers and a test."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fedlora_kit import disk
from fedlora_kit.cli.scaffold import Plan, checked_name, rendered
from fedlora_kit.errors import BadValue
from fedlora_kit.experiments import own_code

#: file -> template; the notebook's first form is a .py
_FILES = {
    own_code.PAPER: "paper.py.j2",
    "table1.py": "paper_item.py.j2",
    "notebooks/table1.py": "paper_notebook.py.j2",
    own_code.REPORTED: "paper_reported.csv.j2",
    "README.md": "paper_README.md.j2",
    "test_paper.py": "paper_test.py.j2",
}


def plan(name: str, to: Path | None) -> Plan:
    """What `fedlora new paper` writes; nothing is written yet.

    Args:
        name: the paper's id, lower-case words joined by hyphens or underscores.
        to: its folder, to be made or without any of these files.

    Raises:
        BadValue: a name that cannot be an id or is taken, no folder, or one whose name no package can have.
    """
    from fedlora_kit.papers.items import papers

    title = checked_name("paper", name).replace("_", " ").capitalize()
    if name in {"own", "lessons", *(paper.id for paper in papers())}:
        raise BadValue(f"there is a paper {name!r} already", "choose another name")
    if to is None:
        raise BadValue(
            "a paper lies in a folder of your own", f"name it: --to ~/papers/{name.replace('-', '_')}"
        )
    folder = disk.folder(str(to), "--to")
    package = own_code.package_name(folder)
    if not package.isidentifier() or (not folder.exists() and importlib.util.find_spec(package) is not None):
        raise BadValue(
            f"the folder {folder.name!r} cannot be a package: its name is none, or an installed one's",
            "choose another folder, such as my_paper",
        )
    values = {"name": name, "title": title, "package": package}
    texts = {folder / file: rendered(template, values) for file, template in _FILES.items()}
    notebook = folder / "notebooks" / "table1.py"
    for path in (*texts, notebook.with_suffix(".ipynb")):
        if path.exists():
            raise BadValue(f"{path} is there already", "choose another folder")
    return Plan("paper", texts, name, True, {}, notebook=notebook)
