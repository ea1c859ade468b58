"""A table of wrong requests: each is answered in words, with the culprit and the fix, code 2."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gipi
from gipi.cli import main
from gipi.core.errors import GipiError, RequestError
from tests import drawn
from tests.data.prose import prose
from tests.data.sentences import asked as questions
from tests.data.sentences import tagged, write_conll, write_squad
from tests.data.texts import reviews, write_rows
from tests.folders import tiny_folder

LINES = 12  # an error must be shorter than this
SECONDS = 30  # far above the 5 s of the law: other processes may hold the processors


def table(path, rows, header="a,b,y"):
    Path(path).write_text(header + "\n" + "\n".join(rows) + "\n", encoding="utf-8")


def png(path, size=(8, 8), value=0):
    from PIL import Image

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


def _series_faults():
    """Daily series, each with one fault in it."""
    days = [str(np.datetime64("2024-01-01") + i) for i in range(80)]
    lines = [f"{day},{i % 7}.5,{i % 5}.25" for i, day in enumerate(days)]
    faults = {
        "whole": lines, "gap": lines[:30] + lines[33:], "twice": [*lines[:9], *lines[8:]],
        "back": [*lines[:9], lines[10], lines[9], *lines[11:]], "short": lines[:12],
        "hole": [*lines[:20], f"{days[20]},,1.5", *lines[21:]],
        "word": [*lines[:20], f"{days[20]},closed,1.5", *lines[21:]],
        "no_date": [*lines[:20], "someday,1.5,1.5", *lines[21:]],
        "zone": [*lines[:20], f"{days[20]}T00:00:00+02:00,1.5,1.5", *lines[21:]],
    }  # fmt: skip
    for fault, rows in faults.items():
        table(f"series_{fault}.csv", rows, "date,a,b")


def series(fault, *more):
    """Arguments of a training on a series."""
    return ["train", f"series_{fault}.csv", "--task", "forecast", "--steps", "1", "--set",
            "horizon=5", "--set", "lookback=10", *more]  # fmt: skip


def _text_faults():
    """Texts, tags, questions, parallel texts and an encoder, each file with one fault in it."""
    rows = reviews(60)
    write_rows(Path("texts_fine.csv"), rows, ("text", "label"))
    write_rows(Path("texts_empty.csv"), [("", label) for _, label in rows], ("text", "label"))
    write_rows(Path("texts_no_label.csv"), [*rows[:4], (rows[4][0], ""), *rows[5:]],
               ("text", "label"))  # fmt: skip
    korean = write_rows(
        Path("texts_torn.csv"), [("정말 좋은 영화", "good")] * 40, ("text", "label")
    )
    data = korean.read_bytes()
    at = data.index("영화".encode(), 200)
    korean.write_bytes(data[:at] + b"\xc0" + data[at + 1 :])
    lines = Path("texts_fine.csv").read_bytes().split(b"\n")
    Path("texts_null.csv").write_bytes(b"\n".join([*lines[:7], b"\0" + lines[7], *lines[8:]]))
    Path("prose_fine.txt").write_text(prose(60))
    Path("prose_latin.txt").write_bytes((prose(20) + "sch\u00f6n " * 9).encode("latin1"))
    Path("prose_null.txt").write_text(f"{prose(20)}\0{prose(20)}")
    Path("prose_one.txt").write_text("a")
    Path("prose_short.txt").write_text(prose(1))
    people = tagged(30)
    write_conll(Path("tags_fine.conll"), people)
    write_conll(Path("tags_long.conll"), [*people[:7], people[7] * 5, *people[8:]])
    text = Path("tags_fine.conll").read_text()
    Path("tags_lost.conll").write_text(text.replace("to O", "to", 1))
    Path("tags_strange.conll").write_text(text.replace("to O", "to PLACE", 1))
    for fault in ("elsewhere", "long"):
        articles = questions()
        asked = articles[5]["paragraphs"][0]["qas"][0]
        if fault == "elsewhere":
            asked["answers"][0]["answer_start"] += 1
        else:
            asked["question"] = "where " * 80
        write_squad(Path(f"asked_{fault}.json"), articles)
    Path("parallel").mkdir()
    Path("parallel/train.en").write_text("a b c\n" * 20)
    Path("parallel/train.de").write_text("d e f\n" * 19)
    tiny_folder(Path("encoder"))
    config = json.loads(Path("encoder/config.json").read_text())
    for fault, change in {"few_rows": {"vocab_size": 20}, "pad": {"pad_token_id": 3}}.items():
        shutil.copytree("encoder", f"encoder_{fault}")
        Path(f"encoder_{fault}/config.json").write_text(json.dumps({**config, **change}))


def texts(name, *settings):
    """Arguments of a training on texts."""
    args = ["train", name, "--steps", "1"]
    if name.startswith("prose"):
        args += ["--task", "generate"]
    return [*args, *(part for s in settings for part in ("--set", s))]


def _drawn_faults():
    """Annotated pictures, each folder with one fault in it."""
    for fault in ("small_mask", "strange_mask", "no_masks", "torn_picture"):
        drawn.masks(Path(fault), 12)
    Image.new("L", (5, 7)).save("small_mask/masks/004.png")
    Image.new("L", (64, 48), 77).save("strange_mask/masks/003.png")
    for path in Path("no_masks/masks").iterdir():
        path.unlink()
    Path("torn_picture/images/006.png").write_bytes(b"\x89PNG\r\n torn")
    for fault in ("turned_box", "far_box", "no_picture", "bad_json", "no_class"):
        drawn.boxes(Path(fault), 12)
        path = Path(fault, "annotations.json")
        found = json.loads(path.read_text())
        if fault == "turned_box":
            found["annotations"][5]["bbox"][2:] = [-9, -9]
        elif fault == "far_box":
            found["annotations"][5]["bbox"][:2] = [900, 900]
        elif fault == "no_picture":
            Path("no_picture/images/007.png").unlink()
        elif fault == "no_class":
            found["annotations"][5]["category_id"] = 44
        path.write_text(json.dumps(found) if fault != "bad_json" else '{"images": [')
    for fault in ("far_point", "word_point", "lost_point_picture"):
        drawn.points(Path(fault), 12)
        path = Path(fault, "points.csv")
        lines = path.read_text().splitlines()
        if fault == "far_point":
            lines[4] = "003.png,9000,9000,3,4,5,6"
        elif fault == "word_point":
            lines[4] = "003.png,left,4,3,4,5,6"
        else:
            Path(fault, "003.png").unlink()
        path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with good and bad things in it, and a trained run."""
    root = tmp_path_factory.mktemp("place")
    before = Path.cwd()
    os.chdir(root)
    good = [f"{i * 37 % 101 + 0.25},{i % 7},{'hi' if i % 7 > 3 else 'lo'}" for i in range(200)]
    table("good.csv", good)
    table("numbers.csv", [f"{i * 37 % 101 + 0.25},{i % 7},{i * 1.5}" for i in range(200)])
    table("one_class.csv", [f"{i}.5,{i % 7},same" for i in range(50)])
    table("nan_target.csv", [f"{i}.5,{i % 7}," for i in range(50)])
    table("weights.csv", [f"{i}.5,{i % 7},{i % 2},-1" for i in range(50)], "a,b,y,w")
    table("word_weights.csv", [f"{i}.5,{i % 7},{i % 2},x" for i in range(50)], "a,b,y,w")
    table("bad_split.csv", [f"{i}.5,{i % 7},{i % 2},other" for i in range(50)], "a,b,y,s")
    table("no_b.csv", [f"{i}.5,hi" for i in range(20)], "a,y")
    table("header_only.csv", [])
    table("ragged.csv", ["1,2", "1,2,3,4,5,6", '"'])
    Path("empty.csv").write_text("")
    Path("empty").mkdir()
    Path("texts").mkdir()
    Path("texts/readme.txt").write_text("x")
    Path("notes.xyz").write_text("x")
    Path("binary.csv").write_bytes(bytes(range(256)) * 20)
    Path("broken.jsonl").write_text('{"a": 1, "y": 2}\n{"a": \n')
    Path("broken.parquet").write_bytes(b"PAR1 not at all")
    Path("bad.yaml").write_text("epochs: 3\n  lr: [1\n")
    Path("unknown.yaml").write_text("epochs: 3\nlearning_rate: 0.1\n")
    Path("range.yaml").write_text("epochs: 3\nlr: -0.1\n")
    Path("list.yaml").write_text("- a\n- b\n")
    Path("twice.yaml").write_text("lr: 0.1\nlr: 0.2\n")
    Path("two.yaml").write_text("epochs: 3\nsteps: 4\n")
    for i in range(12):
        png(f"pictures/{'ab'[i % 2]}/{i}.png", value=i * 9)
        png(f"corrupt/{'ab'[i % 2]}/{i}.png", value=i * 9)
        png(f"single/only/{i}.png", value=i * 9)
    Path("corrupt/a/0.png").write_bytes(b"\x89PNG\r\n broken")
    Path("taken").mkdir()
    Path("taken/file").write_text("x")
    Path("weights.safetensors").write_bytes(b"no")
    _drawn_faults()
    _series_faults()
    _text_faults()
    args = ["train", "good.csv", "--target", "y", "--steps", "2", "--out", "run", "--quiet"]
    fixed = ["precision=fp32", "threads=1", "gemm=native", "model.widths=[4]"]
    assert main([*args, *(p for s in fixed for p in ("--set", s))]) == 0
    yield root
    os.chdir(before)


