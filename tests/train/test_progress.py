import io

from gipi.core.events import Step
from gipi.train.progress import Progress, clock, count, line


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Hand:
    """A clock that is moved by hand."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


def row(step, **values):
    content = {"train/loss": 0.5, "train/accuracy": 0.9, "samples_per_s": 12_345.0,
               "data_wait": 0.01, "memory_bytes": 2**27, **values}  # fmt: skip
    return Step("row", step, 0, step / 100, content, total_steps=100, steps_per_epoch=20)


def test_the_line_says_everything():
    text = line(row(50), row(50).row, 75.0)
    for part in ("50%", "epoch 2.5/5", "step 50/100", "loss 0.5", "accuracy 0.9", "12.3k/s",
                 "wait 1%", "128 MB", "ETA 1:15"):  # fmt: skip
        assert part in text


def test_a_terminal_gets_one_line_that_is_rewritten_ten_times_a_second():
    hand, out = Hand(), Terminal()
    progress = Progress(out, now=hand)
    for step in range(1, 101):
        hand.time = step * 0.01  # a hundred rows a second
        assert progress(row(step)) is None
    progress(Step("end", 100, 5, 1.0, {}, total_steps=100, steps_per_epoch=20))
    text = out.getvalue()
    assert 9 <= text.count("\r") <= 12
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert "100%" in text.split("\r")[-1]


def test_elsewhere_plain_lines_come_now_and_then():
    hand, out = Hand(), io.StringIO()
    progress = Progress(out, now=hand)
    for step in range(1, 101):
        hand.time = step * 0.5
        progress(row(step))
        if step % 20 == 0:
            seen = {"val/loss": 0.4, "val/accuracy": 0.95}
            progress(Step("evaluate", step, 0, step / 100, seen, total_steps=100))
    lines = out.getvalue().splitlines()
    assert "\r" not in out.getvalue()
    assert 5 <= len(lines) <= 12
    assert any("val/accuracy 0.95" in text for text in lines)


def test_the_eta_is_what_is_left_at_the_pace_since_the_start():
    hand, out = Hand(), io.StringIO()
    progress = Progress(out, now=hand)
    progress(row(50))  # resumed in the middle
    hand.time = 20.0
    progress(row(75))
    assert "ETA 0:20" in out.getvalue()


def test_events_stand_on_lines_of_their_own():
    out = Terminal()
    progress = Progress(out, now=Hand())
    progress(row(1))
    progress(Step("row", 3, 0, 0.0, {"event": "stop", "reason": "patience is over"}))
    assert out.getvalue().endswith("step 3: stop: patience is over\n")


def test_units():
    assert (count(950), count(2.5e6), clock(75), clock(3700)) == ("950", "2.5M", "1:15", "1:01:40")


def test_the_scores_of_restored_weights_are_not_those_of_the_last_step():
    hand, out = Hand(), io.StringIO()
    progress = Progress(out, now=hand)
    seen = {"val/loss": 0.9, "val/accuracy": 0.5}
    progress(Step("evaluate", 100, 5, 1.0, seen, total_steps=100, steps_per_epoch=20))
    best = {"step": 100, "epoch": 5, "best_step": 60, "val/loss": 0.4, "val/accuracy": 0.8}
    progress(Step("end", 100, 5, 1.0, best, total_steps=100, steps_per_epoch=20))
    *_, last, restored = out.getvalue().splitlines()
    assert "val/accuracy 0.5" in last
    assert "0.8" not in last
    assert restored == "best weights of step 60, restored: val/loss 0.4  val/accuracy 0.8"
