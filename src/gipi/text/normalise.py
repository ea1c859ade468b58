"""What may be changed in a text before it is cut into tokens, and which kinds change nothing.

    bpe, char         nothing: what goes in comes out (char: as far as it knows the characters)
    unigram           NFKC, control characters out, runs of white space become one space
    wordpiece, word   NFC, control characters out, small letters, accents off Latin and Greek
                      letters, an ideograph is a word by itself, white space only parts words

Unicode writes the same letter in several ways: 각 is one character or three jamo, é is one or two.
NFC chooses the composed form; NFKC also replaces variants made for looks (Ａ, ①, ﬁ) by the plain
ones (Unicode Standard Annex 15). A null byte or another control character is no text and goes; the
joiners that hold an emoji together (U+200D) and shape Persian and Indic letters stay.

Differs from BERT's uncased normaliser (Devlin et al. 2019), which takes the accents off every
script: が would become か, and Hangul would fall into jamo.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from tokenizers import Regex, normalizers

SPACES = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""White space, as a class of a regular expression."""
CONTROLS = "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff"
"""Control characters that are no white space, and the byte order mark."""
_ACCENTED = "A-Za-z\u00c6\u00d8\u00e6\u00f8\u0370-\u03ff"  # Latin and Greek letters, decomposed
_MARKS = "\u0300-\u036f"
_IDEOGRAPHS = (
    "\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f"
    "\U0002b820-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f"
)


@dataclass(frozen=True)
class Normalisation:
    """What is changed in a text; nothing, unless told otherwise.

    form        Unicode form
    clean       control characters out, white space of every sort and length one space, none at
                the ends
    lowercase   small letters
    accents     take accents off Latin and Greek letters
    ideographs  a space on both sides of each Chinese character
    """

    form: Literal["NFC", "NFKC"] | None = None
    clean: bool = False
    lowercase: bool = False
    accents: bool = False
    ideographs: bool = False

    @property
    def lossless(self) -> bool:
        """Whether no text is changed."""
        return self == Normalisation()


KINDS = {
    "bpe": Normalisation(),
    "unigram": Normalisation("NFKC", clean=True),
    "wordpiece": Normalisation("NFC", clean=True, lowercase=True, accents=True, ideographs=True),
    "word": Normalisation("NFC", clean=True, lowercase=True, accents=True, ideographs=True),
    "char": Normalisation(),
}
"""What each kind of tokenizer changes where nothing else is asked for."""


def of_kind(kind: str, *, lowercase: bool | None = None) -> Normalisation:
    """Return what a kind changes; `lowercase` also decides about accents where it is given."""
    usual = KINDS[kind]
    if lowercase is None:
        return usual
    accents = lowercase and usual.accents
    return Normalisation(usual.form, usual.clean, lowercase, accents, usual.ideographs)


def normaliser(wanted: Normalisation) -> normalizers.Normalizer | None:
    """Return the normaliser of the `tokenizers` package that does it, None for nothing."""
    forms = {"NFC": normalizers.NFC, "NFKC": normalizers.NFKC}
    steps: list[normalizers.Normalizer] = [forms[wanted.form]()] if wanted.form else []
    if wanted.lowercase:
        steps.append(normalizers.Lowercase())
    if wanted.accents:
        marks = Regex(f"(?<=[{_ACCENTED}])[{_MARKS}]+")
        steps += [normalizers.NFD(), normalizers.Replace(marks, "")]
    if wanted.lowercase:
        steps.append(normalizers.NFC())  # a small letter may be written with a mark of its own
    if wanted.clean:
        several = Regex(f"[{SPACES}]{{2,}}|[{SPACES.replace(' ', '')}]")
        steps += [
            normalizers.Replace(Regex(f"[{CONTROLS}]"), ""),
            normalizers.Replace(several, " "),
            normalizers.Strip(),
        ]
    if wanted.ideographs:
        steps.append(
            normalizers.BertNormalizer(
                clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=False
            )
        )
    return normalizers.Sequence(steps) if steps else None


def normalise(text: str, wanted: Normalisation) -> str:
    r"""Return the normalised text: the same in plain Python, to be read.

    >>> normalise(" Ｃafé\x00 ", Normalisation("NFKC", clean=True, lowercase=True, accents=True))
    'cafe'
    """
    if wanted.form:
        text = unicodedata.normalize(wanted.form, text)
    if wanted.lowercase:  # letter by letter, as Σ at the end of a word is the same letter
        text = "".join(c.lower() for c in text)
    if wanted.accents:
        apart = unicodedata.normalize("NFD", text)
        text = re.sub(f"(?<=[{_ACCENTED}])[{_MARKS}]+", "", apart)
    if wanted.lowercase:
        text = unicodedata.normalize("NFC", text)
    if wanted.clean:
        text = re.sub(f"[{CONTROLS}]", "", text)
        text = re.sub(f"[{SPACES}]+", " ", text).strip(" ")
    if wanted.ideographs:
        text = re.sub(f"([{_IDEOGRAPHS}])", r" \1 ", text)
    return text
