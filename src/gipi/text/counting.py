"""Count the words of a corpus: each text is read once, each different word is prepared once.

Normalising and cutting a text costs far more than counting. As no tokenizer that is trained from
words looks across a space, the pieces between spaces are counted raw; only the different ones
are normalised and cut.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gipi.text.encoded import check_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tokenizers import Tokenizer as Core

_BETWEEN = re.compile("[^ \t\r\n]+")
_LINE = 1 << 16  # words of a line that is handed to a trainer


@dataclass(frozen=True)
class Counted:
    """Words and how often each occurs, in the order of their characters.

    words  word -> number of times
    texts  number of texts that were read
    """

    words: Mapping[str, int]
    texts: int

    def lines(self) -> Iterator[str]:
        """Yield every word as often as it occurs, one a line, in blocks of many lines."""
        block: list[str] = []
        for word, number in self.words.items():
            left = number
            while left:
                take = min(left, _LINE - len(block))
                block += [word] * take
                left -= take
                if len(block) == _LINE:
                    yield "\n".join(block)
                    block.clear()
        if block:
            yield "\n".join(block)


def count_words(texts: Iterable[str], core: Core, *, characters: bool = False) -> Counted:
    """Return the words of all texts as `core` normalises and cuts them.

    characters  count single characters instead, those between words too
    Raises `DataError` naming the row that is no text.
    """
    raw: Counter[str] = Counter()
    rows = 0
    for row, text in enumerate(texts):
        check_texts((text,), first_row=row)
        rows = row + 1
        raw.update(text if characters else _BETWEEN.findall(text))
    words: Counter[str] = Counter()
    for chunk, number in raw.items():
        clean = core.normalizer.normalize_str(chunk) if core.normalizer is not None else chunk
        for word, _ in core.pre_tokenizer.pre_tokenize_str(clean):
            words[word] += number
    return Counted(dict(sorted(words.items())), rows)
