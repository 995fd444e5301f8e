"""Words of a text in any script, for ROUGE-L: rouge-score's own tokenizer knows ASCII letters and digits."""

from __future__ import annotations

import re
import unicodedata

from rouge_score.tokenizers import DefaultTokenizer, Tokenizer

#: scripts that put no blanks between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese
_NO_BLANKS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


class AnyScript(Tokenizer):  # type: ignore[misc]
    """Words are runs of letters, digits and their marks, in lower case; for ASCII they are rouge-score's.

    In a script without blanks each letter counts as a word, its marks with it. Words of ASCII alone are
    stemmed (Porter), as rouge-score does. Texts are compared in Unicode's form NFKC.
    """

    def __init__(self) -> None:
        self._english = DefaultTokenizer(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        """The words of a text, in order.

        >>> AnyScript().tokenize("Größere Müller, running: 我爱你")
        ['größere', 'müller', 'run', '我', '爱', '你']
        """
        words: list[str] = []
        open_ = False  # whether the next letter goes on with the last word
        for sign in unicodedata.normalize("NFKC", text).lower():
            kind = unicodedata.category(sign)[0]
            if kind == "M" and words and (open_ or _NO_BLANKS.match(words[-1])):
                words[-1] += sign
            elif kind not in "LNM":
                open_ = False
            elif _NO_BLANKS.match(sign):
                words.append(sign)
                open_ = False
            elif open_:
                words[-1] += sign
            else:
                words.append(sign)
                open_ = True
        stems = [self._english.tokenize(word) if word.isascii() else [word] for word in words]
        return [stem for found in stems for stem in found]
