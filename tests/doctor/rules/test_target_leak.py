"""A column that is the target is found and, after a yes, held; a good feature is left alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.doctor.patients import (
    Recurrent,
    blobs,
    cnn,
    experiment,
    findings,
    halves,
    images,
    mlp,
    regression,
    seen,
    waves,
)
from torch import Tensor, nn

from gipi.doctor.facts import Facts
from gipi.doctor.rules.target_leak import RULE
from gipi.doctor.telling import QUANTILE, most_wrong, numbered, told_by_labels


def leaking(data, scale: float = 1.0, seed: int = 0):
    X = data[0].clone()
    noise = torch.randn(len(X), generator=torch.Generator().manual_seed(seed))
    X[:, 3] = scale * data[1].reshape(len(X)) + 0.02 * noise
    return X, data[1]


def test_a_column_made_of_the_target_is_named_held_and_undone() -> None:
    exp = experiment(mlp(), tuple(map(leaking, blobs(apart=0.7))), epochs=4)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.where) == ("target_leak", "problem", ("column 3",))
    assert diagnosis.repair() is None
    treatment = diagnosis.repair(apply=["target_leak"])
    assert treatment is not None
    assert treatment.undo() is exp


def flagged(data, wrong: float, seed: int = 0):
    X, y = data[0].clone(), data[1]
    other = torch.rand(len(y), generator=torch.Generator().manual_seed(seed)) < wrong
    X[:, 3] = torch.where(other, 1 - y, y).float()
    return X, y


def test_a_flag_that_is_wrong_now_and_then_is_found_and_a_good_feature_is_not() -> None:
    splits = blobs(classes=2, apart=0.4)
    exp = experiment(mlp(out=2), tuple(flagged(d, 0.005) for d in splits))
    assert seen(exp, RULE).findings[0].where == ("column 3",)
    exp = experiment(mlp(out=2), tuple(flagged(d, 0.05) for d in splits))
    assert findings(exp, RULE) == []


@pytest.mark.parametrize("where", [0, 1])
def test_an_amount_that_only_one_class_has_is_found_however_it_is_spread(where) -> None:
    def paid(data):
        X, y = data[0].clone(), data[1]
        X[:, 3] = torch.where(y == where, X[:, 3].exp(), 0.0) - 2.0
        return X, y

    exp = experiment(mlp(out=2), tuple(map(paid, blobs(rows=600, classes=2, apart=0.4))))
    first = seen(exp, RULE).findings[0]
    assert (first.where, first.severity) == (("column 3",), "problem")


@pytest.mark.parametrize(("gap", "found"), [(9.6, ["column 3"]), (3.5, ["column 3"]), (1.5, [])])
def test_a_column_of_two_stretches_is_found_and_one_that_parts_well_is_not(gap, found) -> None:
    def stretched(data):
        X, y = data[0].clone(), data[1]
        X[:, 3] += gap * (2.0 * y - 1)
        return X, y

    exp = experiment(mlp(out=2), tuple(map(stretched, blobs(rows=600, classes=2, apart=0.4))))
    said = [f for f in seen(exp, RULE).findings if f.code == "target_leak"]
    assert [f.where[0] for f in said] == found
    # What is measured may tell classes apart without an error too: a question, and no verdict.
    assert all(f.severity == "hint" and "the target itself" not in f.message for f in said)


@pytest.mark.parametrize(
    ("rare", "gap", "other", "found"),
    [
        (0.5, 6.0, 1.0, True),
        (0.08, 6.0, 1.0, True),
        (0.08, 3.0, 1.0, False),
        (0.5, 7.0, 4.0, False),
    ],
)  # fmt: skip
def test_stretches_of_rare_classes_are_found_and_those_of_easy_tasks_are_not(
    rare, gap, other, found
) -> None:
    g = torch.Generator().manual_seed(0)
    y = (torch.rand(1500, generator=g) < rare).long()
    X = torch.randn(1500, 6, generator=g)
    X[:, 0] += other * y
    X[:, 3] += gap * y
    X = (X - X.mean(0)) / X.std(0)
    said = RULE.before(Facts(experiment(mlp(6, 2), halves(X, y))))
    assert [(f.severity, f.where) for f in said] == [("hint", ("column 3",))] * found


def sure(rows: int, wrong: float, draws: int = 30) -> int:
    """Return in how many draws a mark that is wrong so often is called a problem."""
    count = 0
    for seed in range(draws):
        train, val = blobs(rows=rows, classes=2, apart=0.3, seed=seed)
        torch.manual_seed(seed)
        exp = experiment(mlp(out=2), (flagged(train, wrong, seed + 1000), val))
        count += any(f.confirmed and f.severity == "problem" for f in RULE.before(Facts(exp)))
    return count


@pytest.mark.parametrize("rows", [140, 250, 500])
def test_a_good_test_is_no_leak_because_few_rows_were_asked(rows) -> None:
    # A column that is never wrong among the rows is called one whatever it would be elsewhere.
    for wrong in (0.02, 0.03):
        never = (1 - wrong) ** int(0.6 * rows)
        assert sure(rows, wrong) <= 30 * never + 3 * (30 * never) ** 0.5 + 1


def test_marks_that_are_hardly_ever_wrong_are_a_leak_where_rows_are_many() -> None:
    assert sure(6000, 0.002, 6) == 6
    few = experiment(mlp(out=2), tuple(flagged(d, 0.012) for d in blobs(classes=2, apart=0.4)))
    assert [f.severity for f in seen(few, RULE).findings] in ([], ["hint"])


def test_the_bound_of_wrong_marks_is_where_so_few_would_be_rare() -> None:
    """At Wilson's bound q the share p that was seen is z standard errors away: sqrt(q(1-q)/n)."""
    label = torch.arange(100) % 2
    other = label.clone()
    other[:3] = 1 - other[:3]
    for marks, p in ((label, 0.0), (1 - label, 0.0), (other, 0.03)):
        q = most_wrong(marks.double(), label)
        assert q > p
        assert (q - p) ** 2 == pytest.approx(QUANTILE**2 * q * (1 - q) / 100)


