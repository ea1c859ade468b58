"""Losses over tokens, embeddings and teachers against torch and the plain formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from gipi import losses
from gipi.core.errors import ModelError

B, T, V, D = 4, 6, 11, 5
G = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(*shape, generator=G, dtype=torch.float64)


LOGITS, HIDDEN, HEAD, BIAS = normal(B, T, V), normal(B, T, D), normal(V, D), normal(V)
LABELS = torch.randint(0, V, (B, T), generator=G)
LABELS[0, 2:] = -100
LABELS[3] = -100
W = torch.rand(B, generator=G, dtype=torch.float64)


# ---------------------------------------------------------------- token cross-entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_mean_over_tokens_is_torchs(smoothing):
    total, count = losses.token_cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
    expected = F.cross_entropy(
        LOGITS.flatten(0, 1), LABELS.flatten(), ignore_index=-100, label_smoothing=smoothing
    )
    torch.testing.assert_close(total / count, expected)
    assert count.item() == 2 + T + T


def test_a_row_weight_counts_for_each_predicted_token_of_the_row():
    total, count = losses.token_cross_entropy(LOGITS, LABELS, W)
    expected, expected_count = 0.0, 0.0
    for b in range(B):
        for t in range(T):
            if LABELS[b, t] >= 0:
                expected -= float(W[b] * LOGITS[b, t].log_softmax(0)[LABELS[b, t]])
                expected_count += float(W[b])
    assert total.item() == pytest.approx(expected)
    assert count.item() == pytest.approx(expected_count)


@pytest.mark.parametrize("call", [
    lambda rows, w: losses.token_cross_entropy(LOGITS[rows], LABELS[rows], w),
    lambda rows, w: losses.linear_cross_entropy(HIDDEN[rows], HEAD, LABELS[rows], w, bias=BIAS,
                                                chunk=4),
    lambda rows, w: losses.distillation(LOGITS[rows], 2 * LOGITS.flip(0)[rows], w,
                                        keep=LABELS[rows] >= 0),
    lambda rows, w: losses.hidden_cosine(HIDDEN[rows], HIDDEN.flip(0)[rows], w),
    lambda rows, w: losses.span(HIDDEN[rows][..., :2], LABELS[rows][:, :2].clamp(0, T - 1), w),
])  # fmt: skip
def test_weight_two_is_the_row_twice_and_micro_batches_add_up(call):
    everything = torch.arange(B)
    plain = call(everything, None)
    ones = call(everything, torch.ones(B, dtype=torch.float64))
    parts = [call(everything[s], None) for s in (slice(0, 1), slice(1, B))]
    twice = torch.ones(B, dtype=torch.float64)
    twice[1] = 2
    weighted, repeated = call(everything, twice), call(torch.tensor([0, 1, 1, 2, 3]), None)
    for k in range(2):
        assert float(ones[k]) == pytest.approx(float(plain[k]))
        assert float(sum(p[k] for p in parts)) == pytest.approx(float(plain[k]))
        assert float(weighted[k]) == pytest.approx(float(repeated[k]))


def test_nothing_to_predict_is_zero_with_a_zero_gradient():
    for call in (
        lambda x: losses.token_cross_entropy(x, torch.full((B, T), -100)),
        lambda x: losses.linear_cross_entropy(x, HEAD, torch.full((B, T), -100), chunk=9),
    ):
        x = HIDDEN.clone().requires_grad_()
        total, count = call(x)
        total.backward()
        assert (total.item(), count.item()) == (0, 0)
        assert not x.grad.any()


def test_half_precision_is_summed_in_float32():
    # 2,000 equal losses: a sum in bfloat16 could only be a multiple of 32 or so.
    logits = torch.zeros(1, 2000, 7, dtype=torch.bfloat16)
    labels = torch.zeros(1, 2000, dtype=torch.long)
    for total in (
        losses.token_cross_entropy(logits, labels)[0],
        losses.linear_cross_entropy(
            logits, torch.zeros(5, 7, dtype=torch.bfloat16), labels, chunk=64
        )[0],
    ):
        assert total.dtype == torch.float32
    assert losses.token_cross_entropy(logits, labels)[0].item() == pytest.approx(
        2000 * math.log(7), rel=1e-5
    )


# ---------------------------------------------------------------- the fused head


@pytest.mark.parametrize("weight", [None, W])
@pytest.mark.parametrize("bias", [None, BIAS])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("chunk", [1, 7, 1000, None])
def test_the_fused_head_equals_the_plain_one(chunk, smoothing, bias, weight):
    def run(fused):
        free = [t.clone().requires_grad_() for t in (HIDDEN, HEAD)]
        b = None if bias is None else bias.clone().requires_grad_()
        if fused:
            total, count = losses.linear_cross_entropy(
                *free, LABELS, weight, bias=b, label_smoothing=smoothing, chunk=chunk
            )
        else:
            total, count = losses.token_cross_entropy(
                F.linear(*free, b), LABELS, weight, label_smoothing=smoothing
            )
        (total * 3).backward()
        return [total, count.double(), *(t.grad for t in free), *([] if b is None else [b.grad])]

    for got, expected in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_only_the_gradients_that_are_wanted_are_worked_out():
    head = HEAD.clone().requires_grad_()
    losses.linear_cross_entropy(HIDDEN, head, LABELS, chunk=5)[0].backward()
    other = HEAD.clone().requires_grad_()
    losses.token_cross_entropy(HIDDEN @ other.t(), LABELS)[0].backward()
    torch.testing.assert_close(head.grad, other.grad)
    assert not losses.linear_cross_entropy(HIDDEN, HEAD, LABELS, chunk=5)[0].requires_grad


def test_infinite_hidden_states_of_ignored_rows_do_not_reach_the_total():
    hidden = HIDDEN.clone()
    hidden[3] = torch.inf
    total, _ = losses.linear_cross_entropy(hidden, HEAD, LABELS, chunk=5)
    torch.testing.assert_close(total, losses.linear_cross_entropy(HIDDEN, HEAD, LABELS)[0])


class Largest(TorchDispatchMode):
    """Remember the number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in tree_flatten(out)[0]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return out


