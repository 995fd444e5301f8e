"""How an instruction is put to a causal language model, and how a final answer is read.

The templates are data: a run names one (`DataSpec.prompt`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fedlora_kit.errors import UnknownName


@dataclass(frozen=True)
class Template:
    """The text around an instruction, and around an instruction with an input (a context, a passage).

    Attributes:
        plain: has the place ``{instruction}``; for an instruction, or a question, that stands alone.
        with_input: has the places ``{instruction}`` and ``{input}``.
    """

    plain: str
    with_input: str

    def fill(self, instruction: str, input_: str = "") -> str:
        """The prompt. Curly brackets in the texts are left alone; an input of blanks counts as none.

        >>> PROMPTS["plain"].fill("Sort the words.", "b a")
        'Sort the words.\\nb a\\n'
        """
        texts = {"{instruction}": instruction, "{input}": input_}
        frame = self.with_input if input_.strip() else self.plain
        return re.sub(r"\{instruction\}|\{input\}", lambda place: texts[place.group()], frame)


#: name -> template. "alpaca" is the pair of texts of Stanford Alpaca (``prompt_no_input`` and
#: ``prompt_input``), which FederatedScope-LLM and FedIT take over; "plain" is short, for small models.
PROMPTS: dict[str, Template] = {
    "alpaca": Template(
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Response:",
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:",
    ),
    "plain": Template("{instruction}\n", "{instruction}\n{input}\n"),
}

_FINAL = re.compile(r"#### (-?[0-9.,]+)")


def template(name: str) -> Template:
    """The template called ``name``.

    Raises:
        UnknownName: no such template; the message lists the known ones.
    """
    if name not in PROMPTS:
        raise UnknownName("prompt template", name, PROMPTS)
    return PROMPTS[name]


def final_number(text: str) -> str | None:
    """The number after the first ``#### ``, as text without commas; None if there is none.

    GSM8K's published rule, letter for letter (Cobbe et al. 2021; `openai/grade-school-math`, dataset.py): one
    blank after ``####``, and numbers compared as text. So "1,080" is "1080", and "1080.0", "1080." and
    "####1080" are not.

    >>> final_number("48/2=24\\n#### 1,080")
    '1080'
    >>> final_number("#### -3.50 litres")
    '-3.50'
    >>> final_number("the answer is 7") is None
    True
    """
    found = _FINAL.search(text)
    return None if found is None else found.group(1).replace(",", "")
