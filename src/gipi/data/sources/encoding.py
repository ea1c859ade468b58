"""The bytes of a text file as UTF-8: which encoding they are in, and where they are damaged.

UTF-8 is the rule. What is not UTF-8 is read as UTF-16 where its mark says so, as the East Asian
encoding in which it makes sense, else as Latin-1, and a note says which. A file that is UTF-8 but
for a few bytes is damaged: the first of them is named, for guessing would garble the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.core.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

BINARY = (b"PAR1", b"PK\x03\x04")
HEAD, AROUND = 1 << 20, 1 << 15  # bytes that are looked at: at the beginning, around a fault
CONTROL = bytes([*range(9), *range(14, 32)])
MOSTLY_TEXT = 0.01  # share of control bytes, null among them, from which a file is no text
PAIRED = 0.8  # share of high bytes in pairs, as East Asian encodings have them
SCRIPTS = (
    ("cp932", "Shift-JIS (Japanese)", 0.2, (("\u3041", "\u30ff"),)),  # CP949 reads it, as rubbish
    ("cp949", "CP949 (Korean)", 0.7, (("\uac00", "\ud7a3"),)),
    ("gb18030", "GB18030 (Chinese)", 0.7, (("\u4e00", "\u9fff"), ("\u3000", "\u303f"))),
)
"""Encoding, its name, and the share of its letters that must be of its script."""


def as_utf8(data: bytes, path: Path, notes: list[str]) -> bytes:
    """Return the content of a text file as UTF-8 without a byte-order mark.

    notes  gets a sentence where the file was in another encoding
    Raises `DataError` naming line and byte for a null byte, or damaged UTF-8, and for binary data.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        notes.append("read as UTF-16 (it begins with that byte-order mark)")
        try:
            return data.decode("utf-16").encode()
        except UnicodeError as error:
            raise DataError(
                f"{path} is not whole UTF-16 text", "text", "save it as UTF-8"
            ) from error
    data = data.removeprefix(b"\xef\xbb\xbf")
    head = data[:4096]
    strange = len(head) - len(head.translate(None, CONTROL))
    if head[:4] in BINARY or (0 in head and strange > MOSTLY_TEXT * len(head)):
        raise DataError(
            f"{path} holds binary data, not text",
            "delimited text, JSON lines or Parquet",
            "convert the file, or give it the suffix of its format",
        )
    at = data.find(b"\0")
    if at >= 0:
        raise DataError(
            f"{path}: {_place(data, at)} is a null byte",
            "text",
            "remove the byte, or write the file again as UTF-8",
        )
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return _other(data, error.start, path, notes)
    return data


def _other(data: bytes, at: int, path: Path, notes: list[str]) -> bytes:
    """Return text that is no UTF-8 from byte `at` on, in the encoding in which it makes sense."""
    sample = data[:HEAD] + data[max(0, at - AROUND) : at + AROUND]
    letters = [c for c in sample.decode(errors="surrogateescape") if c > "\x7f"]
    bad = sum("\udc80" <= c <= "\udcff" for c in letters)
    if len(letters) - bad >= bad:
        raise DataError(
            f"{path}: {_place(data, at)} is no UTF-8 (0x{data[at]:02x}), most of the file is",
            "text in one encoding",
            "correct that place, or write the file again as UTF-8",
        )
    if _paired(sample) >= PAIRED:
        for encoding, name, share, script in SCRIPTS:
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError:
                continue
            found = [c for c in text[:HEAD] if c > "\x7f"]
            if sum(any(a <= c <= b for a, b in script) for c in found) >= share * len(found):
                notes.append(f"not UTF-8: read as {name}")
                return text.encode()
    notes.append("not UTF-8: read as Latin-1 (Western European)")
    return data.decode("latin-1").encode()


def _paired(sample: bytes) -> float:
    """Return the share of high bytes that have another one beside them."""
    high = [byte > 0x7F for byte in sample]
    beside = [a or b for a, b in zip([False, *high], [*high[1:], False], strict=False)]
    return sum(h and b for h, b in zip(high, beside, strict=True)) / max(sum(high), 1)


def _place(data: bytes, at: int) -> str:
    """Return where a byte lies, both counted from 1."""
    return f"byte {at + 1:,} (line {data.count(10, 0, at) + 1:,})"
