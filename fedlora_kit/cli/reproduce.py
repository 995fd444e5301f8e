"""``fedlora reproduce``: run notebooks, show how it goes, write the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedlora_kit.cli import completion
from fedlora_kit.cli.common import Output, profile_option
from fedlora_kit.cli.verbosity import is_quiet, is_verbose, say, warn
from fedlora_kit.devices import check_device
from fedlora_kit.errors import BadValue, UnknownName

if TYPE_CHECKING:
    from fedlora_kit.batch.order import Cluster, Order
    from fedlora_kit.batch.pipeline import Reproduced
    from fedlora_kit.batch.progress import Reporter


def reproduce(
    items: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ITEM]...",
            help="Item ids, or a paper's name for all its items. None: all that there are.",
            autocompletion=completion.items,
        ),
    ] = None,
    profile: Annotated[
        str,
        profile_option(
            "smoke: minutes on a laptop, no downloads. "
            "laptop: real small models and data, a night. small: real data, about an hour an item. "
            "paper: as published, on GPUs."
        ),
    ] = "smoke",
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            help="Notebooks that run at the same time; they share the cores. Default: 1; once their runs are "
            "trained up to 4, as cores and memory allow.",
        ),
    ] = None,
    output: Output = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            metavar="KEY=VALUE",
            help="Set a notebook's parameter; repeat for more. Lists: a,b,c.",
            autocompletion=completion.settings,
        ),
    ] = None,
    more_seeds: Annotated[
        int | None,
        typer.Option(
            "--more-seeds",
            metavar="N",
            help="The items' last results at this profile once more, with N seeds added (docs/seeds.md).",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Run also what is up to date.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            help="Seconds that one cell may take, its training included: with it the notebooks train. "
            "Default: no limit.",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="What trains all runs before several notebooks start. local: processes of this machine. "
            "ray: a Ray cluster (docs/ray.md).",
            autocompletion=completion.engines,
        ),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            "--address", help="Ray's address, or auto. Default: RAY_ADDRESS, else this machine alone."
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="URL",
            envvar="FEDLORA_STORE",
            help="Where Ray's machines put finished runs: a shared folder, s3://bucket/runs.",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Train the I-th of N shares of the runs, and run no notebook (docs/scale.md).",
        ),
    ] = None,
) -> None:
    """Run notebooks: results, claims and a report page.

    For each item, DIR/PROFILE/ITEM/ gets the executed notebook and its log, the table or figure,
    comparison.csv, claims.json and status.json; DIR/PROFILE/index.html is the report. A second call runs
    only what has changed. Finished training runs are kept in data/runs and never trained again.

    Where several notebooks are to run, all training runs that they need come first, side by side in
    processes that stay (FEDLORA_JOBS of them; default: one a core; one on a GPU); the notebooks then find
    them finished.

    Exit status: 0 if every notebook ran, 1 if one failed, 2 for bad input, 130 after Ctrl-C.

    \b
    Examples:
      fedlora reproduce
      fedlora reproduce ffa-lora/table1 --set seeds=5
      fedlora reproduce ffa-lora/table1 --more-seeds 5
      fedlora reproduce ffa-lora --profile small --jobs 2 --output /data/figures
      fedlora reproduce fed-hello/table2 --with mine.py --set methods=lora,mine
      fedlora reproduce my-paper --with ~/papers/my_paper
      fedlora reproduce fed-hello -p paper --shard $SLURM_ARRAY_TASK_ID/16
      fedlora reproduce fed-hello -p paper --engine ray --address auto --store s3://bucket/runs
    """
    from fedlora_kit import paths
    from fedlora_kit.batch.order import Local, Order
    from fedlora_kit.batch.parameters import parse_settings
    from fedlora_kit.batch.pipeline import reproduce as start
    from fedlora_kit.papers.items import to_run

    chosen = to_run(items or [])
    paths.runs_dir()  # one that cannot be is said here, and not by every notebook
    given = parse_settings(settings or [])
    if shard is not None:
        if engine != "local":
            raise BadValue("--shard and --engine ray", "a share trains on its own machine: leave one out")
        where = output or Path("figures")
        _train_share(Order(chosen, profile, given, where, more_seeds=more_seeds), shard)
        return
    cluster = _cluster(engine, address, store)
    if cluster is None and "device" in given:
        check_device(given["device"])
    before = cluster or (None if timeout is not None else Local())
    order = Order(chosen, profile, given, output or Path("figures"), jobs, force, timeout, before, more_seeds)
    _print(order, start(order, _reporter(order), say, None if is_quiet() else warn))


def _train_share(order: Order, text: str) -> None:
    """One share of the items' runs."""
    from fedlora_kit.engines.shards import Shard, train_share
    from fedlora_kit.engines.without_gpu import slow_without_gpu

    shard = Shard.parse(text)
    parameters = {
        item.id: {name: value for name, value in values.items() if name != "profile"}
        for item, values in order.checked()
    }
    check_device(order.settings.get("device", "auto"))
    if not is_quiet() and (sentence := slow_without_gpu(order.profile, parameters, share=shard.of)):
        warn(sentence)
    done = train_share(parameters, order.profile, shard, say=say)
    typer.echo(f"{done.finished} finished, {done.failed} failed, {done.others} fall to other shares")
    if done.waiting:
        say(
            f"not all of the grid is finished yet for {', '.join(done.waiting)}: when all shares have ended, "
            "start them once more for the runs that it chooses"
        )


def _cluster(engine: str, address: str | None, store: str | None) -> Cluster | None:
    """The cluster that is asked for; None for the engine "local"."""
    if engine not in ("local", "ray"):
        raise UnknownName("engine", engine, ("local", "ray"))
    if engine == "local":
        if address is not None:
            raise BadValue("--address is for a Ray cluster", "add --engine ray")
        return None
    from fedlora_kit.batch.order import Cluster
    from fedlora_kit.engines import ray_cluster

    ray_cluster.need_ray()
    return Cluster(address, store)


def _reporter(order: Order) -> Reporter:
    """How the batch is told: bars on a terminal, else lines; with --verbose lines, and the runs as log."""
    from rich.console import Console

    from fedlora_kit.batch.order import Cluster
    from fedlora_kit.batch.progress import LiveTable, PlainLines, Reporter
    from fedlora_kit.batch.run_log import RunLog

    if is_quiet():
        return Reporter()
    console = Console()
    if console.is_terminal and not is_verbose():
        return LiveTable(console)
    here = not isinstance(order.engine, Cluster)
    return RunLog(order, typer.echo, here=here) if is_verbose() else PlainLines(typer.echo)


def _print(order: Order, done: Reproduced) -> None:
    from fedlora_kit import paths
    from fedlora_kit.batch.summary import summary_text

    say(f"\n{summary_text(done.statuses, order.place)}")
    failed = [status for status in done.statuses if status.status == "failed"]
    for status in failed:
        log = paths.home() / order.place / order.profile / status.item / "notebook.log"
        typer.echo(f"\n{status.item} failed: {status.error}\n  see {log}", err=True)
    run = [status for status in done.statuses if status.status != "planned"]
    if all(status.status == "unchanged" for status in run):
        say("\nNothing has changed since the last run; --force runs it all the same.")
    say()
    typer.echo(f"report: {done.page}")
    if failed:
        raise typer.Exit(1)
