"""``--quiet`` and ``--verbose``, before the command or after it: how much the package says, by `logging`.

The level of the logger ``fedlora_kit`` is all there is to it: ERROR is quiet, INFO and DEBUG are verbose.
"""

from __future__ import annotations

import logging
import sys
import warnings
from contextlib import ExitStack
from functools import lru_cache
from typing import Annotated, Any

import typer

from fedlora_kit.surroundings import environment

LOGGER = "fedlora_kit"
_BARS = ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
_PLAIN = "%(asctime)s %(levelname)-5s %(message)s"


def is_quiet() -> bool:
    """Whether only errors and results are wanted."""
    return logging.getLogger(LOGGER).getEffectiveLevel() > logging.WARNING


def is_verbose() -> bool:
    """Whether log records are shown."""
    return logging.getLogger(LOGGER).getEffectiveLevel() < logging.WARNING


def say(text: str = "", err: bool = False) -> None:
    """A line of progress or explanation; not when quiet."""
    if not is_quiet():
        typer.echo(text, err=err)


def warn(text: str) -> None:
    """A warning on stderr; not when quiet."""
    say(f"warning: {text}", err=True)


@lru_cache(maxsize=1)
def options() -> tuple[Any, ...]:
    """The two options, as parameters for a command."""
    maker = typer.Typer(add_completion=False)

    @maker.command()
    def _placeholder(
        quiet: Annotated[
            bool,
            typer.Option(
                "--quiet", "-q", callback=_quiet, expose_value=False, help="Only errors, and the result."
            ),
        ] = False,
        verbose: Annotated[
            int,
            typer.Option(
                "--verbose",
                "-v",
                count=True,
                show_default=False,
                callback=_verbose,
                expose_value=False,
                help="Log on stderr what is done and where; -vv: run by run.",
            ),
        ] = 0,
    ) -> None: ...

    return tuple(typer.main.get_command(maker).params)


def _quiet(ctx: typer.Context, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    stack = _begin(ctx, "quiet")
    logging.getLogger(LOGGER).setLevel(logging.ERROR)
    stack.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    stack.enter_context(environment(dict.fromkeys(_BARS, "1")))


def _verbose(ctx: typer.Context, value: int) -> None:
    if not value or ctx.resilient_parsing:
        return
    from fedlora_kit import __version__, paths

    again = LOGGER in ctx.meta  # before the command, and after it once more
    stack, logger = _begin(ctx, "verbose"), logging.getLogger(LOGGER)
    if again:
        logger.setLevel(logging.DEBUG)
        return
    handler = _handler()
    logger.addHandler(handler)
    stack.callback(logger.removeHandler, handler)
    stack.callback(setattr, logger, "propagate", logger.propagate)
    logger.propagate = False
    logger.setLevel(logging.INFO if value == 1 else logging.DEBUG)
    logger.info("fedlora-kit %s at %s", __version__, paths.home())
    logger.info("store of runs: %s", paths.runs_dir())


def _begin(ctx: typer.Context, said: str) -> ExitStack:
    """What is put back when the command has ended: several may run in one process."""
    stack: ExitStack
    before, stack = ctx.meta.get(LOGGER, (said, ExitStack()))
    if before != said:
        stack.close()
        raise typer.BadParameter("--quiet and --verbose exclude each other: give one of them")
    ctx.meta[LOGGER] = (said, stack)
    logger = logging.getLogger(LOGGER)
    stack.callback(logger.setLevel, logger.level)
    ctx.find_root().call_on_close(stack.close)
    return stack


def _handler() -> logging.Handler:
    """rich's on a terminal; elsewhere a record is one plain line, as in `common.print_table`."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        return RichHandler(console=Console(stderr=True), show_path=False, log_time_format="%H:%M:%S")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_PLAIN, "%H:%M:%S"))
    return handler
