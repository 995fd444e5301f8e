"""``fedlora report``: the report page made again from what is there, without running anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedlora_kit.cli.common import Output, Profile


def report(
    profile: Profile = "smoke",
    output: Output = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write the report page again, from the results there are.

    DIR/PROFILE/index.html is one file that works without a network: for each item the table or figure, the
    published numbers beside the reproduced ones, the claims, and for each number the runs it is made of.
    `fedlora reproduce` writes it at its end; this command runs nothing.

    \b
    Examples:
      fedlora report --open
      fedlora report --profile small --output /data/figures
    """
    from fedlora_kit.reporting.page import write_page

    page = write_page(output or Path("figures"), profile)
    typer.echo(f"report: {page}")
    if show:
        import webbrowser

        if not webbrowser.open(page.as_uri()):
            typer.echo("no browser found here; open the file by hand", err=True)
