"""``fedlora reproduce``: run notebooks, show how it goes, write the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedlora_kit.cli import completion
from fedlora_kit.cli.common import Output, Own
from fedlora_kit.cli.devices import slow_without_gpu
from fedlora_kit.cli.verbosity import is_quiet, is_verbose, say, warn
from fedlora_kit.devices import check_device
from fedlora_kit.errors import BadValue, UnknownName

if TYPE_CHECKING:
    from fedlora_kit.batch.pool import Prepare
    from fedlora_kit.batch.progress import Reporter
    from fedlora_kit.study.item import Item


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
        typer.Option(
            "--profile",
            "-p",
            help="smoke: minutes on a laptop, no downloads. small: real data, about an hour an item. "
            "paper: as published, on GPUs.",
            autocompletion=completion.profiles,
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
    own: Own = None,
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
    them finished. With --with notebooks know the file's names, and train their runs themselves.

    Exit status: 0 if every notebook ran, 1 if one failed, 2 for bad input, 130 after Ctrl-C.

    \b
    Examples:
      fedlora reproduce
      fedlora reproduce ffa-lora/table1 --set seeds=5
      fedlora reproduce ffa-lora --profile small --jobs 2 --output /data/figures
      fedlora reproduce fed-hello/table2 --with mine.py --set methods=lora,mine
      fedlora reproduce fed-hello -p paper --shard $SLURM_ARRAY_TASK_ID/16
      fedlora reproduce fed-hello -p paper --engine ray --address auto --store s3://bucket/runs
    """
    from fedlora_kit import paths
    from fedlora_kit.batch.parameters import parse_settings
    from fedlora_kit.batch.pool import PROFILES
    from fedlora_kit.batch.pool import reproduce as run_all
    from fedlora_kit.batch.summary import summarise, summary_text
    from fedlora_kit.papers.items import all_items, find
    from fedlora_kit.reporting.page import write_page

    if profile not in PROFILES:
        raise UnknownName("profile", profile, PROFILES)
    chosen = find(items) if items else [item for item in all_items() if item.notebook is not None]
    named = [item.id for item in chosen if item.notebook is None and item.id in (items or [])]
    if named:
        raise BadValue(f"no notebook yet for {', '.join(named)}", "`fedlora list` shows which items have one")
    if not any(item.notebook is not None for item in chosen):
        raise BadValue(
            f"there is no notebook to run under {paths.notebooks_dir()}",
            "`fedlora list` shows what is planned; FEDLORA_HOME names the kit's folder if it lies elsewhere",
        )
    paths.runs_dir()  # one that cannot be is said here, and not by every notebook
    if own:
        from fedlora_kit.batch import own_code

        if shard is not None or engine != "local":
            raise BadValue(
                f"--with and {'--shard' if shard is not None else '--engine ray'}",
                "what trains there knows the kit's own methods only: `fedlora new method NAME` without --to "
                "makes yours one of them",
            )
        own_code.name_files(own)
    if shard is not None:
        if engine != "local":
            raise BadValue("--shard and --engine ray", "a share trains on its own machine: leave one out")
        _train_share([item for item in chosen if item.notebook is not None], profile, settings or [], shard)
        return
    place = output or Path("figures")

    prepare, given = _on_cluster(engine, profile, address, store), parse_settings(settings or [])
    if prepare is None and "device" in given:
        check_device(given["device"])
    reporter = _reporter(chosen, profile, given, here=engine == "local")
    if prepare is None:
        log = paths.home() / place / profile / "training.log"
        prepare = _here(profile, log, reporter, warm=timeout is None and not own)
    try:
        statuses = run_all(chosen, profile, jobs, place, given, force, timeout, reporter, prepare)
    except KeyboardInterrupt:
        write_page(place, profile)  # with what was finished until now
        raise
    page = write_page(place, profile)
    lines = summarise(statuses, place)
    say(f"\n{summary_text(lines)}")
    failed = [line for line in lines if line.status == "failed"]
    for line in failed:
        typer.echo(f"\n{line.item} failed: {line.error}", err=True)
        typer.echo(f"  see {paths.home() / place / profile / line.item / 'notebook.log'}", err=True)
    if statuses and all(status.status == "unchanged" for status in statuses if status.status != "planned"):
        say("\nNothing has changed since the last run; --force runs it all the same.")
    say()
    typer.echo(f"report: {page}")
    if failed:
        raise typer.Exit(1)