T = ["train", "good.csv", "--target", "y", "--steps", "2"]


def drawn_data(name):
    """Arguments of a training on annotated pictures."""
    return ["train", name, "--steps", "1", "--image-size", "32"]


# Each: the arguments, and words that the answer must hold: the culprit, and the fix.
WRONG = [
    # commands and flags
    (["trian"], ["'trian'", "'train'"]),
    (["train", "--epoch", "3"], ["--epoch", "--epochs"]),
    (["train", "--epochs"], ["--epochs"]),
    (["train", "a", "b"], ["b"]),
    (["predict"], ["run", "gipi predict --help"]),
    (["predict", "run"], ["INPUTS"]),
    (["list", "modles"], ["'modles'", "'models'"]),
    (["show", "lenet6"], ["'lenet6'", "'lenet5'"]),
    # annotated pictures: the file or row, and what to do
    (drawn_data("small_mask"), ["004.png", "5x7", "64x48", "bad_rows=skip"]),
    (drawn_data("strange_mask"), ["003.png", "77", "bad_rows=skip"]),
    (drawn_data("no_masks"), ["masks/ has no masks", "12 pictures", "same name"]),
    (drawn_data("torn_picture"), ["006.png", "cannot be decoded", "bad_rows=skip"]),
    (drawn_data("turned_box"), ["005.png", "inverted", "bad_rows=skip"]),
    (drawn_data("far_box"), ["005.png", "outside the picture", "bad_rows=skip"]),
    (drawn_data("no_picture"), ["007.png"]),
    (drawn_data("bad_json"), ["annotations.json", "not JSON"]),
    (drawn_data("no_class"), ["005.png", "unknown class", "bad_rows=skip"]),
    (drawn_data("far_point/points.csv"), ["row 4", "outside the picture"]),
    (drawn_data("lost_point_picture/points.csv"), ["003.png", "does not exist"]),
    ([*drawn_data("small_mask"), "--set", "bad_rows=drop"], ["bad_rows", "skip"]),
    (["train", "small_mask", "--image-size", "2"], ["image_size = 2", "4 to 4096"]),
    (["train", "small_mask", "--image-size", "[32,32,32]"], ["image_size"]),
    ([*drawn_data("small_mask"), "--task", "segmnt"], ["segmnt", "segment"]),
    ([*drawn_data("far_point/points.csv"), "--set", "bad_rows=skip", "--set", "task.loss=dice"],
     ["dice", "loss"]),
    ([*drawn_data("turned_box"), "--set", "bad_rows=skip", "--model", "fcoss"],
     ["'fcoss'", "'fcos'"]),
    ([*drawn_data("turned_box"), "--set", "bad_rows=skip", "--set", "model.backbone=resnet19"],
     ["resnet19"]),
    (["predict", "run", "pictures/a/0.png"], ["is a picture", "'a', 'b'"]),
    (["predict", "run", "good.csv", "--tta", "flip"], ["tta", "pictures"]),
    # values
    ([*T, "--lr", "-1"], ["lr = -1 (--lr)", "greater than 0"]),
    ([*T, "--lr", "fast"], ["lr = 'fast'"]),
    ([*T, "--lr", "nan"], ["lr = 'nan'"]),
    ([*T, "--lr", ".inf"], ["lr = inf"]),
    ([*T, "--epochs", "3"], ["--epochs and --steps", "exactly one"]),
    (["train", "--epochs", "0"], ["epochs = 0"]),
    (["train", "--epochs", "-1", "--lr", "0"], ["epochs = -1", "lr = 0"]),
    (["train", "--steps", "1.5"], ["steps = 1.5"]),
    (["train", "--time", "soon"], ["'soon'", "10m"]),
    ([*T, "--batch-size", "0"], ["batch_size = 0"]),
    ([*T, "--batch-size", "half"], ["batch_size = 'half'"]),
    ([*T, "--micro-batch", "-2"], ["micro_batch = -2"]),
    ([*T, "--seed", "-1"], ["seed = -1"]),
    ([*T, "--precision", "fp12"], ["precision = 'fp12'", "bf16"]),
    ([*T, "--val", "0.7", "--test", "0.7"], ["val + test"]),
    ([*T, "--device", "tpu7"], ["tpu7", "cpu"]),
    # keys
    ([*T, "--set", "lerning_rate=1"], ["'lerning_rate'"]),
    ([*T, "--set", "epocs=1"], ["'epocs'", "'epochs'"]),
    ([*T, "--set", "lr"], ["'lr'", "key=value"]),
    ([*T, "--set", "modl.widths=[1]"], ["'modl'", "model.widths"]),
    ([*T, "--set", "model.widths=[1"], ["[1", "YAML"]),
    ([*T, "--set", "model.width=[4]"], ["width", "widths"]),
    ([*T, "--set", "model.widths=many"], ["widths"]),
    ([*T, "--set", "model.dropout=2"], ["dropout"]),
    ([*T, "--set", "task.label_smothing=0.1"], ["label_smothing", "label_smoothing"]),
    ([*T, "--set", "task.label_smoothing=2"], ["label_smoothing"]),
    ([*T, "--set", "task.metric=acuracy"], ["acuracy", "accuracy"]),
    ([*T, "--set", "task.loss=huber"], ["huber"]),
    ([*T, "--set", "optimizer.beta9=1"], ["beta9", "betas"]),
    ([*T, "--set", "schedule.peek=0.3"], ["peek", "peak"]),
    ([*T, "--set", "augment=[filp]"], ["filp", "flip"]),
    ([*T, "--set", "schema.a=nmber"], ["nmber", "number"]),
    ([*T, "--set", "schema.aa=number"], ["aa"]),
    ([*T, "--set", "ema=0.9", "--set", "swa=0.5"], ["ema", "swa"]),
    ([*T, "--set", "freeze=[nothing.*]"], ["nothing.*"]),
    ([*T, "--set", "momentum=0.9"], ["momentum"]),
    # names
    ([*T, "--model", "mpl"], ["'mpl'", "'mlp'"]),
    ([*T, "--model", "lenet5"], ["'lenet5' is for pictures", "'a', 'b'", "mlp"]),
    ([*T, "--model", "resnet20"], ["'resnet20' is for pictures", "mlp"]),
    ([*T, "--model", "textcnn"], ["'textcnn' is for texts", "schema.COLUMN=text"]),
    ([*T, "--model", "bert"], ["'bert' is for texts", "mlp"]),
    (["train", "pictures", "--steps", "1", "--model", "textcnn"], ["sees no pictures", "lenet5"]),
    (["train", "pictures", "--steps", "1", "--model", "unet"], ["'unet' does not classify"]),
    ([*drawn_data("turned_box"), "--set", "bad_rows=skip", "--model", "unet"],
     ["'unet' does not detect", "fcos"]),
    ([*T, "--optimizer", "adaw"], ["'adaw'", "'adamw'"]),
    ([*T, "--schedule", "cosin"], ["'cosin'", "'cosine'"]),
    ([*T, "--task", "clasify"], ["'clasify'", "'classify'"]),
    (["train", "numbers.csv", "--target", "y", "--task", "classify", "--model", "lenet5"],
     ["target 'y'", "regress"]),
    # texts: empty, unreadable, too short or too long
    (texts("texts_empty.csv", "schema.text=text"), ["every training text is empty"]),
    (texts("texts_no_label.csv"), ["'label' is missing in 1 of 60 rows", "row 5"]),
    (texts("texts_torn.csv"), ["texts_torn.csv", "no UTF-8 (0xc0)", "(line "]),
    (texts("texts_null.csv"), ["texts_null.csv", "(line 8) is a null byte"]),
    (texts("prose_latin.txt"), ["prose_latin.txt", "0xF6", "not UTF-8", "iconv"]),
    (texts("prose_null.txt"), ["prose_null.txt", "a null byte at position"]),
    (texts("prose_one.txt"), ["prose_one has 1 characters", "give more text"]),
    (texts("prose_short.txt", "max_length=64"),
     ["the train text of prose_short", "at least 65", "max_length below"]),
    (texts("tags_long.conll", "max_length=12"),
     ["tags_long.conll line", "the limit is 12", "bad_rows=skip"]),
    (texts("asked_long.json", "tokenizer=word", "max_length=60"),
     ["question 5-0: its question has", "max_length raises it"]),
    # labels that do not align
    (texts("tags_lost.conll"), ["tags_lost.conll line", "1 column in 'to'", "its tag behind it"]),
    (texts("tags_strange.conll"), ["tags_strange.conll line", "'PLACE' is no tag"]),
    (texts("asked_elsewhere.json"), ["question 5-0", "is not at character", "answer_start"]),
    (texts("parallel"), ["train.de has 19 lines and train.en 20", "line 20 of train.en"]),
    # tokenizers, encoders and models that do not fit
    (texts("texts_fine.csv", "pretrained=encoder_few_rows"), ["embedding 20 rows", "trained with"]),
    (texts("texts_fine.csv", "pretrained=encoder_pad"), ["the pad token is 0 ([PAD])", "it is 3"]),
    (texts("tags_fine.conll", "pretrained=encoder_pad"), ["the pad token is 0 ([PAD])"]),
    (texts("texts_fine.csv", "pretrained=nowhere"), ["nowhere", "config.json"]),
    (texts("texts_fine.csv", "pretrained=encoder", "max_length=99"), ["max_length=99", "32"]),
    (texts("texts_fine.csv", "pretrained=encoder", "tokenizer=gone.json"), ["gone.json"]),
    (texts("texts_fine.csv", "tokenizer=bp"), ["tokenizer=bp", "bpe"]),
    (texts("texts_fine.csv", "tokenizer.vocab=0"), ["tokenizer.vocab=0"]),
    (texts("texts_fine.csv", "augment=[mixup]"), ["augment=mixup on texts"]),
    ([*texts("texts_fine.csv"), "--model", "resnet20"], ["'resnet20' reads no text", "textcnn"]),
    ([*texts("texts_fine.csv"), "--model", "gpt2"], ["'gpt2' writes tokens", "classify"]),
    ([*texts("tags_fine.conll"), "--model", "textcnn"], ["no head for the task tag", "bert"]),
    ([*texts("prose_fine.txt"), "--model", "bert"], ["'bert' does not go on", "gpt2"]),
    (texts("prose_fine.txt", "carry=true"), ["no state to carry", "--model lstm"]),
    ([*T, "--set", "carry=true"], ["carry=true", "--task generate"]),
    (["train", "prose_fine.txt", "--task", "masked", "--steps", "1", "--set", "augment=[flip]"],
     ["augment for running text", "leave augment out"]),
    # series
    (series("gap"), ["series_gap.csv row 31", "3 steps are missing", "bad_rows=fill"]),
    (series("twice"), ["series_twice.csv row 10", "as in row 9", "one row a date"]),
    (series("back"), ["series_back.csv row 11", "before the row above it", "sort"]),
    (series("short"), ["series_short", "need 15", "lookback="]),
    (series("hole"), ["series_hole.csv row 21", "'a' is missing", "bad_rows=skip"]),
    (series("word"), ["series_word.csv row 21", "'closed'", "schema.a=ignored"]),
    (series("no_date"), ["series_no_date.csv row 21", "'someday'", "--time-column"]),
    (series("zone"), ["series_zone.csv row 21", "with a time zone", "UTC"]),
    (series("whole", "--model", "mlp"), ["'mlp' does not forecast", "dlinear"]),
    (series("whole", "--target", "c"), ["'c'", "series_whole"]),
    (series("whole", "--set", "task.loss=l2"), ["l2", "mse"]),
    (series("whole", "--set", "model.kernel=4"), ["kernel", "odd"]),
    (series("whole", "--set", "augment=[mixup]"), ["mixup", "series"]),
    (["train", "series_whole.csv", "--target", "b", "--set", "horizon=5"], ["horizon", "forecast"]),
    (["train", "series_whole.csv", "--target", "b", "--set", "normalise=none"],
     ["normalise=none", "no pictures", "leave normalise out"]),
    (["train", "series_whole.csv", "--target", "b", "--set", "image_size=32"],
     ["image_size=32", "no pictures"]),
    (["train", "series_whole.csv", "--target", "b", "--set", "max_length=9"],
     ["max_length=9", "no texts", "leave max_length out"]),
    (["train", "series_whole.csv", "--target", "b", "--set", "tokenizer=bpe"],
     ["tokenizer=bpe", "no texts"]),
    (["train", "good.csv", "--target", "y", "--model", "dlinear"], ["dlinear", "--task forecast"]),
    # files of configuration
    (["train", "--config", "no.yaml"], ["no.yaml", "does not exist"]),
    (["train", "--config", "bad.yaml"], ["bad.yaml line 2"]),
    (["train", "--config", "unknown.yaml"], ["learning_rate", "unknown.yaml line 2"]),
    (["train", "--config", "range.yaml"], ["lr = -0.1", "range.yaml line 2"]),
    (["train", "--config", "list.yaml"], ["list.yaml line 1"]),
    (["train", "--config", "twice.yaml"], ["lr", "twice.yaml line 2"]),
    (["train", "--config", "two.yaml"], ["epochs", "steps"]),
    (["train", "--config", "empty"], ["empty", "folder"]),
    (["train", "--config", "binary.csv"], ["binary.csv"]),
    # data
    (["train", "good.cvs", "--target", "y"], ["good.cvs", "good.csv"]),
    (["train", "nowhere/good.csv"], ["nowhere"]),
    (["train", "digist"], ["digist", "digits"]),
    (["train", "good.csv", "--target", "yy"], ["yy", "y"]),
    ([*T, "--weight", "ww"], ["ww"]),
    ([*T, "--group", "gg"], ["gg"]),
    ([*T, "--time-column", "tt"], ["tt"]),
    (["train", "weights.csv", "--target", "y", "--weight", "w"], ["w", "-1"]),
    (["train", "word_weights.csv", "--target", "y", "--weight", "w"], ["w"]),
    (["train", "bad_split.csv", "--target", "y", "--set", "split_column=s"], ["other", "train"]),
    (["train", "one_class.csv", "--target", "y"], ["one class", "same"]),
    (["train", "nan_target.csv", "--target", "y"], ["y"]),
    (["train", "header_only.csv", "--target", "y"], ["header_only"]),
    (["train", "empty.csv", "--target", "y"], ["empty.csv"]),
    (["train", "ragged.csv", "--target", "y"], ["ragged.csv"]),
    (["train", "binary.csv", "--target", "y"], ["binary.csv"]),
    (["train", "broken.jsonl", "--target", "y"], ["broken.jsonl", "row 2"]),
    (["train", "broken.parquet", "--target", "y"], ["broken.parquet"]),
    (["train", "notes.xyz"], ["notes.xyz"]),
    (["train", "empty"], ["empty"]),
    (["train", "texts"], ["texts"]),
    (["train", "single"], ["only", "one class"]),
    (["train", "corrupt", "--steps", "1"], ["0.png"]),
    (["data", "nothing.csv"], ["nothing.csv"]),
    # run folders
    ([*T, "--out", "taken"], ["taken", "--out"]),
    ([*T, "--out", "run"], ["run", "gipi resume run"]),
    ([*T, "--out", "good.csv"], ["good.csv", "file"]),
    ([*T, "--out", "good.csv/run"], ["good.csv", "file"]),
    ([*T, "--out", "/proc/gipi-run"], ["/proc"]),
    (["resume", "rnu"], ["rnu"]),
    (["resume", "taken"], ["taken", "not a run"]),
    (["resume", "run", "--epochs", "1", "--steps", "2"], ["--epochs and --steps"]),
    (["evaluate", "nothing-here"], ["nothing-here"]),
    (["evaluate", "run", "--data", "no_b.csv"], ["b"]),
    (["evaluate", "run", "--data", "nan_target.csv"], ["y"]),
    (["evaluate", "run/model"], ["run/model", "--data"]),
    (["evaluate", "iris", "--weights", "weights.safetensors"], ["--model"]),
    (["evaluate", "iris", "--weights", "weights.safetensors", "--model", "mlp"],
     ["weights.safetensors"]),
    (["evaluate", "iris", "--weights", "gone.pt", "--model", "mlp"], ["gone.pt"]),
    (["report", "nothing-here"], ["nothing-here"]),
    (["predict", "run", "no_b.csv"], ["'b'"]),
    (["predict", "run", "gone.csv"], ["gone.csv"]),
    (["predict", "run", "good.csv", "--out", "p.xls"], ["p.xls", ".csv"]),
    (["predict", "run", "good.csv", "--out", "nowhere/p.csv"], ["nowhere"]),
]  # fmt: skip


