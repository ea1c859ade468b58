"""`gipi tokenizer`: learn a tokenizer from text files, and look at what it does to a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gipi.core.errors import ConfigError, RequestError

if TYPE_CHECKING:
    from gipi.text import Encoded, Tokenizer

app = typer.Typer(
    name="tokenizer",
    help="Train a tokenizer on text files, or show the tokens of a text.",
    add_completion=False,
    rich_markup_mode=None,
)

_COLOURS = ("cyan", "magenta", "yellow", "green", "blue")


@app.callback(invoke_without_command=True)
def tokenizer(
    context: typer.Context,
    *,
    json: Annotated[
        bool, typer.Option("--json", help="last line of stdout: one JSON object.")
    ] = False,
) -> None:
    """Train a tokenizer on text files, or show the tokens of a text."""
    del json  # read before the verbs are
    if context.invoked_subcommand is None:
        raise RequestError(
            "`gipi tokenizer` alone does nothing", "train or show",
            "see `gipi tokenizer --help`",
        )  # fmt: skip


@app.command()
def train(
    files: Annotated[list[str], typer.Argument(help="Text files in UTF-8, .gz too.")],
    *,
    kind: Annotated[
        str, typer.Option("--kind", help="bpe, unigram, wordpiece, word or char.", metavar="KIND")
    ] = "bpe",
    vocab: Annotated[
        str, typer.Option("--vocab", help="Number of ids, at most.", metavar="N")
    ] = "8000",
    lowercase: Annotated[
        bool | None,
        typer.Option("--lowercase/--keep-case", help="Small letters; default: as the kind does."),
    ] = None,
    min_count: Annotated[
        str | None,
        typer.Option(
            "--min-count", help="Rarer pieces are not learned (all but unigram).", metavar="N"
        ),
    ] = None,
    coverage: Annotated[
        str,
        typer.Option(
            "--coverage", help="Share of characters to know (unigram, wordpiece).", metavar="X"
        ),
    ] = "1.0",
    out: Annotated[
        str, typer.Option("--out", help="A .json file, or a folder.", metavar="PATH")
    ] = "tokenizer.json",
    json: Annotated[
        bool, typer.Option("--json", help="last line of stdout: one JSON object.")
    ] = False,
) -> dict[str, Any]:
    """Learn a tokenizer from text files and save it."""
    del json  # read before the verbs are
    size = _number(vocab, "vocab")
    least = None if min_count is None else _number(min_count, "min-count")
    share = _share(coverage)
    for file in files:
        if not Path(file).is_file():
            raise ConfigError(f"there is no file {file}", "text files", "check the path")
    from gipi.text.files import train_from_files

    done = train_from_files(
        files, kind, vocab=size, out=out, lowercase=lowercase, min_count=least, coverage=share
    )
    made = done.tokenizer
    speed = done.bytes / 1e6 / max(done.seconds, 1e-9)
    print(f"{made.kind}: {made.vocab_size} ids from {done.texts} lines, "
          f"{done.bytes / 1e6:.1f} MB in {done.seconds:.1f} s ({speed:.1f} MB/s)")  # fmt: skip
    if made.vocab_size < size:
        print(f"the text gives {made.vocab_size} ids, {size} were asked for")
    print("every text comes back exactly" if made.lossless else
          "a text comes back as what the kind keeps of it, see docs/tokenizers.md")  # fmt: skip
    print(f"written: {done.path}")
    return {
        "out": str(done.path), "kind": made.kind, "vocab": made.vocab_size,
        "lossless": made.lossless, "special": made.special_tokens, "texts": done.texts,
        "bytes": done.bytes, "seconds": round(done.seconds, 3), "fingerprint": made.fingerprint,
    }  # fmt: skip


@app.command()
def show(
    tokenizer: Annotated[str, typer.Argument(help="A tokenizer.json, or a folder that has one.")],
    text: Annotated[str, typer.Argument(help="Text to be cut into tokens.")],
    *,
    pair: Annotated[
        str | None, typer.Option("--pair", help="A second text.", metavar="TEXT")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="last line of stdout: one JSON object.")
    ] = False,
) -> dict[str, Any]:
    """Show the tokens of a text: id, characters, token."""
    del json
    from gipi.text import Tokenizer

    made = Tokenizer.from_file(tokenizer)
    found = made.encode(text, pair)
    tokens = made.tokens(found.ids)
    back = made.decode(found.ids)
    _paint(made, found, tokens, (text, pair or ""))
    return {
        "kind": made.kind, "ids": found.ids.tolist(), "tokens": tokens,
        "offsets": found.offsets.tolist(), "segments": found.segments.tolist(), "decoded": back,
    }  # fmt: skip


def _paint(made: Tokenizer, found: Encoded, tokens: list[str], texts: tuple[str, str]) -> None:
    """Print the text with a colour for each token, then a line for each token."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    line = Text()
    colour = 0
    rows = []
    end = {0: 0, 1: 0}  # several tokens may make one character, as bytes do
    for number, token in enumerate(tokens):
        a, b = found.offsets[number].tolist()
        added = bool(found.special_mask[number])
        text = int(found.segments[number])
        shown = token if added else texts[text][max(a, end[text]) : b]
        end[text] = max(b, end[text])
        style = "dim" if added else f"black on {_COLOURS[colour % len(_COLOURS)]}"
        colour += not added
        line.append(shown, style=style)
        place = "" if added else f"{a}:{b}"
        rows.append(f"{found.ids[number]:>6}  {place:>9}  {token!r}")
    console.print(line)
    for row in rows:
        console.print(row, markup=False)
    characters = sum(map(len, texts))
    number = int((~found.special_mask).sum())
    console.print(f"{number} tokens for {characters} characters, {made.kind}, "
                  f"{made.vocab_size} ids", markup=False)  # fmt: skip


def _number(value: str, name: str) -> int:
    if not value.isascii() or not value.isdigit() or not 0 < int(value) < 2**31:
        raise ConfigError(
            f"{name} = {value} (--{name})", "a whole number of 1 or more", f"use --{name} 8000"
        )
    return int(value)


def _share(value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise ConfigError(
            f"coverage = {value} (--coverage)", "a share above 0 and up to 1", "use 0.9995"
        )
    return share
