"""The one file that wraps pyarrow: delimited text and Parquet in, NumPy columns out.

Delimited text is read as text first and typed column by column over all rows, so that row one
million can still decide that a column is no number. White space around values is removed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.errors import DataError
from gipi.data.sources.values import (
    CLOCK_FORMATS,
    MISSING,
    WEAK_MISSING,
    looks_like_date,
    tidy_objects,
)

if TYPE_CHECKING:
    from pathlib import Path

    from gipi.data.source import Column

PADDED = r"^[+-]?0\d"  # 007, 02139: a code, not a quantity
GROUPED = r"^[+-]?\d{1,3}(,\d{3})+(\.\d+)?$"
DECIMAL_COMMA = r"^[+-]?\d+,\d+$"
LONG_DIGITS = r"^\d{16,}$"  # beyond the exact range of float64: card and account numbers
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
MOSTLY = 0.8


def read_delimited(data: bytes, *, delimiter: str, skip: int, quoted: bool, path: Path) -> Any:
    """Return a pyarrow table of strings, columns f0, f1, ...; `skip` rows are left out.

    Raises `DataError` naming the first row whose number of values differs from the first row's.
    """
    import pyarrow as pa
    from pyarrow import csv

    width = _width(data, delimiter, quoted)
    read = csv.ReadOptions(autogenerate_column_names=True, skip_rows_after_names=skip)
    parse = csv.ParseOptions(
        delimiter=delimiter, quote_char='"' if quoted else False, newlines_in_values=quoted
    )
    convert = csv.ConvertOptions(
        column_types={f"f{i}": pa.string() for i in range(width)}, strings_can_be_null=False
    )
    try:
        return csv.read_csv(
            pa.BufferReader(data), read_options=read, parse_options=parse, convert_options=convert
        )
    except pa.ArrowInvalid as error:
        raise _ragged(
            data, str(error), delimiter=delimiter, quoted=quoted, skip=skip, path=path
        ) from error


def _width(data: bytes, delimiter: str, quoted: bool) -> int:  # noqa: FBT001
    """Return an upper bound of the number of columns (the delimiters of the first line + 1)."""
    if quoted and data.lstrip()[:1] == b'"':
        return data[: 1 << 20].count(delimiter.encode()) + 1
    return max(line.count(delimiter.encode()) for line in data[: 1 << 22].split(b"\n", 3)[:3]) + 1


def _ragged(
    data: bytes, reason: str, *, delimiter: str, quoted: bool, skip: int, path: Path
) -> DataError:
    import pyarrow as pa
    from pyarrow import csv

    bad: list[Any] = []

    def note(row: Any) -> str:
        bad.append((row.number, row.expected_columns, row.actual_columns, row.text))
        return "skip"

    parse = csv.ParseOptions(
        delimiter=delimiter, quote_char='"' if quoted else False, newlines_in_values=quoted,
        invalid_row_handler=note,
    )  # fmt: skip
    read = csv.ReadOptions(autogenerate_column_names=True, use_threads=False)
    try:
        csv.read_csv(pa.BufferReader(data), read_options=read, parse_options=parse)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        reason = str(error)
    if not bad:
        return DataError(
            f"{path} cannot be read as a table: {reason}",
            "rows of values with the same separator",
            "check the file in an editor",
        )
    number, expected, actual, text = bad[0]
    more = f" (and {len(bad) - 1:,} more such rows)" if len(bad) > 1 else ""
    shown = text if len(text) <= 60 else text[:57] + "..."
    where = f"row {number - skip}" if number is not None else "a row"
    return DataError(
        f"{path.name}: {where} has {actual} values where {expected} belong{more}: {shown}",
        "the same number of values in every row",
        "put values that contain the separator in double quotes, or correct the row",
    )


def typed_columns(
    table: Any, names: list[str], delimiter: str
) -> tuple[dict[str, Column], list[str]]:
    """Return the string columns of `table` as typed NumPy columns, and notes for people."""
    columns: dict[str, Column] = {}
    notes: list[str] = []
    for name, text in zip(names, table.columns, strict=True):
        columns[name], said = _typed(text, delimiter)
        notes += [f"column '{name}': {sentence}" for sentence in said]
    return columns, notes


def _typed(text: Any, delimiter: str) -> tuple[np.ndarray, list[str]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.utf8_trim_whitespace(text)
    lost = pc.is_in(text, value_set=pa.array(MISSING))
    notes = _missing_note(text, lost)
    text = pc.if_else(lost, pa.scalar(None, pa.string()), text)
    if text.null_count == len(text):
        return np.full(len(text), None, dtype=object), notes
    number, said = _number(text, delimiter)
    if number is not None:
        return number, notes + said
    date, said = _date(text)
    if date is not None:
        return date, notes + said
    return _strings(text), notes + _almost_number(text)


def _missing_note(text: Any, lost: Any) -> list[str]:
    import pyarrow.compute as pc

    counts = pc.value_counts(text.filter(lost)).to_pylist()
    marks = [f"'{c['values']}' ({c['counts']:,} rows)" for c in counts if c["values"]]
    return [f"{' and '.join(marks)} read as missing"] if marks else []


def _any(text: Any, pattern: str) -> bool:
    import pyarrow.compute as pc

    return bool(pc.any(pc.match_substring_regex(text, pattern)).as_py())


def _all(text: Any, pattern: str) -> bool:
    import pyarrow.compute as pc

    return bool(pc.all(pc.match_substring_regex(text, pattern)).as_py())


def _number(text: Any, delimiter: str) -> tuple[np.ndarray | None, list[str]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    first = text.drop_null().slice(0, 64)
    if not _any(first, r"\d") and not _any(first, r"(?i)^[+-]?inf"):
        weak = pc.is_in(first, value_set=pa.array(WEAK_MISSING))
        if not pc.any(weak).as_py():
            return None, []
    notes: list[str] = []
    column = _cast(text)
    if column is None:
        weak = pc.is_in(text, value_set=pa.array(WEAK_MISSING))
        if pc.any(weak).as_py():
            rest = pc.if_else(weak, pa.scalar(None, pa.string()), text)
            column = _cast(rest) if rest.null_count < len(rest) else None
            if column is not None:
                notes = _missing_note(text, weak)
    if column is None and _any(first, GROUPED):
        column = _cast(pc.replace_substring(text, ",", ""), needs=GROUPED, text=text)
        if column is not None:
            notes = ["commas read as thousands separators"]
    if column is None and delimiter != "," and _any(first, DECIMAL_COMMA):
        column = _cast(pc.replace_substring(text, ",", "."))
        if column is not None:
            notes = ["decimal commas read as decimal points"]
    if column is None:
        return None, []
    if _any(text, PADDED):
        return None, []
    if column.dtype.kind == "f" and _all(text, LONG_DIGITS):
        return None, []
    return column, notes


def _cast(values: Any, *, needs: str = "", text: Any = None) -> np.ndarray | None:
    """Return int64, or float64 where there are fractions or missing values, or None."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if needs and not _all(text, f"({needs})|({NUMBER})"):
        return None
    for kind in (pa.int64(), pa.float64()):
        try:
            cast = pc.cast(values, kind)
        except pa.ArrowInvalid:
            continue
        if kind == pa.int64() and not cast.null_count:
            return np.asarray(cast.to_numpy())
        return np.asarray(pc.cast(cast, pa.float64(), safe=False).to_numpy())
    return None


