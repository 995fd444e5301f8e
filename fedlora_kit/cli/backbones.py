"""``fedlora backbones``: the pre-trained models that the notebooks adapt."""

from __future__ import annotations

from typing import Annotated

import typer

from fedlora_kit.cli.common import Commands, JsonFlag, print_json, print_table
from fedlora_kit.errors import BadValue

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List the backbones, or build one of the kit's own.",
)


@app.command("list")
def list_backbones(
    as_json: JsonFlag = False,
) -> None:
    """List the known backbones and where each would be loaded from.

    \b
    JSON: a list of objects with the keys
      name   as in a run's description
      place  "folder" (on this machine), "hub" (downloaded at first use) or "missing"
      note   the remedy if it is missing, else ""
    """
    from fedlora_kit.errors import FedloraError
    from fedlora_kit.models.names import backbone_folder, backbone_names

    records = []
    for name in backbone_names():
        try:
            folder = backbone_folder(name)
            records.append({"name": name, "place": "hub" if folder is None else "folder", "note": ""})
        except FedloraError as error:
            records.append({"name": name, "place": "missing", "note": error.remedy})
    if as_json:
        print_json(records)
    else:
        print_table(["name", "place", "note"], [[r["name"], r["place"], r["note"]] for r in records])


@app.command()
def build(
    name: Annotated[str, typer.Argument(help="A backbone of the kit's own, such as kit/text-tiny.")],
    seed: Annotated[
        int, typer.Option(help="Seed of the pre-training; 0 gives the weights in the repository.")
    ] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace weights that are there already.")] = False,
) -> None:
    """Pre-train one of the kit's own small backbones: some minutes on one core, deterministic.

    \b
    Example:
      fedlora backbones build kit/text-tiny --force
    """
    from fedlora_kit import paths
    from fedlora_kit.models.names import backbone

    known = backbone(name)
    if not known.name.startswith("kit/"):
        raise BadValue(
            f"{name} is not pre-trained by the kit", "it is loaded from the Hub, or from FEDLORA_HUB"
        )
    out = paths.data_dir() / "backbones" / name.removeprefix("kit/")
    if (out / "model.safetensors").is_file() and not force:
        raise BadValue(f"{name} is built already", "--force builds it again")
    from fedlora_kit.pretraining.build import build_backbone

    build_backbone(name, out, seed)
    typer.echo(f"{name}: {out}")
