"""What proves a repair, and what does not."""

from __future__ import annotations

import math

import torch
from tests.doctor.patients import blobs, experiment, mlp

from gipi.doctor import course
from gipi.doctor.copies import duplicate
from gipi.doctor.course import Course
from gipi.doctor.diagnose import Diagnosis, diagnose
from gipi.doctor.finding import CannotRepair, Finding, Measure, Repair
from gipi.doctor.play import play
from gipi.doctor.proof import Proof, compare, scores, side_by_side
from gipi.doctor.rates import times_lr
from gipi.doctor.rules.unused_parameters import RULE as UNUSED


def made(lr: float = 1e-4, rows: int = 600, **more):
    torch.manual_seed(0)
    return experiment(mlp(), blobs(rows), lr=lr, **more)


def found(*repairs: Repair, **more) -> Finding:
    return Finding("lr_too_low", "", "", confirmed=True, repairs=repairs, **more)


def test_a_gain_must_be_more_than_its_noise() -> None:
    assert Proof(-1.0, -0.5, 0.5, 0.1).holds("better")
    assert not Proof(-1.0, -0.9, 0.1, 0.1).holds("better")
    assert not Proof(-1.0, math.nan, math.nan, 0.1).holds("exact")
    assert Proof(math.nan, -0.5, math.nan, 0.1).holds("better")
    assert Proof(-1.0, -1.05, -0.05, 0.1).holds("not worse")
    assert not Proof(-1.0, -1.2, -0.2, 0.1).holds("not worse")


def test_losses_of_a_failed_run_may_be_wild_where_every_part_gains() -> None:
    assert Proof(-90.0, -0.5, 89.5, 60.0, won=4.0).holds("better")
    assert not Proof(-90.0, -0.5, 89.5, 60.0, won=2.0).holds("better")
    assert not Proof(-0.5, -90.0, -89.5, 60.0, won=4.0).holds("better")


def test_a_few_rows_that_were_lost_by_hundreds_prove_a_gain_and_one_does_not() -> None:
    """Their standard error is as large as the gain; hardly any choice of rows is without them."""
    rows, y = torch.arange(120), torch.zeros(120, dtype=torch.int64)

    def trained(*lost: float):
        outputs = torch.tensor([[4.0, 0.0]]).repeat(120, 1)
        for row, margin in enumerate(lost):
            outputs[20 * row] = torch.tensor([0.0, margin])
        model = torch.nn.Embedding.from_pretrained(outputs, freeze=False)
        return experiment(model, ((rows, y), (rows, y)))

    for lost, proven in (((800.0,), False), ((60.0, 100.0, 150.0, 200.0, 800.0), True)):
        proof = compare(trained(*lost), trained())
        assert 0 < proof.gain < 2 * proof.se
        assert proof.holds("better") == proven
        assert not compare(trained(), trained(*lost)).holds("better")


def test_the_same_run_gains_nothing_over_itself() -> None:
    one, two = made(), made()
    play(one), play(two)
    proof = compare(one, two)
    assert (proof.gain, proof.won) == (0.0, -math.sqrt(20))
    assert not proof.holds("better")


def test_of_options_one_whose_loss_is_no_number_is_none_where_another_has_one() -> None:
    one, two = made(), made()
    two.loss = lambda said, y: one.loss(said, y) * math.nan
    whole, broken = side_by_side(one, two)
    assert math.isfinite(whole)
    assert math.isnan(broken)
    assert all(math.isfinite(v) for v in side_by_side(two, two))  # by their share of right classes


def test_few_rows_have_noise_too() -> None:
    one, two = made(rows=40), made(rows=40)
    play(one), play(two, steps=5)
    assert compare(one, two).se > 0


def test_a_change_that_is_no_better_is_rolled_back() -> None:
    exp = made(0.01)
    diagnosis = Diagnosis(exp, [found(Repair("slower", times_lr(0.01)))])
    assert diagnosis.repair() is None
    assert "no repair proved better" in diagnosis.why_not
    assert exp.optimizer.param_groups[0]["lr"] == 0.01