def answer(args, capsys):
    began = time.perf_counter()
    code = main(args)
    assert time.perf_counter() - began < SECONDS
    return code, capsys.readouterr().err


@pytest.mark.parametrize(("args", "words"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_wrong_request(place, capsys, args, words):
    code, text = answer(args, capsys)
    assert code == 2, text
    assert "Traceback" not in text
    assert "defect" not in text
    lines = [line for line in text.splitlines() if line.strip()]
    start = next(i for i, line in enumerate(lines) if line.startswith("error: "))
    assert len(lines) - start < LINES, text
    assert "needed:" in text
    assert "do:" in text
    for word in words:
        assert word in text, text


def test_the_table_is_long_enough():
    assert len(WRONG) >= 60
    assert len({" ".join(a) for a, _ in WRONG}) == len(WRONG)


@pytest.mark.parametrize("args", [WRONG[0][0], WRONG[8][0], WRONG[60][0]])
def test_in_a_process_of_its_own(place, args):
    done = subprocess.run(
        [sys.executable, "-m", "gipi", *args, "--json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert set(json.loads(done.stdout.splitlines()[-1])["error"]) == {"found", "needed", "do"}
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_named(place, capsys, monkeypatch):
    """No space is left while the run writes: the request was right, the run failed."""
    from gipi.core import atomic

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    code, text = answer([*T, "--out", "full", "--quiet"], capsys)
    assert code == 1
    assert "disk is full" in text
    assert "Traceback" not in text


def test_a_folder_without_permission_is_named(place, capsys, monkeypatch):
    """As the administrator every folder may be written, so the system's answer is given by hand."""
    monkeypatch.setattr("gipi.cli.checks.os.access", lambda path, mode: False)
    code, text = answer([*T, "--out", "locked/run"], capsys)
    assert code == 2
    assert "no permission" in text
    assert "--out" in text


def test_labels_out_of_range_and_other_wrong_objects(place):
    x = np.zeros((20, 3), dtype=np.float32)
    wrong = [
        lambda: gipi.train((x, np.zeros(19))),
        lambda: gipi.train((x, np.full(20, np.nan))),
        lambda: gipi.train(None, model="mlpp"),
        lambda: gipi.train("digits", time="later"),
        lambda: gipi.train("digits", settings={"lrr": 1}),
        lambda: gipi.train("digits", epochs=1, steps=2),
        lambda: gipi.load("no-such-run"),
        lambda: gipi.open("good.csv", "nothing"),
        lambda: gipi.model("lenet", classes=3, image=(1, 28, 28)),
    ]
    for call in wrong:
        with pytest.raises(RequestError) as caught:
            call()
        assert len(str(caught.value).splitlines()) < LINES
        assert isinstance(caught.value, GipiError)