def test_numbers_and_the_target_itself_are_found() -> None:
    noisy = tuple(leaking(d, 3.0) for d in regression(noise=1.0))
    assert findings(experiment(mlp(out=1), noisy), RULE) == ["target_leak"]
    X = torch.randn(300, 12, 1, generator=torch.Generator().manual_seed(0))
    exp = experiment(Recurrent(1, 1), halves(X, X[:, 11]))
    assert seen(exp, RULE).findings[0].where == ("column 0 at place 11",)


def test_a_pixel_and_a_last_place_are_found() -> None:
    spotted = []
    for X, y in images():
        marked = X.clone()
        marked[:, 0, 0, 0] = y / 4
        spotted.append((marked, y))
    exp = experiment(cnn(), tuple(spotted))
    assert seen(exp, RULE).findings[0].where == ("pixel 0 of channel 0",)
    ended = []
    for X, y in waves():
        marked = X.clone()
        marked[:, -1, 0] = y.float()
        ended.append((marked, y))
    exp = experiment(Recurrent(), tuple(ended))
    assert seen(exp, RULE).findings[0].where == ("column 0 at place 19",)


def test_what_is_to_be_remembered_is_no_leak() -> None:
    X = torch.randn(300, 12, 1, generator=torch.Generator().manual_seed(0))
    assert findings(experiment(Recurrent(1, 1), halves(X, X[:, 0])), RULE) == []