def test_the_option_that_does_best_in_short_is_run_first() -> None:
    exp = made(1e-5)
    repairs = [Repair(f"x {f}", times_lr(f)) for f in (2.0, 1000.0)]
    treatment = Diagnosis(exp, [found(*repairs)]).repair()
    assert treatment is not None
    assert treatment.experiment.optimizer.param_groups[0]["lr"] == 0.01
    assert treatment.passes <= 2.5 * exp.total_steps


def test_the_run_as_it_was_is_trained_to_its_end_and_stays_with_the_diagnosis() -> None:
    """It is what others compare with, and what a second treatment begins with."""

    def never(_):
        message = "it does not fit"
        raise CannotRepair(message)

    for repair, mended in (
        (Repair("x 1000", times_lr(1000.0)), True),
        (Repair("no", never), False),
    ):
        diagnosis = Diagnosis(made(1e-5), [found(repair)])
        treatment = diagnosis.repair()
        assert (treatment is not None) == mended
        assert diagnosis.trace is not None
        assert diagnosis.trained is not None
        assert diagnosis.trace.done == 1
        assert treatment is None or treatment.before == scores(diagnosis.trained)


def test_a_change_that_is_ahead_at_half_of_a_long_warm_up_and_worse_at_its_end_is_not_kept() -> (
    None
):
    exp = made(0.01, 900, epochs=20)
    n = exp.total_steps
    exp.scheduler = torch.optim.lr_scheduler.LambdaLR(
        exp.optimizer, lambda i: min(1.0, (i / n / 0.8) ** 10) + 1e-7
    )
    exp.scheduler_every = "step"

    def low(now) -> str:
        now.scheduler = None
        for group in now.optimizer.param_groups:
            group["lr"] = 5e-4
        return "a rate of 0.0005 throughout"

    diagnosis = Diagnosis(exp, [found(Repair("no warm-up", low))])
    assert diagnosis.repair() is None
    assert "no repair proved better" in diagnosis.why_not


def test_an_option_that_does_not_fit_is_passed_over_and_named() -> None:
    def never(_):
        message = "it does not fit"
        raise CannotRepair(message)

    treatment = Diagnosis(
        made(1e-5), [found(Repair("no", never), Repair("yes", times_lr(1000.0)))]
    ).repair()
    assert treatment is not None
    assert treatment.rejected == ["no: it does not fit"]


def test_of_late_findings_the_best_option_is_kept() -> None:
    repairs = [Repair(f"x {f}", times_lr(f)) for f in (30.0, 1000.0)]
    treatment = Diagnosis(made(1e-5), [found(*repairs, phase="epoch")]).repair(budget=4)
    assert treatment is not None
    assert treatment.experiment.optimizer.param_groups[0]["lr"] == 0.01


def test_a_copy_of_an_optimizer_keeps_what_it_has_beside_its_state() -> None:
    exp = made()
    exp.optimizer = torch.optim.LBFGS(exp.model.parameters(), lr=0.5, max_iter=4)

    def step(now, xb, yb):
        def closure():
            now.optimizer.zero_grad()
            loss = now.loss(now.model(xb), yb)
            loss.backward()
            return loss

        return now.optimizer.step(closure).detach()

    exp.step, exp.epochs, exp.batch_size = step, 5, 4096
    twin = duplicate(exp)
    trace = play(twin)
    assert trace.losses[-1] < trace.losses[0]
    assert not torch.equal(twin.model[0].weight, exp.model[0].weight)


