"""What the shell completes: items, profiles, settings, runs. Nothing heavy is imported here, so that a key
press is answered at once.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

import typer

from fedlora_kit.study.item import PROFILES

if TYPE_CHECKING:
    from fedlora_kit.batch.parameters import Parameter

VARIABLE = "_FEDLORA_COMPLETE"
_NAME = "_FEDLORA_COMPLETE_NAME"  # of the setting whose value Bash asks for


def one_of(*names: str) -> Callable[[str], list[str]]:
    """Completes to one of these names."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


devices = one_of("auto", "cpu", "cuda")
profiles = one_of(*PROFILES)
engines = one_of("local", "ray")


def gpus(incomplete: str) -> list[str]:
    """GPUs whose data sheets are known, that begin so."""
    from fedlora_kit.planning.gpus import GPUS

    return [one.name for one in GPUS if one.name.startswith(incomplete)]


def items(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of items and papers that begin so, without those on the line."""
    from fedlora_kit.errors import FedloraError
    from fedlora_kit.papers.items import ITEMS, PAPERS, all_items, papers

    try:
        names = [*(paper.id for paper in papers()), *(item.id for item in all_items())]
    except FedloraError:  # the command itself says what is wrong with FEDLORA_WITH
        names = [*(paper.id for paper in PAPERS), *(item.id for item in ITEMS)]
    said = _on_the_line(ctx)
    return [name for name in names if name.startswith(incomplete) and name not in said]


def run_keys(incomplete: str) -> list[str]:
    """Keys of the store that begin so."""
    from fedlora_kit.experiments.store import Store
    from fedlora_kit.reporting.one_run import known_keys

    return [key for key in known_keys(Store()) if key.startswith(incomplete)]


def runs_and_items(ctx: typer.Context, incomplete: str) -> list[str]:
    """Items; and keys, once something is typed or where there are few of them."""
    keys = run_keys(incomplete)
    return [*items(ctx, incomplete), *(keys if incomplete or len(keys) <= 20 else [])]


def settings(ctx: typer.Context, incomplete: str) -> list[str]:
    """``NAME=VALUE`` for the parameters that every item on the line declares; values where they are known.

    A list's last entry is completed. Bash asks for what comes behind "=" alone: see `whole_words`.
    """
    from fedlora_kit.errors import FedloraError

    try:
        declared = _declared([name for name in _on_the_line(ctx) if not name.startswith("-")])
    except FedloraError:
        return []
    bash = os.environ.get(_NAME)
    name, equals, text = (bash, "=", incomplete) if bash else incomplete.partition("=")
    if not equals:
        names = [one for one in declared if one.startswith(name)]
        found = [f"{one}=" for one in names]
        # two words that differ behind "=": a single one would be closed by a space
        return [*found, found[0] + _default(declared[names[0]])] if len(found) == 1 else found
    if name not in declared:
        return []
    before, comma, last = text.rpartition(",") if declared[name].base.startswith("list") else ("", "", text)
    given = before.split(",")
    values = [v for v in _values(declared[name]) if v.startswith(last) and not (comma and v in given)]
    prefix = "" if bash else f"{name}="
    return [f"{prefix}{before}{comma}{value}" for value in values]


def method_names() -> list[str]:
    """Names of the kit's methods, read from their files: to import them takes seconds."""
    from pathlib import Path

    import fedlora_kit

    files = (Path(fedlora_kit.__file__).parent / "methods").glob("*.py")
    nodes = [node for file in files for node in ast.parse(file.read_text("utf-8")).body]
    classes = [node for node in nodes if isinstance(node, ast.ClassDef) and node.decorator_list]
    lines = [re.match(r"name(?:: \w+)? = '(.+)'$", ast.unparse(line)) for one in classes for line in one.body]
    return sorted(found[1] for found in lines if found)


def whole_words(environment: MutableMapping[str, str]) -> None:
    """Put together what Bash has cut at "=", in its variables COMP_WORDS and COMP_CWORD, in place.

    Bash counts "=" as a word of its own: of ``--set rounds=3`` it makes four words, and Typer would take the
    last for an item. Where the cursor stands in such a word, what is completed is the part behind "=", and
    the name before it is put into a variable of its own.
    """
    if environment.get(VARIABLE) != "complete_bash" or not environment.get("COMP_CWORD", "").isdigit():
        return
    line, at = environment.get("COMP_WORDS", ""), int(environment["COMP_CWORD"])
    between = "\n" if "\n" in line else " "  # Typer's script joins them by newlines
    words = [*line.split(between), ""][: at + 1]
    joined: list[str] = []
    for index, word in enumerate(words):
        fresh = not word and index == at  # the cursor stands behind a space
        if joined and (word == "=" or words[index - 1] == "=") and not fresh:
            joined[-1] += word
        else:
            joined.append(word)
    if "=" in joined[-1] and not joined[-1].startswith("-"):
        environment[_NAME], _, joined[-1] = joined[-1].partition("=")
    environment["COMP_WORDS"], environment["COMP_CWORD"] = between.join(joined), str(len(joined) - 1)


def _on_the_line(ctx: typer.Context) -> list[str]:
    """The items that are typed already; before an option that lacks its value Typer leaves them unparsed."""
    return [*(ctx.params.get("items") or ctx.params.get("runs") or ()), *ctx.args]


def _declared(named: Iterable[str]) -> dict[str, Parameter]:
    """The parameters that the notebooks of these items (all items, if none is named) have in common."""
    from fedlora_kit.batch.parameters import read_parameters
    from fedlora_kit.papers.items import all_items, find

    chosen = find(named) if named else all_items()
    found = [read_parameters(i.path) for i in chosen if i.notebook is not None]
    if not found:
        return {}
    common = set.intersection(*(set(one) for one in found)) - {"profile", "output_dir"}
    return {name: found[0][name] for name in sorted(common)}


def _default(parameter: Parameter) -> str:
    value: Any = parameter.default
    return ",".join(map(str, value)) if isinstance(value, list) else str(value).lower()


def _values(parameter: Parameter) -> list[str]:
    """The values of a parameter, as far as they are known: by its name, its type, or its help."""
    from fedlora_kit.partition import partitioner_names

    if parameter.name in ("method", "methods"):
        return method_names()
    if parameter.name in ("partitioner", "partitioners"):
        return list(partitioner_names())
    if parameter.base == "bool":
        return ["true", "false"]
    if parameter.base not in ("str", "list[str]"):
        return []
    return _choices(parameter.help)


def _choices(text: str) -> list[str]:
    """What a help text lists, if it is a list of single words.

    >>> _choices("split of the data: iid, pat_20 or pat_10; none: all"), _choices("such as a and b")
    (['iid', 'pat_20', 'pat_10'], [])
    """
    listed = text.partition(";")[0].partition(" (")[0].rpartition(": ")[2]
    words = [word.strip() for word in re.split(r", or |, | or |\|", listed)]
    return words if len(words) > 1 and all(re.fullmatch(r"[\w./-]+", word) for word in words) else []
