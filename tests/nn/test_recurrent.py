"""Recurrent layers: equal to torch's, blind to padding, whole in pieces, well begun."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gipi.core.errors import ConfigError, ModelError
from gipi.nn import CELLS, Carried, Recurrent, detached

B, T, D, H = 5, 7, 3, 4
LENGTHS = torch.tensor([3, 7, 0, 1, 5])
NETS = list(itertools.product(CELLS, ("none", "layer"), (False, True)))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def net(cell="lstm", norm="none", both=False, layers=2, **more):
    return Recurrent(D, H, generator=generator(), cell=cell, norm=norm, bidirectional=both,
                     layers=layers, **more).double()  # fmt: skip


def theirs(ours, cell, both, layers, **more):
    """Return torch's stack with the weights of ours."""
    kind = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[cell]
    stack = kind(D, H, layers, batch_first=True, bidirectional=both, **more).double()
    with torch.no_grad():
        for name, p in stack.named_parameters():
            what, level = name.removesuffix("_reverse").rsplit("_l", 1)
            place = ours.levels[int(level)] if both else ours.levels[0]
            layer = place[int(name.endswith("_reverse"))]
            p.copy_(layer.get_parameter(f"{what}_l0" if both else f"{what}_l{level}"))
    return stack


# ------------------------------------------------------------------------ equal to torch


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_whole_rows_equal_torchs_stack(cell, both):
    ours = net(cell, both=both)
    x = rows(B, T, D)
    torch.testing.assert_close(ours(x), theirs(ours, cell, both, 2)(x)[0])


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_rows_of_unequal_length_equal_torchs_packed_ones(cell, both):
    ours = net(cell, both=both)
    lengths = LENGTHS.clamp(min=1)  # torch packs no empty rows
    x = rows(B, T, D)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    out, last = theirs(ours, cell, both, 2)(packed)
    found = ours(x, lengths)
    torch.testing.assert_close(found, pad_packed_sequence(out, batch_first=True)[0])
    h = last[0] if cell == "lstm" else last
    ends = torch.cat([h[-2], h[-1]], 1) if both else h[-1]
    torch.testing.assert_close(ours.ends(found, lengths), ends)
    if not both:
        out, state = ours.carry(x, ours.start(B, like=x), lengths_B=lengths)
        torch.testing.assert_close(out, found)
        torch.testing.assert_close(state.h.transpose(0, 1), h)
        if cell == "lstm":
            torch.testing.assert_close(state.c.transpose(0, 1), last[1])


def test_the_relu_cell_is_torchs():
    ours = net("rnn", activation="relu")
    x = rows(B, T, D)
    stack = theirs(ours, "rnn", False, 2, nonlinearity="relu")
    torch.testing.assert_close(ours(x), stack(x)[0])


# ------------------------------------------------------------------------ padding and rows


@pytest.mark.parametrize(("cell", "norm", "both"), NETS)
def test_a_row_is_the_same_alone_and_beside_others_and_0_behind_its_end(cell, norm, both):
    ours = net(cell, norm, both)
    x = rows(B, T, D)
    out = ours(x, LENGTHS)
    assert out.shape == (B, T, H * (1 + both))
    ends = ours.ends(out, LENGTHS)
    for i, length in enumerate(LENGTHS.tolist()):
        alone = ours(x[i : i + 1, :length])
        torch.testing.assert_close(out[i : i + 1, :length], alone)
        torch.testing.assert_close(ends[i : i + 1], ours.ends(alone))
        assert not out[i, length:].any()


@pytest.mark.parametrize("value", [1e3, float("nan")])
@pytest.mark.parametrize(("cell", "norm", "both"), NETS)
def test_padding_reaches_neither_outputs_nor_gradients(cell, norm, both, value):
    ours = net(cell, norm, both)
    x = rows(B, T, D)
    other = x.clone()
    for i, length in enumerate(LENGTHS.tolist()):
        other[i, length:] = value
    found = []
    for given in (x, other):
        ours.zero_grad()
        out = ours(given, LENGTHS)
        (out.square().sum() + ours.ends(out, LENGTHS).sum()).backward()
        found.append([out.detach(), *(p.grad.clone() for p in ours.parameters())])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)
    if not both:
        start = ours.start(B, like=x)
        a, b = (ours.carry(given, start, lengths_B=LENGTHS) for given in (x, other))
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1].h, b[1].h)
        assert torch.equal(a[1].c, b[1].c)


@pytest.mark.parametrize("both", [False, True])
def test_more_padding_changes_nothing(both):
    ours = net(both=both)
    x = rows(B, T, D)
    longer = torch.cat([x, rows(B, 3, D, seed=1)], 1)
    out = ours(longer, LENGTHS)
    torch.testing.assert_close(out[:, :T], ours(x, LENGTHS))
    assert out.shape[1] == T + 3