def test_the_logits_are_never_all_held():
    rows, vocab, width, chunk = 96, 64, 8, 16
    hidden, head = torch.randn(rows, width, generator=G), torch.randn(vocab, width, generator=G)
    labels = torch.randint(0, vocab, (rows,), generator=G)

    def largest(call):
        free = hidden.clone().requires_grad_(), head.clone().requires_grad_()
        with Largest() as seen:
            call(*free)[0].backward()
        return seen.elements

    fused = largest(lambda h, W: losses.linear_cross_entropy(h, W, labels, chunk=chunk))
    plain = largest(lambda h, W: losses.token_cross_entropy(h @ W.t(), labels))
    assert plain == rows * vocab
    assert fused == max(chunk * vocab, rows * width, vocab * width)


def test_under_autocast_the_products_are_in_its_dtype_and_the_gradients_in_the_parameters():
    hidden, head = HIDDEN.float().requires_grad_(), HEAD.float().requires_grad_()
    seen = []
    plain = F.linear
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "linear", lambda a, b: seen.append(a.dtype) or plain(a, b))
        with torch.autocast("cpu", torch.bfloat16):
            total, _ = losses.linear_cross_entropy(hidden, head, LABELS, chunk=100)
    total.backward()
    exact, _ = losses.linear_cross_entropy(HIDDEN, HEAD, LABELS)
    assert seen == [torch.bfloat16]
    assert (total.dtype, hidden.grad.dtype, head.grad.dtype) == (torch.float32,) * 3
    assert total.item() == pytest.approx(exact.item(), rel=0.02)


# ---------------------------------------------------------------- spans of answers


def test_span_is_the_mean_of_two_cross_entropies():
    logits, truth = normal(B, T, 2), torch.tensor([[0, 3], [2, 2], [5, 5], [0, 0]])
    logits[0, 4:] = -torch.inf
    expected = (
        F.cross_entropy(logits[..., 0], truth[:, 0], reduction="none")
        + F.cross_entropy(logits[..., 1], truth[:, 1], reduction="none")
    ) / 2
    total, count = losses.span(logits, truth)
    torch.testing.assert_close(total, expected.sum())
    assert count == B
    torch.testing.assert_close(losses.span(logits, truth, W)[0], (expected * W).sum())


# ---------------------------------------------------------------- teachers


def test_soft_targets_are_the_divergence_times_the_squared_temperature():
    tau, teacher = 3.0, normal(B, T, V)
    p, q = (teacher / tau).softmax(-1), (LOGITS / tau).softmax(-1)
    expected = tau**2 * (p * (p.log() - q.log())).sum(-1)
    total, count = losses.distillation(LOGITS, teacher, temperature=tau)
    torch.testing.assert_close(total, expected.sum())
    assert count == B * T
    assert losses.distillation(LOGITS, LOGITS)[0].item() == pytest.approx(0, abs=1e-12)
    keep = LABELS >= 0
    total, count = losses.distillation(LOGITS, teacher, W, temperature=tau, keep=keep)
    torch.testing.assert_close(total, (expected * keep * W[:, None]).sum())
    torch.testing.assert_close(count, (keep * W[:, None]).sum())


def test_the_gradient_keeps_its_size_when_the_temperature_changes():
    """Hinton et al. 2015, section 2.1: at high temperatures it tends to (z - v) / K."""
    student, teacher = normal(3, V), normal(3, V)
    student -= student.mean(1, keepdim=True)
    teacher -= teacher.mean(1, keepdim=True)
    free = student.clone().requires_grad_()
    losses.distillation(free, teacher, temperature=1e4)[0].backward()
    torch.testing.assert_close(free.grad, (student - teacher) / V, rtol=1e-3, atol=1e-4)


