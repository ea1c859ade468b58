"""MB/s of training tokenizers and of encoding with them, beside the plain `tokenizers` package.

    GIPI_DATA=folder python tokenizers_speed.py [shakespeare wikitext2 nsmc] [--mb 4] [--again]

The first `--mb` megabytes of each text, as lines; vocabularies of 8000 ids. "plain" is the package
itself with the same normaliser, the same cutting into words and the same limits, fed the same
lines; its ids stay lists of Python numbers, ours become one array. Everything runs in one thread
and is counted in its processor time, so that other work on the machine does not count; ours and the
package's rounds take turns. Medians of `--rounds`, one row per (commit, text, what); known rows are
not measured again.

    python tokenizers_speed.py --table

prints the newest rows as Markdown.
"""

from __future__ import annotations

import os

os.environ["RAYON_NUM_THREADS"] = "1"  # read when the package starts its threads
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import argparse
import gzip
import json
import statistics
from pathlib import Path
from time import process_time as now
from typing import TYPE_CHECKING, Any

from stats import RESULTS, Results, versions
from tokenizers import Tokenizer as Core
from tokenizers import models, trainers

from gipi.text import train_tokenizer
from gipi.text.bytelevel import ALPHABET
from gipi.text.training import _empty

if TYPE_CHECKING:
    from collections.abc import Callable

WORKS = {
    "shakespeare": "tinyshakespeare/input.txt.gz",
    "wikitext2": "wikitext2/wiki.train.tokens.gz",
    "nsmc": "nsmc/ratings_train_resampled.txt.gz",
}
KINDS = ("bpe", "unigram", "wordpiece", "word", "char")
VOCAB = 8000
SPECIAL = ["[PAD]", "[UNK]"]


def lines_of(work: str, size: int) -> tuple[list[str], float]:
    """Return the first lines of a text, and their megabytes."""
    data = gzip.decompress((Path(os.environ["GIPI_DATA"]) / WORKS[work]).read_bytes())
    text = data[:size].decode("utf-8", errors="ignore")
    return text.splitlines(keepends=True), len(text.encode()) / 1e6


def plain(kind: str) -> tuple[Core, Any] | None:
    """Return the package's untrained tokenizer of a kind and its trainer, None where it has none."""
    core = _empty(kind, lowercase=None)
    asked: dict[str, Any] = {"vocab_size": VOCAB, "special_tokens": SPECIAL, "show_progress": False}
    if kind == "bpe":
        trainer = trainers.BpeTrainer(initial_alphabet=list(ALPHABET), min_frequency=2, **asked)
    elif kind == "unigram":
        core.model = models.Unigram()
        trainer = trainers.UnigramTrainer(unk_token=SPECIAL[1], **asked)
    elif kind == "wordpiece":
        core.model = models.WordPiece(unk_token=SPECIAL[1])
        trainer = trainers.WordPieceTrainer(min_frequency=2, **asked)
    else:
        core.model = models.WordLevel(unk_token=SPECIAL[1])
        trainer = trainers.WordLevelTrainer(min_frequency=2 if kind == "word" else 1, **asked)
    return core, trainer


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor time of a call, and what it returned."""
    start = now()
    value = call()
    return now() - start, value


def train_plain(kind: str, lines: list[str]) -> Core:
    core, trainer = plain(kind)
    core.train_from_iterator(lines, trainer)
    return core


def measure(results: Results, work: str, *, size: int, rounds: int, again: bool) -> None:
    lines, megabytes = lines_of(work, size)
    for kind in KINDS:
        names = [f"{kind}: {what}" for what in ("train", "train plain", "encode", "encode plain")]
        if not again and all(results.has(work, name) for name in names):
            continue
        took: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name, call in (
                (names[0], lambda kind=kind: train_tokenizer(lines, kind=kind, vocab=VOCAB)),
                (names[1], lambda kind=kind: train_plain(kind, lines)),
            ):
                spent, made = seconds(call)
                took[name].append(spent)
                if name == names[0]:
                    ours = made
            # A fresh copy each round: a tokenizer remembers the words it has met.
            fresh = type(ours).from_json(ours.to_json())
            fresh.encode_batch(["a"])  # it is made ready once, not for every text
            spent, found = seconds(lambda fresh=fresh: fresh.encode_batch(lines, special=False))
            took[names[2]].append(spent)
            core = Core.from_str(ours.to_json())
            spent, _ = seconds(
                lambda core=core: [
                    e.ids for e in core.encode_batch_fast(lines, add_special_tokens=False)
                ]
            )
            took[names[3]].append(spent)
        for name in names:
            rate = megabytes / statistics.median(took[name])
            results.add(
                work, name, mb_per_s=rate, mb=megabytes, seconds=sorted(took[name]), threads=1,
                vocab=ours.vocab_size, tokens=len(found.values), versions=versions("tokenizers"),
            )  # fmt: skip
            print(f"{work:12} {name:24} {rate:8.2f} MB/s", flush=True)


def table() -> list[str]:
    """Return Markdown lines: MB/s of ours and of the plain package, newest rows."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    processors: dict[tuple[str, str], str] = {}
    for path in sorted(RESULTS.glob("*-tokenizers.json")):
        body = json.loads(path.read_text())
        for row in body["rows"]:
            rows[row["work"], row["variant"]] = row
            where = row.get("machine", body["machine"])
            processors[row["work"], row["variant"]] = where["processor"]
    lines = ["| MB/s: gipi (plain package) | " + " | ".join(WORKS) + " |",
             "|---|" + "--:|" * len(WORKS)]  # fmt: skip
    for what in ("train", "encode"):
        for kind in KINDS:
            cells = [f"{kind}: {what}"]
            for work in WORKS:
                ours, theirs = (rows.get((work, f"{kind}: {what}{end}")) for end in ("", " plain"))
                both = ours and theirs
                cells.append(f"{ours['mb_per_s']:.1f} ({theirs['mb_per_s']:.1f})" if both else "-")
            lines.append("| " + " | ".join(cells) + " |")
    return [*lines, "", f"One thread of {', '.join(sorted({*processors.values()}))}."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("works", nargs="*", default=list(WORKS))
    parser.add_argument("--mb", type=float, default=4.0, help="megabytes of each text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--again", action="store_true", help="measure known rows again")
    parser.add_argument("--table", action="store_true", help="print the newest rows")
    args = parser.parse_args()
    if args.table:
        print("\n".join(table()))
        return
    results = Results("tokenizers")
    for work in args.works:
        measure(results, work, size=int(args.mb * 1e6), rounds=args.rounds, again=args.again)


if __name__ == "__main__":
    main()
