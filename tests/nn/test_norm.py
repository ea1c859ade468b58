"""Norms: over what they take their statistics, whether rows meet, and the papers' formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gipi.core.errors import ModelError, UnknownName
from gipi.nn import NORMS, RowRMSNorm, mixes_rows, norm
from gipi.optim import parameter_groups

C, GROUPS = 12, {0: 2, 1: 4, 2: 4, 3: 4}
MAPS_ONLY = ("instance", "lrn")


def picture(dims, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(6, C, *([4] * dims), generator=generator, dtype=torch.float64) + 2


def cases():
    return [(r, d) for r in NORMS for d in range(4) if d or r.name not in MAPS_ONLY]


@pytest.mark.parametrize(("record", "dims"), cases(), ids=lambda v: getattr(v, "name", str(v)))
def test_shapes_stay_and_rows_meet_only_where_the_record_says_so(record, dims):
    layer = norm(record.name, C, dims=dims).double()
    x, other = picture(dims), picture(dims, seed=1)
    other[0] = x[0]
    a, b = layer(x), layer(other)
    assert a.shape == x.shape
    mixes = not torch.allclose(a[0], b[0], atol=1e-6)
    assert mixes is ("mixes-rows" in record.tags) is bool(mixes_rows(nn.Sequential(layer)))


@pytest.mark.parametrize(("record", "dims"), cases(), ids=lambda v: getattr(v, "name", str(v)))
def test_the_statistics_are_over_the_axes_of_the_record(record, dims):
    over = [axis for axis in record.facts["over"].split(", ") if axis]
    if not over:
        return
    x = picture(dims)
    groups = GROUPS[dims]
    parts = x.reshape(6, groups, C // groups, -1)  # B, groups, channels of a group, positions
    axes = sorted({i for axis in over for i in {"B": [0], "C": [1, 2], "G": [2], "P": [3]}[axis]})
    mean = 0.0 if record.name == "rms" else parts.mean(axes, keepdim=True)
    power = (parts - mean).square().mean(axes, keepdim=True)
    expected = (parts - mean) / (power + 1e-5).sqrt()
    y = norm(record.name, C, dims=dims).double()(x)
    torch.testing.assert_close(y, expected.reshape(x.shape))


@pytest.mark.parametrize("record", list(NORMS), ids=lambda r: r.name)
def test_every_record_explains_itself(record):
    assert record.summary
    assert record.citation
    for fact in ("formula", "use", "failure", "torch"):
        assert record.facts[fact], fact


@pytest.mark.parametrize("dims", [0, 1, 2, 3])
def test_batch_norm_takes_a_single_row_as_prediction_does(dims):
    layer = norm("batch", 4, dims=dims)
    layer(5 + 2 * torch.randn(9, 4, *([2] * dims), generator=torch.Generator().manual_seed(0)))
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    one = torch.randn(1, 4, *([1] * dims), generator=torch.Generator().manual_seed(1))
    found = layer(one.requires_grad_())
    found.square().sum().backward()
    assert layer.weight.grad.abs().min() > 0
    torch.testing.assert_close(found, layer.eval()(one))
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
    published = getattr(nn, type(layer).__name__)(4)  # the same tensors and class of torch
    published.load_state_dict(layer.state_dict())
    assert isinstance(layer, type(published))


def test_batch_norm_is_torchs_wherever_torch_has_an_answer():
    x = torch.randn(2, 4, 1, 1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(norm("batch", 4, dims=2)(x), nn.BatchNorm2d(4)(x))
    wide = x[:1].expand(-1, -1, 3, 1).clone()
    torch.testing.assert_close(norm("batch", 4, dims=2)(wide), nn.BatchNorm2d(4)(wide))


def test_a_group_has_at_least_two_channels_and_four_of_a_vector():
    for width in range(1, 200):
        for dims, fewest in ((0, 4), (1, 2), (2, 2)):
            groups = norm("group", width, dims=dims).num_groups
            assert width % groups == 0
            assert width // groups >= min(width, fewest)
            assert groups <= 32
    assert [norm("group", width, dims=2).num_groups for width in (128, 256, 512)] == [32] * 3


@pytest.mark.parametrize("width", [2, 8, 32, 64])
def test_group_norm_keeps_what_differs_in_vectors_and_on_single_pixels(width):
    x = torch.randn(1, width, generator=torch.Generator().manual_seed(0))
    for seen in (x, x[:, :, None, None]):
        y = norm("group", width, dims=seen.ndim - 2)(seen)
        assert y.std() > 0.5
        assert seen.ndim > 2 or len(y.unique()) == width


def test_local_response_is_the_formula_of_the_paper():
    x = picture(2)
    y = norm("lrn", C, dims=2)(x)
    for c in range(C):
        near = x[:, max(0, c - 2) : c + 3].square().sum(1)
        torch.testing.assert_close(y[:, c], x[:, c] / (2 + 1e-4 * near) ** 0.75)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rms_of_rows_is_rounded_once_and_keeps_the_type(dtype):
    layer, x = RowRMSNorm(C), picture(2)
    layer.weight.data.mul_(1.37)
    found = layer(x.to(dtype))
    assert found.dtype is dtype
    torch.testing.assert_close(found, layer(x.to(dtype).float()).to(dtype), atol=0, rtol=0)


@pytest.mark.parametrize("record", [r for r in NORMS if r.name != "lrn"], ids=lambda r: r.name)
@pytest.mark.parametrize("dims", [0, 2])
def test_half_precision_is_taken_without_a_warning(record, dims):
    if dims == 0 and record.name in MAPS_ONLY:
        return
    layer, x = norm(record.name, C, dims=dims), picture(dims).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(x)
    expected = norm(record.name, C, dims=dims)(x.float())
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.02)


def test_rms_of_rows_agrees_with_torch_where_torch_has_it():
    x = picture(0)
    torch.testing.assert_close(RowRMSNorm(C).double()(x), norm("rms", C).double()(x))
    layer = RowRMSNorm(C).double()
    with torch.no_grad():
        layer.weight.copy_(torch.arange(C))
    x = picture(2)
    power = x.square().mean((1, 2, 3), keepdim=True)
    expected = x / (power + 1e-5).sqrt() * torch.arange(C)[:, None, None]
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("record", list(NORMS), ids=lambda r: r.name)
def test_no_norm_is_decayed(record):
    groups = parameter_groups(nn.Sequential(norm(record.name, C, dims=2), nn.Linear(2, 2)))
    assert [n for g in groups if g["decay"] for n, _ in g["params"]] == ["1.weight"]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: norm("batchnorm", 3), UnknownName, "'batch"),
        (lambda: norm("instance", 3), ModelError, "'instance' for vectors"),
        (lambda: norm("lrn", 3), ModelError, "'lrn' for vectors"),
        (lambda: norm("batch", 3, dims=4), ModelError, "dims=4"),
        (lambda: norm("batch", 3, dims=-1), ModelError, "dims=-1"),
    ],
)
def test_wrong_requests_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
