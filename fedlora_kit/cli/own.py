"""``--with``: what is the user's own, the same for every command."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import typer

from fedlora_kit.experiments import own_code


@lru_cache(maxsize=1)
def options() -> tuple[Any, ...]:
    """The option, as a parameter for a command."""
    maker = typer.Typer(add_completion=False)

    @maker.command()
    def _placeholder(
        own: Annotated[
            list[Path] | None,
            typer.Option(
                "--with",
                "-w",
                metavar="PATH",
                callback=_name,
                expose_value=False,
                help="Of your own: a .py file that registers methods, partitioners or tasks, or a paper's "
                "folder; repeat for more. FEDLORA_WITH names them for all commands.",
            ),
        ] = None,
    ) -> None: ...

    return tuple(typer.main.get_command(maker).params)


def _name(ctx: typer.Context, paths: list[Path] | None) -> None:
    """Import it, and name it for the processes that this command starts."""
    if ctx.resilient_parsing:
        return
    from fedlora_kit.papers.rooms import rooms

    ctx.find_root().with_resource(own_code.within())
    own_code.name_files(paths or [])
    if own_code.files():
        rooms()  # a paper that cannot be used is said before anything else