def _date(text: Any) -> tuple[np.ndarray | None, list[str]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    first = text.drop_null().slice(0, 32).to_pylist()
    if not all(looks_like_date(v) for v in first):
        return None, []
    zoned = ["dates with a time zone read as UTC"]
    for kind, said in ((pa.timestamp("us"), []), (pa.timestamp("us", tz="UTC"), zoned)):
        try:
            return _microseconds(pc.cast(text, kind)), list(said)
        except pa.ArrowInvalid:
            continue
    fits = []
    for form, meaning in CLOCK_FORMATS:
        parsed = pc.strptime(text, format=form, unit="us", error_is_null=True)
        if parsed.null_count == text.null_count:
            fits.append((parsed, meaning))
    if not fits:
        return None, []
    parsed, meaning = fits[0]
    values = _microseconds(parsed)
    if any((_microseconds(other) != values)[~np.isnat(values)].any() for other, _ in fits[1:]):
        return values, [f"dates read as {meaning}; they could be {fits[1][1]} too"]
    return values, [f"dates read as {meaning}"]


def _microseconds(array: Any) -> np.ndarray:
    moments: np.ndarray = np.asarray(array.to_numpy()).astype("datetime64[us]")
    return moments


def _strings(text: Any) -> np.ndarray:
    """Return an object array in which equal strings are one object."""
    import pyarrow as pa

    coded = text.combine_chunks().dictionary_encode()
    coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
    words = np.array([*coded.dictionary.to_pylist(), None], dtype=object)
    found: np.ndarray = words[np.asarray(coded.indices.fill_null(len(words) - 1).to_numpy())]
    return found


def _almost_number(text: Any) -> list[str]:
    import pyarrow.compute as pc

    is_number = pc.match_substring_regex(text, NUMBER)
    share = pc.mean(is_number).as_py()
    if share is None or share <= MOSTLY or _any(text, PADDED):
        return []
    others = pc.fill_null(pc.invert(is_number), False)  # noqa: FBT003  pyarrow's own signature
    row = pc.index(others, True).as_py()
    if row < 0:
        return []
    sentence = (
        f"{share:.0%} of the values are numbers but '{text[row].as_py()}' (row {row + 1}) is not, "
        "so it is read as text; correct or empty such values to read it as numbers"
    )
    return [sentence]


def read_parquet(path: Path) -> tuple[dict[str, Column], list[str]]:
    """Return the columns of a Parquet file, and notes; raise `DataError` where it is damaged."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path).read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as Parquet: {error}", "a whole Parquet file", "get it again"
        ) from error
    names, notes = unique_names([str(n) for n in table.column_names])
    columns: dict[str, Column] = {}
    for name, column in zip(names, table.columns, strict=True):
        columns[name], said = from_arrow(column)
        notes += [f"column '{name}': {sentence}" for sentence in said]
    return columns, notes


def from_arrow(column: Any) -> tuple[np.ndarray, list[str]]:
    """Return one typed Arrow column as a NumPy column (see `gipi.data.source`), and notes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = pc.cast(column, kind.value_type)
        kind = column.type
    if pa.types.is_boolean(kind) and not column.null_count:
        return np.asarray(column.to_numpy()), []
    if pa.types.is_integer(kind) and not column.null_count and kind != pa.uint64():
        return np.asarray(column.to_numpy()).astype(np.int64), []
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return np.asarray(pc.cast(column, pa.float64(), safe=False).to_numpy()), []
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _microseconds(pc.cast(column, pa.timestamp("us", tz=getattr(kind, "tz", None)),
                                     safe=False)), []  # fmt: skip
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        text = pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
        empty = pc.equal(text, "")
        return _strings(pc.if_else(empty, pa.scalar(None, pa.string()), text)), []
    return tidy_objects(column.to_pylist())


def dates_in(column: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return a column of strings that are all dates as datetime64, others as they are."""
    if column.dtype.kind != "O":
        return column, []
    first = next((v for v in column if v is not None), None)
    if not isinstance(first, str) or not looks_like_date(first):
        return column, []
    import pyarrow as pa

    dates, notes = _date(pa.chunked_array([column.tolist()], pa.string()))
    return (column, []) if dates is None else (dates, notes)


def unique_names(names: list[str]) -> tuple[list[str], list[str]]:
    """Return names in which none is empty and none comes twice, and notes on what was changed."""
    taken: set[str] = set()
    out, notes = [], []
    for i, raw in enumerate(names):
        base = raw.strip() or f"column {i + 1}"
        name, n = base, 1
        while name in taken or (n > 1 and name in names):
            n += 1
            name = f"{base}.{n}"
        if name != base:
            notes.append(f"two columns are called '{base}': number {i + 1} is read as '{name}'")
        taken.add(name)
        out.append(name)
    return out, notes


def looks_like_number(text: str) -> bool:
    """Return whether one string is a number as a table writes it."""
    return re.match(NUMBER, text.strip()) is not None


def parquet_bytes(columns: dict[str, list[Any]]) -> bytes:
    """Return flat columns of equal length as the content of a Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content
