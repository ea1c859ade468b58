"""The report: one file, nothing from outside, nothing executed, whatever the run folder holds."""

import copy
import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from tests.report.synthetic import classify_run, regress_run

from gipi.core import rundir
from gipi.core.atomic import read_folder, write_folder
from gipi.core.rows import Rows, read_rows
from gipi.report import summary_lines, write_report
from gipi.report.judged import duration, verdict
from gipi.report.page import render
from gipi.report.read import RunData, read_run

VOID = {"meta", "img", "br", "hr", "input", "link"}
SVG_VOID = {"line", "rect", "circle", "path"}


class Page(HTMLParser):
    """Reads a page and complains about tags that do not nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.text, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, k, v) for k, v in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, k, v) for k, v in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


def page(run, **more):
    path = write_report(run, **more)
    assert path == run / "report.html"
    return Page(path.read_text("utf-8"))


def nothing_from_outside(found):
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(found.tags)
    for tag, key, value in found.attributes:
        assert not key.startswith("on"), (tag, key)
        if key in {"src", "srcset", "data", "poster", "action", "background", "xlink:href"}:
            assert value.startswith("data:image/png;base64,"), value
        if key == "href":
            assert tag == "a"
            assert re.match(r"https?://|#", value), value
        if key == "style":
            assert "url" not in value


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "digits"
    return classify_run(run, broken=True)


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    return regress_run(tmp_path_factory.mktemp("runs") / "houses", loss="gaussian_nll")


# ---------------------------------------------------------------------------- content


def test_the_page_stands_alone(digits, houses):
    for run in (digits.run, houses.run):
        found = page(run)
        nothing_from_outside(found)
        text = (run / "report.html").read_text()
        assert "@import" not in text
        assert "url(" not in text
        assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text


def test_the_page_suits_phones_and_both_themes(digits):
    found = page(digits.run)
    assert ("meta", "content", "width=device-width, initial-scale=1") in found.attributes
    assert ("html", "lang", "en") in found.attributes
    text = (digits.run / "report.html").read_text()
    assert "prefers-color-scheme:dark" in text
    assert "@media (max-width:760px)" in text
    assert text.count('class="wide"') == text.count('class="narrow"') > 5
    charts = [v for tag, k, v in found.attributes if (tag, k) == ("svg", "aria-label")]
    assert len(charts) == 2 * text.count('class="wide"')


def test_a_classification_says_everything(digits):
    found = page(digits.run)
    summary = json.loads(read_folder(digits.run / "evaluation")["summary.json"])
    value = summary["primary"]["value"]
    assert f"{value:.1%}".replace("%", " %") in found.words
    for part in ("lenet5 trained on digits to predict digit", "95 % interval", "Wilson",
                 "How it learned", "validation", "confusion matrix", "calibration",
                 "Expected calibration error", "Worst-predicted rows", "photos/", "learning rate",
                 "gradient norm per layer", "update / weight per layer", "throughput",
                 "waiting for data", "skipped", "loss is nan in 2 of 128 rows",
                 "stratified by class", "2 exact duplicates", "--epochs", "defaults",
                 "label_smoothing", "recipe", "fp32 1 thread", "61,706", "12.4 s",
                 "Loshchilov and Hutter 2019", "CC BY 4.0", "a processor", "ab" * 32):  # fmt: skip
        assert part in found.words, part
    assert found.tags.count("img") == 12
    links = [v for tag, k, v in found.attributes if (tag, k) == ("a", "href")]
    assert "https://arxiv.org/abs/1711.05101" in links
    assert "https://doi.org/10.24432/C50P49" in links


def test_a_regression_says_everything(houses):
    found = page(houses.run)
    for part in ("RMSE on 500 test rows", "bootstrap", "predicted against true", "calibration",
                 "errors, true − predicted", "Share of rows inside the interval", "less than",
                 "always answering the mean", "city"):  # fmt: skip
        assert part in found.words, part
    assert "confusion matrix" not in found.words


def test_non_finite_losses_are_marked_not_hidden(digits):
    text = (digits.run / "report.html").read_text()
    assert text.count('class="lost"') == 4  # two values, drawn for two widths
    assert "2 non-finite values" in page(digits.run).words


def test_the_best_epoch_is_marked(digits):
    rows = read_rows(digits.run / "rows.jsonl")
    best = max((r["val/accuracy"], -r["step"]) for r in rows if "val/accuracy" in r)
    from gipi.report.curves import best_step

    step, value, key = best_step(read_run(digits.run))
    assert (value, -step, key) == (*best, "val/accuracy")
    assert ">best<" in (digits.run / "report.html").read_text()


def test_a_resumed_run_counts_each_step_once(tmp_path):
    run = classify_run(tmp_path / "r").run
    before = render(read_run(run))
    lines = (run / "rows.jsonl").read_text().splitlines()
    with Rows(run / "rows.jsonl") as rows:
        for line in lines[-40:]:
            rows.write(json.loads(line))
    assert render(read_run(run)) == before


# ---------------------------------------------------------------------------- without samples


@pytest.mark.parametrize("make", [classify_run, regress_run])
@pytest.mark.parametrize("when", ["training", "report"])
def test_no_samples_means_no_row(tmp_path, make, when):
    run = make(tmp_path / "r", samples=when == "report").run
    found = page(run, samples=when == "training")
    assert "img" not in found.tags
    assert "left out: this report holds no data rows" in found.words
    text = (run / "report.html").read_text()
    assert "photos/" not in text
    assert 'class="speck"' not in text
    assert 'class="sample"' not in text


# ---------------------------------------------------------------------------- hostile content

EVIL = "\"><script>alert(1)</script><img src=x onerror=alert(2)>&amp;'`{0}%s"


def poisoned(value):
    """Return `value` with every text in it replaced by an attack."""
    if isinstance(value, dict):
        return {k if k.isidentifier() else EVIL + k: poisoned(v) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(v) for v in value]
    return EVIL if isinstance(value, str) else value


def test_markup_in_names_stays_text(tmp_path):
    classes = (EVIL, "</svg><script>", *(f"<b>{i}" for i in range(8)))
    run = classify_run(tmp_path / "r", classes=classes, name=EVIL).run
    found = page(run)
    nothing_from_outside(found)
    assert "alert(1)" in found.words
    assert "b" not in {t for t in found.tags if t == "b"} or "<b>0" in found.words


@pytest.mark.parametrize("make", [classify_run, regress_run])
def test_an_attack_in_every_text_of_every_file_stays_text(tmp_path, make):
    run = make(tmp_path / EVIL.replace("/", "_")).run
    config, origins, about = rundir.read_config(run)
    rundir.write_config(run, poisoned(config), origins=poisoned(origins), about=poisoned(about))
    for name in ("setup.json", "result.json", "model/model.json"):
        path = run / name
        path.write_text(json.dumps(poisoned(json.loads(path.read_text()))))
    (run / "findings.json").write_text(json.dumps([
        EVIL, {"title": EVIL, "reason": EVIL, "severity": EVIL, "advice": EVIL},
    ]))  # fmt: skip
    with Rows(run / "rows.jsonl") as rows:
        rows.write({"step": 1, "event": EVIL, "reason": EVIL})
        rows.write({"step": 1, f"train/{EVIL}": 1.0, "layers": {EVIL: {"grad_norm": 1.0}}})
    files = read_folder(run / "evaluation")
    summary = poisoned(json.loads(files["summary.json"]))
    write_folder(run / "evaluation", {**files, "summary.json": json.dumps(summary).encode()})
    nothing_from_outside(page(run))


@pytest.mark.parametrize(
    "link", ["javascript:alert(1)", "data:text/html,x", 'https://x.org/"onload=alert(1)']
)
def test_only_web_addresses_become_links(link):
    run = RunData("r", about={"citations": [f"see {link} there"]})
    found = Page(render(run))
    nothing_from_outside(found)
    assert len([1 for tag, k, _ in found.attributes if (tag, k) == ("a", "href")]) <= 1


def test_a_picture_that_is_none_is_left_out(tmp_path):
    run = classify_run(tmp_path / "r").run
    files = read_folder(run / "evaluation")
    files["worst-00.png"] = b"<svg onload=alert(1)>"
    write_folder(run / "evaluation", files)
    assert page(run).tags.count("img") == 11


# ---------------------------------------------------------------------------- missing and damaged


def test_an_empty_folder_is_a_page(tmp_path):
    found = page(tmp_path)
    assert found.words.count("not recorded") >= 8
    assert "no recorded evaluation" in found.words


@pytest.mark.parametrize(
    ("task", "kept"),
    [("classify", {"answers", "rows"}), ("translate", {"rows"}), ("answer", {"rows"}),
     ("embed", set()), ("masked", set())],
)  # fmt: skip
def test_a_section_that_a_task_has_not_is_left_out(task, kept):
    text = render(RunData("r", evaluation={"task": task}))
    found = {"answers": "How it answers</h2>" in text, "rows": "Worst-predicted rows</h2>" in text}
    assert {name for name, there in found.items() if there} == kept


PARTS = ["config.yaml", "setup.json", "rows.jsonl", "result.json", "model/model.json",
         "evaluation/summary.json", "evaluation/arrays.npz", "evaluation/manifest.json",
         "findings.json"]  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00", b"[]", b"{}", b"3", b"[" * 99_999])
def test_any_part_may_be_missing_or_damaged(digits, tmp_path, part, content):
    run = shutil.copytree(digits.run, tmp_path / "r")
    (run / "rows.jsonl").write_bytes(
        b"\n".join((run / "rows.jsonl").read_bytes().split(b"\n")[:30])
    )
    if content is None:
        (run / part).unlink(missing_ok=True)
    else:
        (run / part).write_bytes(content)
    nothing_from_outside(page(run))


def test_damage_is_said(tmp_path):
    run = classify_run(tmp_path / "r").run
    (run / "setup.json").write_bytes(b"\xff")
    (run / "evaluation" / "arrays.npz").write_bytes(b"\xff")
    words = page(run).words
    assert "setup.json cannot be read" in words
    assert "arrays.npz is damaged" in words
    assert "score not recorded" in words


NONSENSE = [None, True, math.inf, "text", [], {"a": {"b": []}}, [{"a": 1}, None, "x", [1]]]


@pytest.fixture(scope="module")
def whole(digits):
    """The run of digits with few rows and no pictures: quick to draw."""
    run = read_run(digits.run)
    return replace(run, rows=[*run.rows[:30], run.rows[-1]], pictures={})


@pytest.mark.parametrize("value", NONSENSE, ids=repr)
def test_values_of_the_wrong_kind_do_no_harm(whole, value):
    for part in ("config", "about", "setup", "result", "model", "evaluation"):
        changed = copy.deepcopy(whole)
        for key in [*getattr(whole, part), "findings"]:
            getattr(changed, part)[key] = value
            if part == "evaluation":  # one at a time: they hide each other
                Page(render(changed))
                changed = copy.deepcopy(whole)
        Page(render(changed))
    for key in ("primary", "baseline", "calibration"):
        for inner in list(whole.evaluation[key]):
            changed = copy.deepcopy(whole)
            changed.evaluation[key][inner] = value
            Page(render(changed))
    changed = copy.deepcopy(whole)
    for row, key in zip(changed.rows[5:], list(whole.rows[5]), strict=False):
        row[key] = value
    Page(render(changed))


@pytest.mark.parametrize(
    "array",
    [np.zeros(3), np.zeros((2, 2)), np.zeros(0), np.array("x"), np.full((10, 10), np.nan)],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_arrays_of_the_wrong_shape_do_no_harm(whole, array):
    for name in ("confusion", "residual_counts", "residual_edges", "truth", "value"):
        changed = copy.deepcopy(whole)
        changed.arrays[name] = array
        Page(render(changed))


# ---------------------------------------------------------------------------- the verdict


def judged(name, value, low, high, base, *, greater):
    primary = {"name": name, "value": value, "low": low, "high": high, "greater_is_better": greater}
    rule = "always answering 'a'"
    return RunData("r", evaluation={"primary": primary, "baseline": {"metric": name, "value": base,
                                                                     "rule": rule}})  # fmt: skip


def test_the_verdict_compares_with_the_simplest_rule():
    good = verdict(judged("accuracy", 0.95, 0.93, 0.97, 0.5, greater=True))
    assert "95.0 % of unseen rows" in good
    assert "10 times fewer errors" in good
    chance = verdict(judged("accuracy", 0.55, 0.45, 0.65, 0.5, greater=True))
    assert "not shown to be better" in chance
    perfect = verdict(judged("accuracy", 1.0, 0.9, 1.0, 0.5, greater=True))
    assert "every row" in perfect
    small = verdict(judged("rmse", 2.0, 1.8, 2.2, 8.0, greater=False))
    assert "75 % less" in small
    useless = verdict(judged("rmse", 7.9, 7.0, 8.5, 8.0, greater=False))
    assert "not shown to be better" in useless
    worse = verdict(judged("nme", 0.72, 0.70, 0.74, 0.29, greater=False))
    assert "It is worse than always answering 'a': 72.0 % against 29.0 %" in worse
    below = verdict(judged("accuracy", 0.2, 0.1, 0.3, 0.5, greater=True))
    assert "It is worse than" in below


def test_the_terminal_gets_the_same_words(digits):
    lines = summary_lines(digits.run)
    assert lines[0] == "digits"
    assert "95 % interval" in lines[1]
    assert lines[2] in page(digits.run).words
    assert not any("<" in line for line in lines)


def test_hints_name_what_the_curves_show(tmp_path):
    def hints(train, val):
        rows = [{"step": i, "train/loss": t, "val/loss": v, "data_wait": 0.5}
                for i, (t, v) in enumerate(zip(train, val, strict=True), 1)]  # fmt: skip
        return Page(render(RunData("r", rows=rows))).words

    over = hints([1, 0.5, 0.2, 0.1, 0.05], [1, 0.6, 0.5, 0.7, 0.9])
    assert "learn the training rows by heart" in over
    assert "waited for data 50%" in over
    assert "still falling" in hints([1, 0.8, 0.6, 0.5], [1, 0.9, 0.7, 0.55])
    calm = hints([1, 0.5, 0.4, 0.4], [1, 0.5, 0.45, 0.45])
    assert "by heart" not in calm
    assert "still falling" not in calm


@pytest.mark.parametrize(
    "seconds, said", [(59.94, "59.9 s"), (59.99, "1 min 0 s"), (3599.9, "1 h 0 min")]
)
def test_durations_carry_over(seconds, said):
    assert duration(seconds) == said


def test_the_verdict_says_which_rows_were_judged():
    run = judged("accuracy", 0.95, 0.93, 0.97, 0.5, greater=True)
    run.evaluation["split"] = "train"
    assert "trained on" in verdict(run)
    assert "95.0 % of unseen" not in verdict(run)
    run.evaluation["split"] = "val"
    assert "also chose the best weights" in verdict(run)
    run.evaluation["split"] = "test"
    assert "chose" not in verdict(run)


def test_a_refused_run_is_said_to_be_refused():
    said = {"found": "a learning rate of 500", "needed": "less", "do": "--lr 0.1"}
    words = Page(render(RunData("r", about={"data": "wine"}, refusal=said))).words
    assert "This run was refused before its first step: a learning rate of 500" in words
    assert "What to do: --lr 0.1" in words
    assert "was to be trained on wine" in words
    assert "refused" not in Page(render(RunData("r", about={"data": "wine"}))).words
