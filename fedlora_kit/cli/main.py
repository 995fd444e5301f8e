"""The app: its help, its commands, `fedlora doctor`. Heavy packages are imported inside the commands, so that
help and lists answer at once."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from fedlora_kit import __version__
from fedlora_kit.cli import backbones, completion, queries, replay
from fedlora_kit.cli.common import Commands, JsonFlag, print_json
from fedlora_kit.cli.export import export
from fedlora_kit.cli.federate import federate
from fedlora_kit.cli.fetch import fetch
from fedlora_kit.cli.init import init
from fedlora_kit.cli.new import new
from fedlora_kit.cli.plan import plan
from fedlora_kit.cli.report import report
from fedlora_kit.cli.reproduce import reproduce
from fedlora_kit.cli.show import compare, show
from fedlora_kit.cli.tensorboard import tensorboard

app = typer.Typer(
    name="fedlora",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Reproduce three federated-LoRA papers: FFA-LoRA, FedLoRA-Optimizer, Fed-HeLLo.

    Every table and figure is one notebook. `fedlora reproduce` runs notebooks without a window and writes
    their results, the comparison with the published numbers and a report page under figures/.

    Each command takes -q (only errors and the result), -v (what is done and where, on stderr), and --with
    PATH for methods, data and papers of your own.

    \b
    First steps:
      fedlora doctor                     is this machine ready?
      fedlora list                       what there is
      fedlora reproduce start_here       the first lesson, about a minute
      fedlora reproduce                  everything, at its smallest size
    """,
)
app.command()(init)
app.command("list")(queries.list_items)
app.command()(plan)
app.command()(fetch)
app.command()(reproduce)
app.command()(federate)
app.command()(report)
app.command()(queries.noise)
app.command()(queries.runs)
app.command()(show)
app.command()(compare)
app.command()(export)
app.command()(tensorboard)
app.command()(new)
app.add_typer(backbones.app, name="backbones")
app.add_typer(replay.app, name="replay")


def main() -> None:
    """Entry point of the ``fedlora`` command."""
    completion.whole_words(os.environ)
    app(prog_name="fedlora")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedlora-kit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None: ...


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """Check whether this machine is ready.

    Python, packages, folder, notebook kernel (really started), device, mirror, disk, store. Each check says
    ok, warn or fail, and what to do. Exit status 1 if one fails.

    \b
    JSON: a list of objects with the keys check, verdict ("ok", "warn", "fail"), found, remedy ("" if none
    is needed).
    """
    from fedlora_kit.cli.doctor import examine

    checks = examine()
    if as_json:
        print_json([{"check": name, **check._asdict()} for name, check in checks.items()])
    else:
        for name, check in checks.items():
            typer.echo(f"{check.verdict:<5} {name:<9} {check.found}")
            if check.remedy:
                typer.echo(f"{'':<15} -> {check.remedy}")
    if any(check.verdict == "fail" for check in checks.values()):
        raise typer.Exit(1)
