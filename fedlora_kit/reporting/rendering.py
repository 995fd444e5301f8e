"""What the report's pages are made with."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from fedlora_kit.study import words

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def templates() -> Environment:
    """The pages' templates; their filters put names into words."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    made = Environment(
        loader=PackageLoader("fedlora_kit.reporting", "templates"),
        autoescape=select_autoescape(["html.j2"], default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "heading": words.heading,
        "value": lambda text, column: words.value(column, text),
        "sentence": words.sentence,
    }
    return made
