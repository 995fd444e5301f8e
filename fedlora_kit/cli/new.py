"""``fedlora new``: a method, a partitioner, a notebook, a task or a paper to start from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedlora_kit.cli.common import folder_of
from fedlora_kit.errors import BadValue

if TYPE_CHECKING:
    from fedlora_kit.cli.scaffold import Plan


def _kinds(incomplete: str) -> list[str]:
    from fedlora_kit.cli.scaffold import KINDS

    return [kind for kind in KINDS if kind.startswith(incomplete)]


def new(
    kind: Annotated[
        str, typer.Argument(help="method, partitioner, notebook, task or paper.", autocompletion=_kinds)
    ],
    name: Annotated[str, typer.Argument(help="Lower-case words joined by - or _, such as my-method.")],
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="DIR",
            parser=folder_of("--to"),
            help="A folder of your own. Default: this checkout; of a notebook the working folder, too.",
        ),
    ] = None,
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="Data of a task: a CSV file.")] = None,
    jsonl: Annotated[str | None, typer.Option(metavar="FILE", help="… JSON lines.")] = None,
    parquet: Annotated[str | None, typer.Option(metavar="FILE", help="… a Parquet file.")] = None,
    images: Annotated[
        str | None, typer.Option(metavar="DIR", help="… images, one sub-folder a class.")
    ] = None,
    hub: Annotated[str | None, typer.Option(metavar="ID", help="… of the Hub: org/name[:config].")] = None,
) -> None:
    """Write a method, a partitioner, a notebook, a task or a paper to start from, and its test.

    The test passes as it is: a method and a partitioner are checked for all that every one of them must hold,
    a notebook is run, a task's examples are read. FILL IN marks what is yours to write. A task needs its data
    (--csv, --jsonl, --parquet, --images or --hub) and a folder of your own; columns and classes are guessed.
    A paper is a folder, DIR itself: items, their runs and claims, a notebook, the numbers that it reports
    (docs/own_paper.md).

    With --to DIR both files go to a folder of your own, and nothing of the kit changes: import the file, and
    name it in any run. Without, they become part of this checkout: a method or partitioner is imported and
    tested with the others, and a notebook is found by `fedlora list` as own/NAME. A method or partitioner in
    the checkout changes the kit's source, and so the key of every run: results that are in the store by then
    are not used again. Prefer --to while you try things out.

    \b
    Examples:
      fedlora new method my-method --to ~/federated
      fedlora new partitioner by-region
      fedlora new notebook my_question
      fedlora new task tickets --csv tickets.csv --to ~/federated
      fedlora new paper my-paper --to ~/papers/my_paper
    """
    from fedlora_kit.cli import scaffold, scaffold_paper

    data = {"csv": csv, "jsonl": jsonl, "parquet": parquet, "images": images, "hub": hub}
    if kind == "task":
        from fedlora_kit.cli.scaffold_task import plan_task

        made = plan_task(name, data, to)
    elif any(data.values()):
        raise BadValue(f"data for a {kind}", "the options that name data are for a task")
    elif kind == "paper":
        _paper(scaffold_paper.plan(name, to))
        return
    else:
        made = scaffold.plan(kind, name, to)
    made.write()
    target, test = made.files
    for path in (target, *([target.with_suffix(".ipynb")] if kind == "notebook" else []), test):
        typer.echo(f"wrote {path}")
    for path in made.changed:
        typer.echo(f"changed {path}: the key of every run changes with the kit's source")
    typer.echo(f"\nNext:\n  grep -n 'FILL IN' {target} {test}\n  python -m pytest {test}")
    if kind == "notebook":
        how = f"jupyter lab {target.with_suffix('.ipynb')}"
        typer.echo(f"  {how}\n{'' if made.own else f'  fedlora reproduce {made.registered}'}".rstrip())
    elif kind == "task":
        item, settings = made.table
        typer.echo(f"  fedlora reproduce {item} --with {target} {settings}")
    else:
        first = f"import {target.stem}; " if made.own else ""
        part = '"method": {"name": ' if kind == "method" else '"split": {"partitioner": '
        if kind == "method":
            given = f"--with {target} " if made.own else ""
            typer.echo(f"  fedlora reproduce fed-hello/table2 {given}--set methods=lora,{made.registered}")
        typer.echo(f'  in a notebook: {first}{part}"{made.registered}", ...}} in a run\'s description')


def _paper(made: Plan) -> None:
    """Write a paper's folder, and say how to go on."""
    made.write()
    folder = next(iter(made.files)).parent
    for path in made.files:
        typer.echo(f"wrote {path}")
    typer.echo(f"wrote {folder / 'notebooks' / 'table1.ipynb'}")
    typer.echo(
        f"\nNext:\n  grep -rn 'FILL IN' {folder}\n  python -m pytest {folder}\n"
        f"  jupyter lab {folder / 'notebooks' / 'table1.ipynb'}\n"
        f"  fedlora reproduce {made.registered} --with {folder}"
    )
