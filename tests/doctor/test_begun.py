"""A run that goes on from a short training is the run that would have been made from the start."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import blobs, experiment, mlp
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gipi.doctor import course, treat
from gipi.doctor import play as playing
from gipi.doctor.begun import beginning, goes_on
from gipi.doctor.copies import duplicate
from gipi.doctor.diagnose import Diagnosis, diagnose
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.order import ascending, quantiles
from gipi.doctor.play import play
from gipi.doctor.probes import after_steps, compared
from gipi.doctor.rates import times_lr
from gipi.doctor.schedules import cosine


def dropping(**more):
    """Return a run whose batches, dropout, augmentation and schedule all draw or count."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 4), nn.BatchNorm1d(4)
    )
    exp = experiment(model, blobs(300), lr=0.01, epochs=6, **more)
    exp.transform = lambda xb: xb + 0.1 * torch.randn_like(xb)
    return exp


def weights(exp) -> torch.Tensor:
    return torch.cat([t.double().flatten() for t in exp.model.state_dict().values()])


@pytest.mark.parametrize("steps", [1, 6, 12, 17])
@pytest.mark.parametrize("each", ["step", "epoch"])
def test_in_two_parts_a_run_is_bit_for_bit_what_it_is_at_once(steps: int, each: str) -> None:
    exp = dropping()
    exp.scheduler = torch.optim.lr_scheduler.ExponentialLR(exp.optimizer, 0.9)
    exp.scheduler_every = each
    change = times_lr(0.5)
    whole = duplicate(exp)
    change(whole)
    trace = play(whole, quiet=True)

    exp.begun = []
    after_steps(exp, steps, change=change)
    twin = duplicate(exp)
    change(twin)
    since = beginning(exp, twin, change)
    assert since is not None
    assert not exp.begun  # whoever gets it trains it on
    assert len(since.losses) == steps
    rest = play(since.exp, quiet=True, brief=True, since=since)
    assert rest.losses == trace.losses
    assert rest.rates == trace.rates
    assert rest.start == trace.start
    assert torch.equal(weights(since.exp), weights(whole))


class Noisy(nn.Module):
    """Draws and counts in evaluation too, as a variational net does."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.net(x + 0.1 * torch.randn_like(x) / (1 + 0.01 * self.calls))


def test_a_net_that_draws_in_evaluation_is_trained_alike_however_often_it_is_judged() -> None:
    torch.manual_seed(0)
    exp = experiment(Noisy(), blobs(300), epochs=6)
    whole, brief, watched = (duplicate(exp) for _ in range(3))
    trace = play(whole, quiet=True)
    assert play(brief, quiet=True, brief=True).losses == trace.losses
    asked = play(watched, check=lambda _: bool(torch.rand(()) > 2))
    assert asked.losses == trace.losses
    exp.begun = []
    assert after_steps(exp, 11)[0] == trace.losses[:11]
    since = beginning(exp, duplicate(exp), None)
    assert since is not None
    assert play(since.exp, quiet=True, brief=True, since=since).losses == trace.losses
    for other in (brief, watched, since.exp):
        assert torch.equal(weights(other), weights(whole))


def test_a_short_training_as_long_as_the_run_is_judged_and_a_longer_one_is_no_beginning() -> None:
    exp = dropping()
    total = exp.total_steps
    trace = play(whole := duplicate(exp), quiet=True, brief=True)
    exp.begun = []
    after_steps(exp, total)
    since = beginning(exp, duplicate(exp), None)
    assert since is not None
    rest = play(since.exp, quiet=True, brief=True, since=since)
    assert (rest.losses, rest.epochs, rest.start) == (trace.losses, trace.epochs, trace.start)
    assert torch.equal(weights(since.exp), weights(whole))
    after_steps(exp, total + 1)
    assert beginning(exp, duplicate(exp), None) is None


def test_in_a_run_shorter_than_a_trial_a_change_that_does_nothing_gains_nothing() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(250), epochs=1)
    assert exp.total_steps < course.LEAST
    idle = tuple(Repair(name, lambda _, name=name: name) for name in ("one", "two"))
    diagnosis = Diagnosis(exp, [Finding("lr_too_low", "", "", confirmed=True, repairs=idle)])
    assert diagnosis.repair() is None
    assert len(diagnosis.trace.losses) == exp.total_steps
    assert "(+0, standard error 0)" in diagnosis.why_not


def test_a_longer_short_training_goes_on_from_a_shorter_one() -> None:
    exp = dropping()
    losses, twin = after_steps(exp, 15)
    exp.begun = []
    after_steps(exp, 7)
    again, other = after_steps(exp, 15)
    assert again == losses
    assert torch.equal(weights(other), weights(twin))
    assert [len(b.losses) for b in exp.begun] == [15]


def test_what_was_changed_since_or_is_another_change_is_begun_anew() -> None:
    exp = dropping()
    exp.begun = []
    after_steps(exp, 5)
    assert beginning(exp, duplicate(exp), times_lr(1.0)) is None
    with torch.no_grad():
        next(exp.model.parameters()).mul_(1.01)
    assert beginning(exp, duplicate(exp), None) is None


def test_where_more_than_weights_is_carried_on_every_run_is_made_whole() -> None:
    train, val = blobs(300)
    loader = DataLoader(TensorDataset(*train), 32, shuffle=True)
    assert goes_on(experiment(mlp(), (train, val)))
    for exp in (
        experiment(mlp(), (loader, val)),
        experiment(mlp(), (train, val), step=lambda exp, xb, yb: torch.zeros(())),
        experiment(mlp(), (train, val), evaluate=lambda model, X: model(X)),
        experiment(mlp(), (train, val), keep_best=True),
    ):
        assert not goes_on(exp)


def test_a_diagnosis_keeps_nothing_on_the_experiment() -> None:
    exp = dropping()
    diagnose(exp)
    assert exp.begun is None


def test_a_repair_goes_on_from_what_confirmed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dead units: both sides of the counter-experiment are the beginnings of both whole runs."""
    torch.manual_seed(0)
    model = mlp()
    with torch.no_grad():
        model[0].bias.fill_(-30.0)
    exp = experiment(model, blobs(600), lr=0.01, epochs=8)
    taken: list[int] = []
    real = playing.take_step

    def counted(*given):
        taken.append(1)
        return real(*given)

    monkeypatch.setattr(playing, "take_step", counted)
    diagnosis = diagnose(exp)
    assert [f.code for f in diagnosis.findings] == ["dead_relu"]
    assert len(diagnosis.begun) == 2
    known = sum(len(b.losses) for b in diagnosis.begun)
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.passes == len(taken) == 2 * exp.total_steps - known
    assert exp.begun is None

    for module in (course, treat):
        monkeypatch.setattr(module, "beginning", lambda *_: None)
    anew = diagnose(exp).repair()
    assert anew is not None
    assert torch.equal(weights(anew.experiment), weights(treatment.experiment))
    assert anew.proof == treatment.proof
    assert (anew.changes, anew.grounds) == (treatment.changes, treatment.grounds)