def test_easy_data_are_left_alone() -> None:
    for classes in (2, 4):
        assert findings(experiment(mlp(), blobs(classes=classes, apart=6.0)), RULE) == []
    assert findings(experiment(mlp(out=1), regression(noise=0.0)), RULE) == []
    walk = torch.randn(400, generator=torch.Generator().manual_seed(1)).cumsum(0)
    rows = halves(walk[:-1].unfold(0, 8, 1), walk[8:][:, None])
    assert findings(experiment(mlp(out=1), rows), RULE) == []


def test_a_label_that_renames_the_class_is_found_beside_numbers() -> None:
    rows = []
    for X, y in blobs(classes=3, apart=0.7):
        kind = torch.randint(0, 4, (len(y),), generator=torch.Generator().manual_seed(0))
        rows.append((X, torch.stack([kind, (y + 1) % 3], 1), y))

    class Mixed(nn.Module):
        def __init__(self, *, reads: bool) -> None:
            super().__init__()
            self.reads, self.of_numbers = reads, nn.Linear(rows[0][0].shape[1], 3)
            self.of_labels = nn.Embedding(4, 3)

        def forward(self, numbers: Tensor, labels: Tensor) -> Tensor:
            said: Tensor = self.of_numbers(numbers)
            return said + self.of_labels(labels).sum(1) if self.reads else said

    def streams(part: int) -> list[tuple[tuple[Tensor, Tensor], Tensor]]:
        X, labels, y = rows[part]
        cut = range(0, len(y), 20)
        return [((X[i : i + 20], labels[i : i + 20]), y[i : i + 20]) for i in cut]

    names = [f"n{i}" for i in range(rows[0][0].shape[1])] + ["kind", "status"]
    for reads in (True, False):
        exp = experiment(Mixed(reads=reads), (rows[0][:1] + rows[0][2:], rows[1][:1] + rows[1][2:]))
        exp.train, exp.val, exp.declared = streams(0), streams(1), {"columns": names}
        found = seen(exp, RULE).findings
        assert [f.where for f in found] == ([("status",)] if reads else [])


def test_what_labels_tell_is_told_by_the_other_rows_of_a_label() -> None:
    y = torch.randint(0, 3, (300,), generator=torch.Generator().manual_seed(0))
    Y = nn.functional.one_hot(y).double()
    assert told_by_labels(2 - y.double(), Y) == 1.0
    assert told_by_labels(torch.arange(300).double(), Y) < 0.01  # every row has its own


def test_columns_that_tell_each_other_do_not_hide_each_other() -> None:
    X, y = blobs(classes=3, apart=0.7)[0]
    kinds = torch.stack(
        [(y + 1) % 3, (2 * y + 5) % 7], 1
    ).float()  # a code and the name of the class
    both = halves(torch.cat([X, kinds], 1), y)
    found = seen(experiment(mlp(10, 3), both), RULE).findings
    assert [f.where for f in found] == [("column 8", "column 9")]
    X, t = regression(noise=1.0)[0]
    copies = torch.cat([X, t, (8 * t).round()], 1)
    found = seen(experiment(mlp(10, 1), halves(copies, t)), RULE).findings
    assert [f.where for f in found] == [("column 8", "column 9")]
    exp = experiment(mlp(10, 1), halves(copies, t), declared={"columns": [*"abcdefgh", "t", "r"]})
    (finding,) = seen(exp, RULE).findings
    assert finding.repairs[0].change is not None
    assert finding.repairs[0].change(exp) == "t, r are held at the mean within the model"


def beside(width: int, exact: bool = True):
    """Return rows of numbers, and a column of chance that may be taken off the target."""
    X, t = regression(rows=600, noise=1.0)[0]
    t = (t - t.mean()) / t.std()
    part = 2 * torch.randn(t.shape, generator=torch.Generator().manual_seed(width))
    return X, t, part, t - part if exact else torch.randn_like(t)


