"""Number words from German into English: two columns of text, a Transformer, BLEU.

Two files such as train.en and train.de in one folder, or a table, are given in the same place.
"""

from __future__ import annotations

import random
import sys

import gipi

QUICK = "--quick" in sys.argv
_ENGLISH = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
)
_GERMAN = (
    "null ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn "
    "sechzehn siebzehn achtzehn neunzehn zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig "
    "neunzig"
)
ENGLISH, GERMAN = _ENGLISH.split(), _GERMAN.split()


def english(n: int) -> str:
    """Return a number below 1000 in English: words of their own, the tens before the ones."""
    if n >= 100:
        rest = f" and {english(n % 100)}" if n % 100 else ""
        return f"{ENGLISH[n // 100]} hundred{rest}"
    if n < 20:
        return ENGLISH[n]
    return ENGLISH[n // 10 + 18] + (f" {ENGLISH[n % 10]}" if n % 10 else "")


def german(n: int) -> str:
    """Return a number below 1000 in German: one word, the ones before the tens."""
    if n >= 100:
        return f"{GERMAN[n // 100]}hundert" + (german(n % 100) if n % 100 else "")
    if n < 20:
        return GERMAN[n]
    return (f"{GERMAN[n % 10]}und" if n % 10 else "") + GERMAN[n // 10 + 18]


def main() -> None:
    """Train on most numbers, score those that were held back, and translate two."""
    numbers = random.Random(0).sample(range(1000), 200 if QUICK else 1000)
    table = {"de": [german(n) for n in numbers], "en": [english(n) for n in numbers]}
    run = gipi.train(
        table, target="en", task="translate", steps=20 if QUICK else 600, seed=0,
        settings={"model.width": 32 if QUICK else 64, "val": 0.1, "test": 0.1},
    )  # fmt: skip
    print({name: round(value, 3) for name, value in run.metrics.items()})
    for answer in run.predict(["zweihundertzweiundvierzig", "neunundneunzig"]):
        print(answer["row"], "->", answer["text"])


if __name__ == "__main__":
    main()