def test_the_option_that_wins_in_short_is_not_trained_again_from_its_first_step() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(600), lr=1e-4, epochs=10)
    repairs = tuple(Repair(f"x {f}", times_lr(f)) for f in (10.0, 100.0))
    finding = Finding("lr_too_low", "", "", confirmed=True, repairs=repairs)
    diagnosis = Diagnosis(exp, [finding], trained=(twin := duplicate(exp)), trace=play(twin))
    treatment = diagnosis.repair()
    assert treatment is not None
    short = max(course.LEAST, round(course.TRIAL * exp.total_steps))
    assert treatment.passes == exp.total_steps + short


def test_where_it_is_known_how_the_run_went_its_beginning_is_not_trained() -> None:
    exp = dropping()
    losses, _ = after_steps(exp, 20)
    changes = {"own": None, "cosine": cosine(0.01)}
    trained, known = (compared(exp, changes, steps=12, own=own) for own in (None, [*losses, 0.5]))
    assert known.tails == trained.tails
    assert known.firsts == trained.firsts
    assert "own" not in known.twins
    assert "own" in compared(exp, changes, steps=12, own=losses[:5]).twins


def test_a_brief_run_judges_its_start_and_its_end() -> None:
    exp = experiment(mlp(), blobs(300), epochs=6)
    one, two = (play(duplicate(exp), quiet=True, brief=brief) for brief in (False, True))
    assert one.losses == two.losses
    assert one.start == two.start
    assert len(one.epochs) == 6
    assert [row["step"] for row in two.epochs] == [exp.total_steps]
    assert two.epochs[-1]["val"] == one.epochs[-1]["val"]
    exp.keep_best = True
    assert len(play(duplicate(exp), quiet=True, brief=True).epochs) == 6


def test_numbers_in_order_are_those_of_torch() -> None:
    g = torch.Generator().manual_seed(0)
    at = torch.tensor([0.005, 0.25, 0.5, 0.995], dtype=torch.float64)
    for dtype in (torch.float32, torch.float64, torch.int64):
        rows = (10 * torch.randn(5, 400, generator=g)).to(dtype)
        assert torch.equal(ascending(rows), rows.sort(-1).values)
    rows = torch.randn(6, 300, generator=g, dtype=torch.float64).round(decimals=1)
    rows[torch.rand(rows.shape, generator=g) < 0.3] = torch.nan
    rows[0] = torch.nan
    found, wanted = quantiles(rows, at), torch.nanquantile(rows, at, dim=1)
    assert torch.equal(found.nan_to_num(nan=-9.0), wanted.nan_to_num(nan=-9.0))