def test_columns_that_make_the_target_together_are_named_and_columns_beside_them_are_not() -> None:
    X, t, part, left = beside(0)
    found = seen(experiment(mlp(10, 1), halves(torch.cat([X, part, left], 1), t)), RULE).findings
    assert [(f.severity, set(f.where)) for f in found] == [("hint", {"column 8", "column 9"})]
    price = halves(torch.cat([X, part.exp(), left.exp()], 1), t.exp())
    found = seen(experiment(mlp(10, 1), price), RULE).findings
    assert [set(f.where) for f in found] == [{"column 8", "column 9"}]
    noise = torch.randn(t.shape, generator=torch.Generator().manual_seed(5))
    rows = halves(torch.cat([X, part, noise], 1), t)
    assert findings(experiment(mlp(10, 1), rows), RULE) == []


@pytest.mark.parametrize("two", [False, True])
def test_means_of_few_targets_are_found_where_the_own_one_is_among_them(two) -> None:
    X, t = regression(rows=900, noise=1.0)[0]
    t = (t - t.mean()) / t.std()
    y = (t > 0).float() if two else t
    group = torch.randint(0, len(t) // 2, (len(t),), generator=torch.Generator().manual_seed(1))
    for own in (True, False):
        told = y[:, 0] if own else y[torch.randperm(len(y), generator=torch.Generator()), 0]
        count = torch.bincount(group, minlength=len(t))
        mean = torch.zeros(len(t)).index_add_(0, group, told) / count.clamp_min(1)
        columns = torch.cat([X, mean[group][:, None]], 1)
        target = y[:, 0].long() if two else y
        exp = experiment(mlp(9, 2 if two else 1), halves(columns, target))
        assert findings(exp, RULE) == (["target_leak"] if own else [])


def test_a_stamp_on_one_class_of_several_is_asked_about() -> None:
    stamped = []
    g = torch.Generator().manual_seed(0)
    for X, y in images(rows=900):
        marked = X + torch.randn(X.shape, generator=g)
        marked[y == 1, :, -2:, -2:] = 4.0
        stamped.append((marked, y))
    (found,) = seen(experiment(cnn(), tuple(stamped)), RULE).findings
    assert (found.severity, len(found.where)) == ("hint", 4)


def test_a_word_that_names_the_class_is_found_and_words_that_make_it_are_not() -> None:
    g = torch.Generator().manual_seed(0)
    words = torch.randint(1, 40, (700, 12), generator=g)
    y = ((words < 14).sum(1) > (words > 26).sum(1)).long()
    named = words.clone()
    named[torch.arange(700), torch.randint(0, 12, (700,), generator=g)] = 40 + y

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.of, self.out = nn.Embedding(42, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            said: Tensor = self.out(self.of(x).mean(1))
            return said

    (found,) = seen(experiment(Bag(), halves(named, y)), RULE).findings
    assert (found.severity, set(found.where)) == ("problem", {"word 40", "word 41"})
    holds = (words == 7).any(1).long()  # one word is the question
    for x, t in ((words, y), (words, holds)):
        assert findings(experiment(Bag(), halves(x, t)), RULE) == []


def test_a_column_beside_pictures_of_a_loader_is_found() -> None:
    pictures, y = images()[0]
    beside = torch.randn(len(y), 3, generator=torch.Generator().manual_seed(0))
    beside[:, 1] = y.float()

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(y)

        def __getitem__(self, i: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
            return (pictures[i], beside[i]), y[i]

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(pictures[0].numel() + 3, 4)

        def forward(self, picture: Tensor, numbers: Tensor) -> Tensor:
            said: Tensor = self.out(torch.cat([picture.flatten(1), numbers], 1))
            return said

    exp = experiment(Both(), images())
    exp.train = exp.val = torch.utils.data.DataLoader(Rows(), 20)
    place = pictures[0].numel() + 1
    assert [f.where for f in seen(exp, RULE).findings] == [(f"column {place}",)]


def test_names_of_another_number_are_not_those_of_these_columns() -> None:
    exp = experiment(mlp(), tuple(map(leaking, blobs(apart=0.7))))
    exp.declared = {"columns": ["id", *"abcdefgh"]}  # one more than the net is given
    assert seen(exp, RULE).findings[0].where == ("column 3",)


def test_a_copy_of_the_target_that_was_bent_on_its_way_is_found() -> None:
    X, t = regression(noise=1.0)[0]
    bent = (2 * (t - t.mean()) / t.std()).exp()
    rows = halves(torch.cat([X, bent.log1p()], 1), bent)
    assert seen(experiment(mlp(9, 1), rows), RULE).findings[0].where == ("column 8",)


def rows_numbered(rows: int = 700, *, classes: int = 3, sort: bool = True, given: bool = True):
    """Return overlapping classes with a column: the row of each in a file, or as even a measure."""
    (X, y), (V, v) = blobs(rows, classes=classes, apart=0.5)
    X, y = torch.cat([X, V]), torch.cat([y, v])
    place = torch.empty(rows)
    order = y.argsort() if sort else torch.arange(rows)
    place[order] = torch.arange(float(rows))
    if not given:
        place = place + torch.rand(rows, generator=torch.Generator().manual_seed(1))
    X[:, 3] = (place - place.mean()) / place.std()
    return halves(X, y)


def test_the_row_of_a_file_that_was_sorted_by_class_is_found() -> None:
    for classes in (2, 3):
        (found,) = seen(experiment(mlp(out=classes), rows_numbered(classes=classes)), RULE).findings
        assert (found.severity, found.where) == ("problem", ("column 3",))
        assert "sorted by class" in found.message


def test_rows_of_a_file_in_another_order_and_measures_that_part_classes_are_no_leak() -> None:
    assert findings(experiment(mlp(out=3), rows_numbered(sort=False)), RULE) == []
    assert findings(experiment(mlp(out=2), rows_numbered(classes=2, given=False)), RULE) == []


@pytest.mark.parametrize(("rows", "kept"), [(1200, 1.0), (1200, 0.05), (4000, 0.3)])
def test_numbers_are_known_as_given_whatever_was_left_out_and_standardised(rows, kept) -> None:
    g = torch.Generator().manual_seed(0)
    there = torch.randperm(int(rows / kept), generator=g)[:rows].sort().values.float()
    y = (there > there.median()).long()
    x = torch.stack([(there - there.mean()) / there.std(), there + torch.rand(rows, generator=g)])
    told = numbered(x.T.double(), F.one_hot(y).double(), y)
    assert told.tolist() == [1.0, 0.0]
    measured = torch.randint(int(rows / kept), (rows,), generator=g).double()[:, None]
    label = (measured[:, 0] > measured.median()).long()
    assert numbered(measured, F.one_hot(label).double(), label).tolist() == [0.0]


def test_a_column_of_balanced_groups_knows_no_means() -> None:
    """Subjects who did every condition as often; shops whose numbers lack the mean of the shop."""
    g = torch.Generator().manual_seed(0)
    s = torch.arange(40).repeat_interleave(20).float()
    y = torch.tensor([0, 1]).repeat_interleave(10).repeat(40)
    X = torch.cat([s[:, None] / 20 - 1, torch.randn(800, 6, generator=g)], 1)
    X[:, 1:4] += 0.7 * y[:, None]
    mixed = torch.randperm(800, generator=g)
    X, y = X[mixed], y[mixed]
    assert findings(experiment(mlp(7, 2), ((X[:600], y[:600]), (X[600:], y[600:]))), RULE) == []
    t = X[:, 1] + 0.5 * torch.randn(800, generator=g)
    mean = torch.zeros(40).index_add_(0, s[mixed].long(), t) / 20
    t = (t - mean[s[mixed].long()])[:, None]
    assert findings(experiment(mlp(7, 1), ((X[:600], t[:600]), (X[600:], t[600:]))), RULE) == []
