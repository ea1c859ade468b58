"""The doctor's benchmark: enough cases of every kind, all built, healthy runs that learn."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from benchmarks.doctor.cases import CODES, FAULTS, ODDITIES, drawn, tuned
from benchmarks.doctor.run import plain_run, trained
from benchmarks.doctor.score import row_scores
from benchmarks.doctor.settings import FLOORS, SETTINGS
from benchmarks.doctor.setup import Case, build, experiment

from gipi.doctor.experiment import batches, take_step

CATALOGUE = {
    "augmentation_destroys_signal", "bad_init_scale", "bad_init_symmetric", "batch_mixing",
    "bn_batch_too_small", "bn_stats_mismatch", "catastrophic_forgetting", "causal_leak",
    "class_imbalance", "data_not_shuffled", "dead_relu", "double_sigmoid", "double_softmax",
    "dropout_too_high", "duplicate_rows", "eval_in_train_mode", "exploding_gradient",
    "frozen_layer", "grad_clip_too_small", "graph_detached", "label_noise", "labels_misaligned",
    "loss_broadcast", "loss_sign_flipped", "lr_decay_too_fast", "lr_too_high", "lr_too_low",
    "missing_nonlinearity", "missing_position", "missing_zero_grad", "nan_in_data", "nan_inf",
    "oscillating_loss", "overfit", "padding", "params_not_in_optimizer", "plateau",
    "preprocessing_mismatch",
    "saturated_activation", "sentinel_values", "sequence_too_short", "target_leak",
    "target_unscaled", "tokenizer_mismatch", "tokenizer_oov", "train_val_overlap",
    "train_val_shift", "underfit", "unnormalised_input", "unused_parameters",
    "vanishing_gradient", "weight_decay_on_norm_bias", "weight_decay_too_high", "wrong_loss",
    "wrong_mask", "wrong_output_activation",
}  # fmt: skip


def test_both_halves_are_large_enough_and_hold_every_code_twice() -> None:
    assert set(CODES) == CATALOGUE
    for half in (tuned(), drawn("0123abc")):
        sick, healthy = ([c for c in half if bool(c.truth) == ill] for ill in (True, False))
        assert len(sick) >= 60
        assert len(healthy) >= 60
        places = defaultdict(set)
        for case in sick:
            places[case.fault.code].add((case.fault.name, case.setting))
        assert {code: len(p) for code, p in places.items() if len(p) < 2} == {}
        assert set(places) == CATALOGUE
        assert len({c.name for c in half}) == len(half)


def test_names_are_unique_and_settings_exist() -> None:
    names = [f.name for f in (*FAULTS, *ODDITIES)]
    assert len(set(names)) == len(names)
    assert len([f for f in ODDITIES if f.name != "plain"]) >= 30
    assert all(name in SETTINGS for f in (*FAULTS, *ODDITIES) for name in f.on)
    assert set(FLOORS) == set(SETTINGS)
    assert all(set(f.also) <= CATALOGUE - {f.code} for f in FAULTS)


def test_a_half_is_drawn_by_its_hash_alone() -> None:
    names = [c.name for c in drawn("0123abc")]
    assert names == [c.name for c in drawn("0123abc+")]
    assert names != [c.name for c in drawn("0123abd")]


def test_a_draw_prefers_what_was_not_tuned_on() -> None:
    known = {(c.fault.name, c.setting) for c in tuned()}
    fresh = [c for c in drawn("0123abc") if c.truth and (c.fault.name, c.setting) not in known]
    assert len(fresh) >= 80


def test_a_case_is_the_same_every_time() -> None:
    case = next(c for c in tuned() if c.fault.name == "flipped")
    one, two = build(case, SETTINGS, 1), build(case, SETTINGS, 1)
    other = build(case, SETTINGS, 2)
    assert torch.equal(one.sick.train[1], two.sick.train[1])
    assert all(map(torch.equal, one.sick.model.state_dict().values(),
                   two.sick.model.state_dict().values()))  # fmt: skip
    assert not torch.equal(one.sick.train[1], other.sick.train[1])


def test_a_loader_that_shuffles_draws_the_same_order_in_every_run() -> None:
    fault = next(f for f in FAULTS if f.name == "overlap")
    built = build(Case("diabetes_mlp", fault, 0.5, "drawn", {"form": "loader"}), SETTINGS, 0)
    runs = [trained(exp, {}, "run")[0] for exp in (built.sick, built.healthy)]
    one, two = (row_scores(run, built.sick_test, built.kind) for run in runs)
    assert torch.equal(one, two)  # only validation rows differ


def test_no_held_out_row_is_trained_or_judged_on() -> None:
    for name, setting in SETTINGS.items():
        s = setting(0)
        if s.kind == "language" or name.startswith("moons"):
            continue  # windows of one chain may be equal by chance
        rows = {tuple(x.flatten().tolist()) for x in s.test[0]}
        for X, _ in (s.train, s.val):
            assert not rows & {tuple(x.flatten().tolist()) for x in X}, name


def steps_of(case: Case, count: int = 2) -> None:
    built = build(case, SETTINGS, 0)
    for exp, test in ((built.sick, built.sick_test), (built.healthy, built.healthy_test)):
        exp.model.train()
        for taken, (xb, yb) in enumerate(batches(exp, 0)):
            if taken == count:
                break
            take_step(exp, xb, yb)
        scores = row_scores(exp, test, built.kind)
        assert scores.shape == (len(test[1]),)
        assert bool(torch.isfinite(scores).all())


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_every_case_builds_steps_and_is_scored(part) -> None:
    for case in (tuned() + drawn("0123abc"))[part::4]:
        steps_of(case)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_setting_without_fault_learns(name) -> None:
    s = SETTINGS[name](0)
    exp = experiment(s)
    assert plain_run(exp)[1] == ""
    assert float(row_scores(exp, s.test, s.kind).mean()) >= FLOORS[name]


@pytest.mark.parametrize(
    ("vary", "seed"), [({"act": "tanh", "width": 0.75, "batch": 48, "rows": 0.8}, 0),
                       ({"act": "tanh"}, 2)],
)  # fmt: skip
def test_counts_far_from_zero_are_learned_by_nets_that_such_a_mean_would_drive_to_their_ends(
    vary, seed
) -> None:
    fault = next(f for f in ODDITIES if f.name == "counts_by_square")
    built = build(Case("spots_cnn", fault, 4.9, "drawn", vary), SETTINGS, seed)
    assert plain_run(built.sick)[1] == ""
    score = float(row_scores(built.sick, built.sick_test, built.kind).mean())
    assert score >= FLOORS["spots_cnn"]  # from outputs at 0 on: 0.3, and none at all


@pytest.mark.slow
@pytest.mark.parametrize("fault", [f for f in FAULTS if f.base or f.twin], ids=lambda f: f.name)
def test_a_twin_that_differs_from_its_setting_learns_too(fault) -> None:
    case = next(c for c in tuned() if c.fault.name == fault.name)
    built = build(case, SETTINGS, 0)
    untrained = float(row_scores(built.healthy, built.healthy_test, built.kind).mean())
    assert plain_run(built.healthy)[1] == ""
    trained = float(row_scores(built.healthy, built.healthy_test, built.kind).mean())
    assert trained > untrained + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in tuned() if not c.truth], ids=lambda c: c.name)
def test_a_healthy_run_that_looks_odd_learns(case) -> None:
    built = build(case, SETTINGS, 0)
    untrained = float(row_scores(built.sick, built.sick_test, built.kind).mean())
    assert plain_run(built.sick)[1] == ""
    trained = float(row_scores(built.sick, built.sick_test, built.kind).mean())
    assert trained > untrained + 0.1