def _reporter(items: Sequence[Item], profile: str, given: dict[str, str], *, here: bool) -> Reporter:
    """How the batch is told: bars on a terminal, else lines; with --verbose lines, and the runs as log."""
    from rich.console import Console

    from fedlora_kit.batch.progress import LiveTable, PlainLines, Silent

    if is_quiet():
        return Silent()
    console = Console()
    if not is_verbose():
        return LiveTable(console) if console.is_terminal else PlainLines(typer.echo)
    from fedlora_kit.batch.parameters import resolve
    from fedlora_kit.batch.run_log import RunLog

    parameters = {i.id: resolve(i, given) for i in items if i.notebook is not None}
    return RunLog(PlainLines(typer.echo), profile, parameters, given.get("device", "auto") if here else None)


def _warn_of_time(profile: str, items: dict[str, dict[str, Any]], share: int = 1) -> None:
    """Say beforehand, of the items that will be run, what it means that there is no GPU."""
    settings = {item: {k: v for k, v in given.items() if k != "profile"} for item, given in items.items()}
    if not is_quiet() and (sentence := slow_without_gpu(profile, settings, share=share)):
        warn(sentence)


def _train_share(items: Sequence[Item], profile: str, settings: Sequence[str], text: str) -> None:
    """One share of the items' runs."""
    from fedlora_kit.batch.parameters import parse_settings, resolve
    from fedlora_kit.engines.shards import Shard, train_share

    shard, given = Shard.parse(text), parse_settings(settings)
    if "profile" in given:
        raise BadValue("'profile' cannot be set with --set", "use --profile")
    check_device(given.get("device", "auto"))
    parameters = {item.id: resolve(item, given) for item in items}
    _warn_of_time(profile, parameters, shard.of)
    done = train_share(parameters, profile, shard, say=say)
    typer.echo(f"{done.finished} finished, {done.failed} failed, {done.others} fall to other shares")
    if done.waiting:
        say(
            f"not all of the grid is finished yet for {', '.join(done.waiting)}: when all shares have ended, "
            "start them once more for the runs that it chooses"
        )


def _here(profile: str, log: Path, reporter: Reporter, *, warm: bool) -> Prepare:
    """What trains the runs on this machine before several notebooks start; one alone trains its own.

    Args:
        warm: whether to train them at all; else every notebook trains its own.
    """

    def train(items: dict[str, dict[str, Any]]) -> bool:
        _warn_of_time(profile, items)
        if not warm or len(items) < 2:
            return False
        from fedlora_kit.engines.local_engine import train_items

        log.unlink(missing_ok=True)
        done = train_items(items, profile, log=log, tell=reporter.training)
        for item, reason in done.unplanned.items():
            say(f"{item} trains its runs itself: {reason}")
        if done.left:
            key, reason = next(iter(done.left.items()))
            say(f"{len(done.left)} runs are left to their notebooks; {key}: {reason} (see {log})")
        return done.side_by_side

    return train


def _on_cluster(engine: str, profile: str, address: str | None, url: str | None) -> Prepare | None:
    """What trains the runs before the notebooks start; None for the engine "local"."""
    if engine not in ("local", "ray"):
        raise UnknownName("engine", engine, ("local", "ray"))
    if engine == "local":
        if address is not None:
            raise BadValue("--address is for a Ray cluster", "add --engine ray")
        return None
    from fedlora_kit.engines.ray_cluster import RayCluster, need_ray
    from fedlora_kit.engines.ray_engine import train_items

    need_ray()

    def train(items: dict[str, dict[str, Any]]) -> bool:
        cluster = RayCluster(address)
        try:
            train_items(items, profile, cluster, url=url, say=say)
        finally:
            cluster.close()
        return True

    return train
