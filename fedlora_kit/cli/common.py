"""What the commands share: errors without tracebacks, output as text or JSON."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fedlora_kit import disk
from fedlora_kit.cli import completion, own, verbosity
from fedlora_kit.disk import refused
from fedlora_kit.errors import BadValue, FedloraError, UnknownName
from fedlora_kit.study.item import PROFILES, check_profile

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print JSON instead of a table; its form is described above.")
]
#: which items a command is about, and their notebooks' parameters
Items = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ITEM]...",
        help="Item ids, or a paper's name for all its items. None: all.",
        autocompletion=completion.items,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="A notebook's parameter, as for reproduce.",
        autocompletion=completion.settings,
    ),
]


def profile_option(text: str) -> Any:
    """``--profile``, checked."""
    return typer.Option(
        "--profile",
        "-p",
        help=text,
        autocompletion=completion.profiles,
        callback=lambda ctx, name: name if ctx.resilient_parsing else check_profile(name),
    )


Profile = Annotated[str, profile_option(f"{', '.join(PROFILES[:-1])} or {PROFILES[-1]}.")]


def folder_of(option: str) -> Callable[[str], Path]:
    """What reads the folder that an option names: absolute, or one clear error (see `disk.folder`)."""

    def folder(text: str) -> Path:
        return disk.folder(text, option)

    return folder


Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        parser=folder_of("--output"),
        help="Where results lie, or go. Default: figures/ of the kit.",
    ),
]


class Commands(TyperGroup):
    """Turns the kit's errors into one message on stderr: exit status 2 for bad input, 1 for the rest, 130
    for Ctrl-C. Each command, and the group itself, takes --quiet and --verbose; each command --with.
    """

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for command in (self, *self.commands.values()):
            if not {"quiet", "verbose"} & {parameter.name for parameter in command.params}:
                command.params.extend(verbosity.options())
        for command in self.commands.values():
            if not isinstance(command, TyperGroup) and "own" not in {p.name for p in command.params}:
                command.params.extend(own.options())

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except FedloraError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2 if isinstance(error, UnknownName | BadValue) else 1) from None
        except OSError as error:
            refusal = refused(Path(os.fsdecode(error.filename)), error) if error.filename else None
            if refusal is None or error.errno == errno.ENOENT:
                raise
            typer.echo(f"error: {refusal}", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            typer.echo(
                "stopped; what was finished is kept, and the same command goes on from there", err=True
            )
            raise typer.Exit(130) from None


def print_json(value: Any) -> None:
    """Strict JSON on stdout; NaN and infinities become null."""
    typer.echo(json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """A table on stdout, the columns in ``right`` aligned to the right.

    On a terminal it is fitted to its width; into a file or a pipe every row stays one line.
    """
    if not rows:
        return
    if sys.stdout.isatty():
        _fitted(headers, rows, right)
        return
    from tabulate import tabulate  # type: ignore[import-untyped]

    align = ["right" if index in right else "left" for index in range(len(headers))]
    typer.echo(tabulate(rows, headers, disable_numparse=True, colalign=align))


def _fitted(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index, header in enumerate(headers):
        table.add_column(Text(header), justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
