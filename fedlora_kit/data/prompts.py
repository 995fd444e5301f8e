"""How a question is put to a causal language model, and how its final answer is read.

The templates are data: a run names one (`DataSpec.prompt`), and each has exactly one place, ``{question}``.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from fedlora_kit.errors import UnknownName

#: name -> template. "alpaca" is the text that FederatedScope-LLM puts before GSM8K's questions (its
#: ``PROMPT_DICT["prompt_no_input"]``, from Stanford Alpaca); "plain" is short, for small models.
PROMPTS: dict[str, str] = {
    "alpaca": (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{question}\n\n### Response:"
    ),
    "plain": "{question}\n",
}

_FINAL = re.compile(r"####\s*(-?[0-9.,]+)")


def template(name: str) -> str:
    """The template called ``name``.

    Raises:
        UnknownName: no such template; the message lists the known ones.
    """
    if name not in PROMPTS:
        raise UnknownName("prompt template", name, PROMPTS)
    return PROMPTS[name]


def final_number(text: str) -> str | None:
    """The number after the first ``####`` (GSM8K's rule), in one spelling; ``None`` if there is none.

    Thousands' commas are dropped and trailing zeros do not count, so "1,080", "1080" and "1080.0" are equal.
    GSM8K's own script (Cobbe et al. 2021, ``ANSWER_TRIGGER``) compares the text without commas instead.

    >>> final_number("48/2=24\\n#### 1,080")
    '1080'
    >>> final_number("#### -3.50")
    '-3.5'
    >>> final_number("the answer is 7") is None
    True
    """
    found = _FINAL.search(text)
    if found is None:
        return None
    try:
        number = Decimal(found.group(1).replace(",", ""))
    except InvalidOperation:
        return None
    return f"{number.normalize() + 0:f}"