class Forgetful(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.extra = mlp(), torch.nn.Linear(8, 8)

    def forward(self, x):
        return self.net(x)


def test_an_exact_repair_after_which_the_fault_is_there_is_rolled_back() -> None:
    exp = experiment(Forgetful(), blobs(), epochs=3)
    diagnosis = diagnose(exp, train=False, rules=(UNUSED,))
    (finding,) = diagnosis.problems
    idle = Repair("nothing", lambda _: "did nothing", proof="exact")
    sick = Diagnosis(exp, [finding.but(repairs=(idle,))])
    assert sick.repair() is None
    assert "unused_parameters is still there" in sick.why_not
    treatment = diagnosis.repair(apply=["unused_parameters"])
    assert treatment is not None
    assert treatment.grounds[0].endswith("unused_parameters is gone")


def test_one_exact_repair_that_does_not_fit_leaves_the_others() -> None:
    def never(_):
        message = "it does not fit"
        raise CannotRepair(message)

    exp = experiment(Forgetful(), blobs(), epochs=3)
    diagnosis = diagnose(exp, train=False, rules=(UNUSED,))
    second = (Repair("no", never, proof="exact"), Repair("rate", times_lr(1.0), proof="not worse"))
    diagnosis.findings.append(found(*second))
    treatment = diagnosis.repair(budget=4, apply=["unused_parameters"])
    assert treatment is not None
    assert treatment.cured == ["unused_parameters", "lr_too_low"]
    assert treatment.rejected == ["no: it does not fit"]


def test_a_repair_may_be_judged_by_another_measure() -> None:
    measure = Measure("margin", lambda said, y: float(said.gather(1, y[:, None]).mean()))
    louder = Repair("lr x 1", times_lr(1.0), proof="not worse", measure=measure)
    treatment = Diagnosis(made(0.01, epochs=2), [found(louder)]).repair()
    assert treatment is not None
    assert ": margin " in treatment.grounds[0]


def zeros(*, freeze: bool = False, cut: bool = False, any_order: bool = False):
    torch.manual_seed(0)
    exp = experiment(Cut() if cut else mlp(), blobs(), epochs=6)
    for p in exp.model.parameters():
        torch.nn.init.zeros_(p)
    if freeze:
        exp.model[0].requires_grad_(requires_grad=False)
    if any_order:
        exp.train, exp.val = ((X, y[torch.randperm(len(y))]) for X, y in (exp.train, exp.val))
    return exp


class Cut(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x):
        return self.net[2](self.net[:2](x).detach())


def test_what_an_exact_repair_uncovers_is_mended_with_it() -> None:
    """No gradient tells that a layer is frozen while the loss does not depend on it."""
    diagnosis = diagnose(zeros(freeze=True))
    assert [f.code for f in diagnosis.problems if not f.parents] == ["bad_init_symmetric"]
    treatment = diagnosis.repair()
    assert treatment is not None
    assert set(treatment.cured) == {"bad_init_symmetric", "frozen_layer"}
    assert (treatment.partly, treatment.unlearnt) == ({}, "")
    assert treatment.proof.holds("better")
    assert treatment.passes <= 6 * diagnosis.experiment.total_steps


def uncovering(monkeypatch, *more: Repair):
    """Return a diagnosis of a net of zeros whose mended start shows some more findings."""
    found_ = [Finding(f"other_{i}", "", "", confirmed=True, repairs=(r,), where=(str(i),))
              for i, r in enumerate(more)]  # fmt: skip
    rounds = iter([found_])
    monkeypatch.setattr(course, "anew", lambda _: (next(rounds, []), 0))
    return diagnose(zeros(), train=False)


def test_what_is_uncovered_is_held_against_the_exact_repairs_alone(monkeypatch) -> None:
    treatment = uncovering(monkeypatch, Repair("slower", times_lr(0.2))).repair()
    assert treatment is not None
    assert treatment.cured == ["bad_init_symmetric"]
    assert len(treatment.changes) == len(treatment.grounds) == 1
    (tried,) = treatment.rejected
    assert "(-" in tried  # worse than without, though better by far than the run as it was


def test_exact_repairs_that_are_uncovered_need_no_gain(monkeypatch) -> None:
    idle = Repair("as it is", lambda _: "as it is", proof="exact")
    treatment = uncovering(monkeypatch, idle).repair()
    assert treatment is not None
    assert treatment.cured == ["bad_init_symmetric", "other_0"]


def test_a_round_of_uncovered_repairs_that_do_not_fit_is_taken_back_whole(monkeypatch) -> None:
    def unfit(_) -> str:
        raise CannotRepair("it does not fit")

    more = [Repair("unfit", unfit), Repair("idle", lambda _: "idle")]
    diagnosis = uncovering(monkeypatch, *more)
    exact = [(f, f.repairs[0]) for f in diagnosis.problems]
    assert Course(diagnosis.experiment, exact, 0).hidden(exact, ()) == []


def test_who_takes_a_treatment_back_has_nothing_left_of_it() -> None:
    treatment = diagnose(zeros(cut=True, any_order=True), train=False).repair()
    assert treatment is not None
    assert treatment.unlearnt
    assert treatment.remains
    treatment.undo()
    left = (treatment.changes, treatment.partly, treatment.remains, treatment.grounds)
    assert (*left, treatment.unlearnt) == ([], {}, [], [], "")


def test_a_treated_run_that_learned_nothing_is_not_called_cured() -> None:
    treatment = diagnose(zeros(any_order=True), train=False).repair()
    assert treatment is not None
    assert treatment.cured == []
    assert treatment.partly["bad_init_symmetric"].startswith("it is gone, and the run learns")
    assert "not learned: the repaired run is not shown to tell rows better" in str(treatment)
    assert repr(treatment).startswith("<Treatment: cured nothing, in part bad_init_symmetric;")


def test_what_is_still_wrong_with_a_run_that_learned_nothing_is_named() -> None:
    treatment = diagnose(zeros(cut=True, any_order=True), train=False).repair()
    assert treatment is not None
    assert treatment.unlearnt
    assert [f.code for f in treatment.remains] == ["graph_detached"]  # it is repaired after a yes
    assert "now found: graph_detached: the loss depends on 2 parameters" in str(treatment)


def test_a_finding_says_itself_what_of_its_harm_is_left() -> None:
    for whole in (True, False):
        finding = found(
            Repair("x 1000", times_lr(1000.0)),
            restored=lambda _new, _old, whole=whole: (whole, "7 of 10 are left"),
        )
        treatment = Diagnosis(made(1e-5), [finding]).repair()
        assert treatment is not None
        assert treatment.cured == ["lr_too_low"] * whole
        assert ("in part: lr_too_low: 7 of 10 are left" in str(treatment)) != whole
        assert treatment.grounds[0].endswith("lr_too_low in part: 7 of 10 are left") != whole


def test_not_worse_is_no_cure_while_the_fault_is_there() -> None:
    exp = experiment(mlp(), blobs(), epochs=3)
    for p in exp.model[0].parameters():
        p.requires_grad_(requires_grad=False)
    diagnosis = diagnose(exp, train=False)
    (finding,) = (f for f in diagnosis.problems if f.code == "frozen_layer")
    idle = Repair("nothing", lambda _: "did nothing", proof="not worse")
    treatment = Diagnosis(exp, [finding.but(repairs=(idle,))]).repair()
    assert treatment is not None
    assert (treatment.cured, list(treatment.partly)) == ([], ["frozen_layer"])
    whole = diagnosis.repair()
    assert whole is not None
    assert (whole.cured, whole.partly) == (["frozen_layer"], {})


def test_scores_are_printed_with_their_own_difference() -> None:
    assert str(Proof(-1.0, -0.5, 0.5, 0.1)) == "-1 -> -0.5 (+0.5, standard error 0.1)"
    said = str(Proof(-1.0, -0.5, 0.8, 0.1))
    assert said == ("-1 -> -0.5 (+0.5, on average over parts of the rows +0.8, standard error 0.1)")
