"""Attention against its formula written out, masks, and the cache."""

from __future__ import annotations

import math

import pytest
import torch

from gipi.core.errors import ModelError
from gipi.nn import Attention, Cache, Mask, attention, attention_mask
from gipi.nn.attention import by_products

B, T, D, H, G = 3, 5, 24, 4, 2


def written_out(layer, x, source=None, allowed=None, bias=None):
    """Return softmax(s q kᵀ + bias) v by loops over heads."""
    heads, groups, E = layer.heads, layer.groups, layer.head_width
    if layer.cross:
        q, both = layer.q(x), layer.kv(source)
        k, v = both.split(groups * E, -1)
    else:
        q, k, v = layer.qkv(x).split((heads * E, groups * E, groups * E), -1)
    out = []
    for h in range(heads):
        g = h // (heads // groups)
        qh, kh, vh = q[..., h * E :][..., :E], k[..., g * E :][..., :E], v[..., g * E :][..., :E]
        scores = layer.scale * qh @ kh.mT
        if bias is not None:
            scores = scores + bias[h]
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -math.inf)
        out.append(scores.softmax(-1) @ vh)
    return layer.out(torch.cat(out, -1))


def tokens(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


@pytest.mark.parametrize("groups", [H, G, 1])
@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("head_width", [None, 10])
def test_self_attention_is_its_formula(groups, scale, head_width):
    layer = Attention(D, H, kv_heads=groups, head_width=head_width, scale=scale).double()
    assert layer.scale == (scale or (head_width or D // H) ** -0.5)
    x = tokens(B, T, D)
    assert torch.allclose(layer(x, mask=Mask()), written_out(layer, x), atol=1e-12)


def test_causal_and_padded_attention_is_its_formula():
    layer = Attention(D, H, kv_heads=G).double()
    x, real = tokens(B, T, D), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 1, 1]])
    triangle = torch.ones(T, T, dtype=torch.bool).tril()
    mask = attention_mask(None, queries=T, keys=T, causal=True)
    assert mask == Mask(None, True)
    assert torch.allclose(layer(x, mask=mask), written_out(layer, x, allowed=triangle), atol=1e-12)
    mask = attention_mask(real, queries=T, keys=T, causal=True)
    both = triangle & real.bool()[:, None] | torch.eye(T, dtype=torch.bool)
    assert torch.allclose(layer(x, mask=mask), written_out(layer, x, allowed=both), atol=1e-12)
    mask = attention_mask(real, queries=T, keys=T)
    seen = real.bool()[:, None].expand(B, T, T)
    assert torch.allclose(layer(x, mask=mask), written_out(layer, x, allowed=seen), atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_a_bias_is_added_to_the_scores(causal):
    layer = Attention(D, H).double()
    x, bias = tokens(B, T, D), 3 * tokens(H, T, T, seed=1)
    real = torch.ones(B, T, dtype=torch.bool)
    allowed = torch.ones(T, T, dtype=torch.bool)
    for given in (None, real):
        mask = attention_mask(given, bias, queries=T, keys=T, causal=causal)
        want = written_out(layer, x, allowed=allowed.tril() if causal else allowed, bias=bias)
        assert torch.allclose(layer(x, mask=mask), want, atol=1e-12)


def test_cross_attention_is_its_formula():
    layer = Attention(D, H, cross=True).double()
    x, source = tokens(B, T, D), tokens(B, 7, D, seed=1)
    assert torch.allclose(layer(x, source, mask=Mask()), written_out(layer, x, source), atol=1e-12)
    with pytest.raises(ModelError, match="without what it should look at"):
        layer(x, mask=Mask())


@pytest.mark.parametrize("causal", [False, True])
def test_a_row_of_padding_gives_numbers_and_gradients(causal):
    layer = Attention(D, H).double()
    x = tokens(B, T, D).requires_grad_()
    real = torch.tensor([[0] * T, [0, 0, 1, 1, 0], [1] * T])
    for bias in (None, tokens(H, T, T)):
        out = layer(x, mask=attention_mask(real, bias, queries=T, keys=T, causal=causal))
        assert out.isfinite().all()
        (grad,) = torch.autograd.grad(out.sum(), x)
        assert grad.isfinite().all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("bias", [None, torch.zeros(H, T, T)])
def test_no_query_is_left_without_a_key(causal, bias):
    """Kernels differ in what they make of such a row, so none may reach them."""
    real = torch.tensor([[0] * T, [0, 0, 1, 1, 0], [1] * T])
    tensor = attention_mask(real, bias, queries=T, keys=T, causal=causal).tensor
    seen = tensor if bias is None else tensor.isfinite()
    assert seen.any(-1).all()
    assert attention_mask(real[:1], queries=1, keys=T, causal=causal).tensor.any()


def test_a_mask_of_later_queries_is_the_end_of_the_whole_one():
    real = torch.tensor([[0, 1, 1, 0, 1, 1]])
    whole = attention_mask(real, queries=6, keys=6, causal=True).tensor
    for queries in (1, 2, 5):
        part = attention_mask(real, queries=queries, keys=6, causal=True).tensor
        assert torch.equal(part.expand(1, 1, queries, 6), whole[:, :, -queries:])
    late = attention_mask(None, queries=2, keys=6, causal=True).tensor
    assert late.int().tolist() == [[[[1, 1, 1, 1, 1, 0], [1] * 6]]]
    assert attention_mask(None, queries=1, keys=6, causal=True) == Mask()


def test_what_does_not_divide_or_fit_is_refused():
    with pytest.raises(ModelError, match="5 heads over 5 heads of keys and a width of 24"):
        Attention(24, 5)
    with pytest.raises(ModelError, match="4 heads over 3 heads of keys"):
        Attention(24, 4, kv_heads=3)
    with pytest.raises(ModelError, match="4 columns for 5 tokens"):
        attention_mask(torch.ones(1, 4), queries=5, keys=5)


# ------------------------------------------------------------------------ cache


def test_a_cache_gives_what_the_whole_gives():
    layer = Attention(D, H, kv_heads=G).double()
    x = tokens(B, T, D)
    whole = layer(x, mask=attention_mask(None, queries=T, keys=T, causal=True))
    cache = Cache(1, (B, G, T + 2, D // H), dtype=torch.double)
    out = []
    for start, stop in ((0, 2), (2, 3), (3, T)):
        mask = attention_mask(None, queries=stop - start, keys=stop, causal=True)
        out.append(layer(x[:, start:stop], mask=mask, cache=cache))
        cache.advance(stop - start)
    assert torch.allclose(torch.cat(out, 1), whole, atol=1e-12)
    assert cache.filled == T


def test_a_cache_holds_no_graph():
    """With gradients on, a long answer would otherwise keep every step of it alive."""
    layer, cross = Attention(D, H), Attention(D, H, cross=True)
    cache = Cache(1, (B, H, T, D // H))
    for _ in range(2):
        layer(torch.randn(B, 1, D), mask=Mask(), cache=cache)
        cross(torch.randn(B, 1, D), torch.randn(B, 2, D), mask=Mask(), cache=cache)
        cache.advance(1)
    assert not any(t.requires_grad for t in (*cache.k, *cache.v, *cache.cross_k, *cache.cross_v))


def filled_cache(rows=3):
    cache = Cache(2, (rows, 1, 4, 2))
    for layer in range(2):
        k = torch.arange(rows * 6.0).view(rows, 1, 3, 2) + 100 * layer
        cache.update(layer, k, -k)
        cache.cross_k[layer], cache.cross_v[layer] = k + 0.5, k - 0.5
    cache.see(torch.ones(rows, 3), new=3)
    cache.source_real = torch.eye(rows, 3).bool()
    cache.advance(3)
    return cache


def test_rows_of_a_cache_are_reordered_expanded_and_cropped():
    cache, before = filled_cache(), filled_cache()
    cache.reorder(torch.tensor([2, 0]))
    assert cache.rows == 2
    for layer in range(2):
        for name in ("k", "v", "cross_k", "cross_v"):
            want = getattr(before, name)[layer][[2, 0]]
            assert torch.equal(getattr(cache, name)[layer], want)
    assert torch.equal(cache.source_real, before.source_real[[2, 0]])
    assert torch.equal(cache.real, before.real[[2, 0]])
    cache.expand(2)
    assert torch.equal(cache.k[1], before.k[1][[2, 2, 0, 0]])
    cache.crop(1)
    keys, _ = cache.update(0, torch.full((4, 1, 1, 2), 7.0), torch.zeros(4, 1, 1, 2))
    assert keys.shape == (4, 1, 2, 2)
    assert torch.equal(keys[:, :, 1], torch.full((4, 1, 2), 7.0))


def test_a_clone_is_written_without_the_other():
    cache = filled_cache()
    twin = cache.clone()
    twin.update(0, torch.full((3, 1, 1, 2), 7.0), torch.zeros(3, 1, 1, 2))
    twin.see(torch.zeros(3, 1), new=1)
    twin.advance(1)
    assert cache.filled == 3
    assert torch.equal(cache.k[0], filled_cache().k[0])
    assert cache.real.all()


def test_a_cache_remembers_padding():
    cache = Cache(1, (2, 1, 6, 2))
    assert cache.see(None, new=2) is None
    cache.advance(2)
    assert cache.see(torch.tensor([[0], [1]]), new=1).int().tolist() == [[1, 1, 0], [1, 1, 1]]
    cache.advance(1)
    assert cache.see(None, new=1).int().tolist() == [[1, 1, 0, 1], [1, 1, 1, 1]]
    whole = torch.tensor([[0, 1, 0, 1], [1, 1, 1, 1]])
    assert cache.see(whole, new=1).int().tolist() == whole.tolist()
    with pytest.raises(ModelError, match="3 columns for 1 new tokens after 3"):
        cache.see(torch.ones(2, 3), new=1)
    with pytest.raises(ModelError, match="4 more tokens for a cache that holds 3 of 6"):
        cache.see(None, new=4)
    with pytest.raises(ModelError, match="crop to 4 tokens of a cache that holds 3"):
        cache.crop(4)


@pytest.mark.parametrize("case", ["free", "causal", "padded", "biased"])
def test_plain_products_are_the_kernel_but_for_rounding(case: str) -> None:
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 6, 8, generator=draw, dtype=torch.float64) for _ in range(3))
    real = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]])
    bias = torch.randn(4, 6, 6, generator=draw, dtype=torch.float64)
    mask = {
        "free": Mask(), "causal": Mask(None, causal=True),
        "padded": attention_mask(real, queries=6, keys=6, causal=True),
        "biased": attention_mask(real, bias, queries=6, keys=6),
    }[case]  # fmt: skip
    wanted = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask.tensor, is_causal=mask.causal, scale=0.3
    )
    found = by_products(q, k, v, mask=mask, scale=0.3)
    assert float((found - wanted).abs().max()) < 1e-12


def test_in_bfloat16_a_gradient_comes_by_products_and_agrees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used = []
    monkeypatch.setattr(
        attention, "by_products", lambda *a, **k: used.append(1) or by_products(*a, **k)
    )
    layer = Attention(16, 4)
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1))
    grads = []
    for half in (False, True):
        layer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            layer(x, mask=Mask(None, causal=True)).float().square().sum().backward()
        assert layer.qkv.weight.grad is not None
        grads.append(layer.qkv.weight.grad.clone())
        assert len(used) == half
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x, mask=Mask(None, causal=True))
    assert len(used) == 1  # its way back is slow, so without one the kernel is called
    assert float((grads[0] - grads[1]).norm() / grads[0].norm()) < 0.03