@pytest.mark.parametrize("both", [False, True])
def test_rows_in_another_order_give_the_same_in_that_order(both):
    ours = net("gru", both=both)
    x, order = rows(B, T, D), torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(ours(x[order], LENGTHS[order]), ours(x, LENGTHS)[order])


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("cell", CELLS)
def test_one_direction_sees_no_future_and_two_do(cell, norm):
    x = rows(B, T, D)
    later = x.clone()
    later[:, 4:] += 1
    one, two = net(cell, norm), net(cell, norm, True)
    assert torch.equal(one(x)[:, :4], one(later)[:, :4])
    assert not torch.equal(one(x)[:, 4:], one(later)[:, 4:])
    assert not torch.isclose(two(x)[:, :4], two(later)[:, :4]).all()


@pytest.mark.parametrize("both", [False, True])
def test_nothing_but_padding_and_no_steps_at_all(both):
    ours = net(both=both)
    empty = ours(rows(2, T, D), torch.zeros(2, dtype=torch.int64))
    assert empty.shape == (2, T, ours.width)
    assert not empty.any()
    assert not ours.ends(empty, torch.zeros(2, dtype=torch.int64)).any()
    assert ours(rows(2, 0, D)).shape == (2, 0, ours.width)
    assert ours(rows(2, 0, D), torch.zeros(2, dtype=torch.int64)).shape == (2, 0, ours.width)
    assert ours.ends(rows(2, 0, ours.width)).shape == (2, ours.width)


# ------------------------------------------------------------------------ carried state


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("cell", CELLS)
def test_pieces_with_a_carried_state_equal_one_long_pass(cell, norm):
    ours = net(cell, norm, layers=3)
    x = rows(B, T, D)
    state, outs = ours.start(B, like=x), []
    for piece in (x[:, :1], x[:, 1:1], x[:, 1:5], x[:, 5:]):
        out, state = ours.carry(piece, state)
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, 1), ours(x))
    assert state.h.shape == (B, 3, H)
    assert state.c.shape == (B, 3, H if cell == "lstm" else 0)


@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_runs_through_a_carried_state_and_ends_at_a_detached_one(cell):
    ours = net(cell)
    first = rows(B, 2, D).requires_grad_()
    second = rows(B, 2, D, seed=1)

    def slope(cut):
        state = ours.carry(first, ours.start(B, like=first))[1]
        out, _ = ours.carry(second, detached(state) if cut else state)
        return torch.autograd.grad(out.sum(), first, allow_unused=True)[0]

    assert slope(False).abs().sum() > 0
    assert slope(True) is None
    state = ours.carry(first, ours.start(B, like=first))[1]
    torch.testing.assert_close(detached(state), Carried(state.h, state.c))


def test_two_directions_carry_no_state():
    ours = net(both=True)
    with pytest.raises(ModelError, match=r"bidirectional=False") as found:
        ours.carry(rows(B, T, D), ours.start(B, like=rows(1)))
    assert "one direction" in found.value.needed


# ------------------------------------------------------------------------ the start, and options


@pytest.mark.parametrize(("cell", "norm", "both"), NETS)
def test_every_gate_starts_orthogonal_in_time_and_xavier_from_below(cell, norm, both):
    ours = Recurrent(48, 32, generator=generator(), cell=cell, norm=norm, bidirectional=both,
                     layers=2)  # fmt: skip
    gates = {"rnn": 1, "lstm": 4, "gru": 3}[cell]
    seen = 0
    for name, p in ours.named_parameters():
        if "weight_hh" in name:
            for gate in p.chunk(gates):
                torch.testing.assert_close(gate @ gate.T, torch.eye(32), atol=1e-5, rtol=0)
                seen += 1
        elif "weight_ih" in name:
            for gate in p.chunk(gates):
                bound = (6 / (32 + gate.shape[1])) ** 0.5
                assert 0.9 * bound < gate.abs().max() <= bound
        elif "bias_ih" in name and cell == "lstm":
            assert p.view(4, 32)[1].eq(1).all()
            assert not p.view(4, 32)[[0, 2, 3]].any()
        elif "bias" in name:
            assert not p.any()
    assert seen == gates * 2 * (1 + both)
    assert (
        len({p.detach()[0, 0].item() for n, p in ours.named_parameters() if "weight_hh" in n}) > 1
    )


def test_the_weights_are_a_function_of_the_generator():
    a, b = net().state_dict(), net().state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(("norm", "both"), [("none", False), ("none", True), ("layer", False)])
def test_dropout_acts_between_layers_in_training_only(norm, both):
    x = rows(B, T, D)
    ours = net(norm=norm, both=both, dropout=0.5)
    assert not torch.equal(ours(x), ours(x))
    ours.eval()
    assert torch.equal(ours(x), ours(x))
    single = net(norm=norm, both=both, dropout=0.5, layers=1)
    assert torch.equal(single(x), single(x))


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_is_the_slope(cell, both):
    ours = net(cell, both=both)
    x = rows(2, 4, D).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: ours(v, torch.tensor([4, 2])), (x,))


def test_half_precision_by_autocast():
    ours = net(both=True).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = ours(rows(B, T, D).float(), LENGTHS)
    out.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in ours.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [({"cell": "lstn"}, "'lstm'"), ({"norm": "batch"}, "one of none, layer"),
     ({"activation": "gelu", "cell": "rnn"}, "one of tanh, relu")],
)  # fmt: skip
def test_wrong_requests_are_named(options, words):
    with pytest.raises(ConfigError, match=words):
        Recurrent(2, 3, generator=generator(), **options)
