"""Ten thousand mutated configurations: each is accepted or refused in words, never a traceback."""

import random

from gipi.core.errors import GipiError
from gipi.core.resolve import layer_from_flags, layer_from_text, resolve

SEED_TEXTS = (
    "data: flowers/\nmodel: mlp\nmodel.widths: [256, 128]\nepochs: 10\nlr: 1e-3\n",
    "data: table.csv\ntarget: price\ntime: 10m\nschema: {age: number, id: ignored}\n",
    "optimizer: {name: sgd, momentum: 0.9}\nschedule: cosine\nbatch_size: full\nclip_norm: 1\n",
    "steps: 100\naugment: [flip, {crop: 4}]\nfreeze: ['body.*']\nprecision: bf16\ncompile: off\n",
    "task: classify\ntask_options: {label_smoothing: 0.1}\nval: 0.2\ntest: 0.1\nseed: 3\n",
)
PIECES = (
    "[", "]", "{", "}", ":", ": ", "\n", "\t", "  ", "- ", "&a ", "*a",
    "!!python/object:os.system ",
    "!!binary |\n", "'", '"', "|", ">", "%", "@", "`", "#", "?", "? ", ",", "~", "null", "true",
    ".nan", ".inf", "-1", "0", "1e400", "9" * 5000, "\0", "\x85", "\u2028", "\ud7ff", "é", "💥",
    "<<: *a\n", "---\n", "...\n", "lr", "epochs", "model.", "schema.x", ".", "..", "=", "__class__",
    "2020-01-01", "10:30", "0x1F", "1_000", "[[[[[[", "{a: {b: {c: d}}}", "full", "auto",
)  # fmt: skip


def mutate(draw, text):
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(text) + 1)
        kind = draw.randrange(4)
        if kind == 0:
            text = text[:at] + draw.choice(PIECES) + text[at:]
        elif kind == 1:
            text = text[:at] + text[at + draw.randint(1, 6) :]
        elif kind == 2:
            lines = text.split("\n")
            draw.shuffle(lines)
            text = "\n".join(lines)
        else:
            other = draw.choice(SEED_TEXTS)
            text = text[:at] + other[draw.randrange(len(other)) :]
    return text


def outcome(call):
    try:
        call()
    except GipiError as error:
        text = str(error)
        assert len(text.splitlines()) < 12, text
        assert len(text) < 2000, text[:300]
        assert error.exit_code == 2  # noqa: PT017  most of them raise nothing
        return "refused"
    return "accepted"


def test_mutated_files_and_flags_never_end_in_a_traceback():
    draw = random.Random(7)
    seen = {"accepted": 0, "refused": 0}
    for _ in range(8000):
        text = mutate(draw, draw.choice(SEED_TEXTS))
        seen[outcome(lambda text=text: resolve(layer_from_text(text)))] += 1
    for _ in range(2000):
        text = mutate(draw, draw.choice(SEED_TEXTS))
        settings = [s.replace(": ", "=", 1) for s in text.split("\n") if s]
        seen[outcome(lambda s=settings: resolve(layer_from_flags({}, s)))] += 1
    assert min(seen.values()) > 500, seen  # the mutations are neither all harmless nor all fatal