def test_no_gradient_goes_to_the_teacher():
    teacher, student = normal(2, V).requires_grad_(), normal(2, V).requires_grad_()
    losses.distillation(student, teacher)[0].backward()
    losses.hidden_cosine(student, teacher)[0].backward()
    assert teacher.grad is None


def test_the_triple_is_the_sum_of_its_parts_as_torch_computes_them():
    logits, teacher, labels = normal(6, V), normal(6, V), torch.arange(6)
    h, g = normal(6, D), normal(6, D)
    total, count = losses.distil_triple(
        logits, labels, teacher=teacher, hidden=h, teacher_hidden=g, temperature=2.0
    )
    soft = F.kl_div((logits / 2).log_softmax(-1), (teacher / 2).softmax(-1), reduction="batchmean")
    cosine = F.cosine_embedding_loss(h, g, torch.ones(6))
    expected = 5 * 4 * soft + 2 * F.cross_entropy(logits, labels) + cosine
    torch.testing.assert_close(total / count, expected)


# ---------------------------------------------------------------- contrast


def test_ranking_is_cross_entropy_over_scaled_cosines_with_hard_negatives():
    a, p, n = normal(B, D), normal(B, D), normal(3, D)
    candidates = torch.cat([p, n])
    scores = F.cosine_similarity(a[:, None], candidates[None], dim=-1) * 20
    expected = F.cross_entropy(scores, torch.arange(B), reduction="none")
    total, count = losses.ranking(a, candidates)
    torch.testing.assert_close(total, expected.sum())
    assert count == B
    torch.testing.assert_close(losses.ranking(a, candidates, W)[0], (expected * W).sum())
    torch.testing.assert_close(losses.ranking(5 * a, 0.1 * candidates)[0], expected.sum())


def test_info_nce_is_symmetric_and_mixes_rows():
    a, p = normal(B, D), normal(B, D)
    torch.testing.assert_close(losses.info_nce(a, p)[0], losses.info_nce(p, a)[0])
    both = losses.ranking(a, p)[0] + losses.ranking(p, a)[0]
    torch.testing.assert_close(losses.info_nce(a, p)[0], both / 2)
    halves = sum(losses.info_nce(a[s], p[s])[0] for s in (slice(0, 2), slice(2, 4)))
    assert abs(float(halves - losses.info_nce(a, p)[0])) > 1e-3
    assert "mixes-rows" in losses.LOSSES.get("info_nce").tags
    assert "mixes-rows" in losses.LOSSES.get("ranking").tags


def test_rows_of_one_group_are_no_negatives_of_each_other():
    a, p = normal(3, D), normal(3, D)
    p[2] = p[0]
    same = torch.tensor([0, 1, 0])
    total, _ = losses.ranking(a, p, groups=same)
    expected = sum(losses.ranking(a[i : i + 1], p[[i, *others]])[0]
                   for i, others in ((0, [1]), (1, [0, 2]), (2, [1])))  # fmt: skip
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("call", [
    lambda o: losses.token_cross_entropy(o, LABELS),
    lambda o: losses.token_cross_entropy(o, LABELS, W),
    lambda o: losses.span(o[..., :2], torch.tensor([[0, 3], [2, 2], [5, 5], [0, 0]]), W),
    lambda o: losses.distillation(o, 2 * LOGITS.flip(0), W),
    lambda o: losses.hidden_cosine(o, 2 * LOGITS.flip(0), W),
    lambda o: losses.info_nce(o[:, 0], LOGITS[:, 1], W, temperature=0.5),
])  # fmt: skip
def test_gradients_are_right(call):
    assert torch.autograd.gradcheck(lambda o: call(o)[0], (LOGITS.clone().requires_grad_(),))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: losses.token_cross_entropy(LOGITS, LABELS[:, 1:]), ["(4, 6, 11)", "(4, 5)"]),
        (lambda: losses.token_cross_entropy(LOGITS, LABELS, W[:2]), ["(2,)", "one weight a row"]),
        (lambda: losses.linear_cross_entropy(HIDDEN, HEAD.t(), LABELS), ["width 5", "(5, 11)"]),
        (lambda: losses.linear_cross_entropy(HIDDEN, HEAD, LABELS[0]), ["(4, 6, 5)", "(6,)"]),
        (lambda: losses.span(LOGITS, LABELS[:, :2]), ["(4, 6, 11)", "head of width 2"]),
        (lambda: losses.ranking(normal(3, D), normal(2, D)), ["3 anchors", "2 candidates"]),
        (lambda: losses.ranking(normal(3, D), normal(3, D + 1)), ["(3, 5)", "(3, 6)"]),
        (lambda: losses.distillation(LOGITS, LOGITS[0]), ["(6, 11)"]),
    ],
)
def test_what_does_not_fit_is_said(call, words):
    with pytest.raises(ModelError) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
