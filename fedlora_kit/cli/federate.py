"""``fedlora federate``: one run with a server and nodes as separate processes (Flower)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fedlora_kit.cli import completion
from fedlora_kit.cli.common import JsonFlag, folder_of, print_json
from fedlora_kit.cli.verbosity import say
from fedlora_kit.devices import check_device
from fedlora_kit.errors import BadValue
from fedlora_kit.numerals import fixed, significant


def federate(
    spec: Annotated[Path, typer.Option(help="A run's description, as spec.json in the store.")],
    nodes: Annotated[int, typer.Option(min=1, help="SuperNodes; client k is at node k mod NODES.")] = 2,
    device: Annotated[
        str,
        typer.Option(
            help="auto, cpu, cuda or cuda:<n>, at the server and at each node.",
            autocompletion=completion.devices,
        ),
    ] = "auto",
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds that a node may take for one round, or one evaluation.")
    ] = 600.0,
    app: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=folder_of("--app"),
            help="Only write the folder for `flwr run`, for a SuperLink on other machines.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run one federation as a Flower app: one SuperLink, NODES SuperNodes.

    For trying out, all of them are processes on this machine (127.0.0.1, free ports, no TLS), and the result
    goes into the store as that of any run. docs/flower.md has the commands for several machines. Needs the
    extra: pip install 'fedlora-kit[flower]'.

    \b
    Example:
      fedlora federate --spec data/runs/<key>/spec.json --nodes 2

    \b
    JSON: one object with the keys key, path, nodes, results (as results.json); with --app: app, nodes.
    """
    from fedlora_kit.flower.bundle import write_app
    from fedlora_kit.flower.launch import federate as start

    run = _read(spec)
    if app is None:
        check_device(device)
    else:
        write_app(run, app, nodes=nodes, timeout=timeout, device=device)
        if as_json:
            print_json({"app": str(app), "nodes": nodes})
        else:
            typer.echo(f"{app} is written; next: flwr run {app} <superlink> --stream")
        return
    entry = start(run, nodes=nodes, device=device, timeout=timeout, say=lambda line: say(line, err=True))
    if as_json:
        print_json({"key": entry.key, "path": str(entry.path), "nodes": nodes, "results": entry.results})
        return
    typer.echo(f"run {entry.key}: {entry.path}")
    for name, scores in entry.results["scores"].items():
        typer.echo(
            f"  {name}: accuracy {fixed(scores['final'], 4)} on {significant(scores['examples'])} examples"
        )


def _read(path: Path) -> Any:
    from fedlora_kit.experiments.spec import RunSpec

    try:
        description = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadValue(f"{path} cannot be read: {error.strerror}", "name a run's spec.json") from error
    except ValueError as error:
        raise BadValue(f"{path} is no JSON: {error}", "name a run's spec.json") from error
    if not isinstance(description, dict):
        raise BadValue(f"{path} holds no description of a run", "name a run's spec.json")
    return RunSpec.parse(description)
