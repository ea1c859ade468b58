"""Runs that look odd and are healthy: those of the catalogue, and what everybody does every day."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from benchmarks.doctor import data, nets, nets_odd
from benchmarks.doctor.faults_data import nothing
from benchmarks.doctor.faults_net import changed
from benchmarks.doctor.faults_steps import clipped
from benchmarks.doctor.setup import Fault, Setup, adam
from sklearn import datasets
from torch import Tensor, nn
from torch.optim import lr_scheduler

from gipi.doctor.experiment import call


def odd(name: str, apply: Any, on: tuple[str, ...], low: float = 1.0, high: float = 1.0) -> Fault:
    """Return an oddity."""
    return Fault(name, "", apply, on, low, high)


def sparse_relu(s: Setup, shift: float) -> None:
    """Most units are silent on most rows, and none on all."""
    s.knobs["width"] = 3 * s.facts["width"]

    def change(model: nn.Module) -> None:
        for m in model.modules():
            if isinstance(m, (nn.Linear, nn.Conv2d)) and m is not model.head:
                m.bias.sub_(shift)  # type: ignore[union-attr]

    changed(s, change)


def twice(s: Setup, times: float) -> None:
    """As long again after the floor is reached."""
    s.epochs = round(s.epochs * times)


def easy(s: Setup, far: float) -> None:
    """Classes so far apart that every row is right; no column tells them alone."""
    centres = torch.randn(s.facts["classes"], s.train[0][0].numel(), generator=s.generator("easy"))
    s.each(lambda X, y: (X + far * centres[y].reshape(X.shape), y))


def noisy_targets(s: Setup, noise: float) -> None:
    """Most of the variance of the targets is noise; the net is small."""
    g = s.generator("noise")
    s.targets(lambda y: y + noise * torch.randn(y.shape, generator=g))
    s.knobs["width"], s.epochs = 12, max(4, s.epochs / 2)


def one_cycle(s: Setup, factor: float) -> None:
    """A one-cycle schedule, with its bump of the loss."""
    lr = s.lr * factor
    s.scheduler = lambda optimizer, steps: lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps + 1
    )
    s.scheduler_every = "step"


def declared_freeze(s: Setup, _: float) -> None:
    """Random features are kept on purpose, and it is said so."""
    s.after.append(lambda m: [p.requires_grad_(requires_grad=False) for p in m.body.parameters()])
    s.declared["frozen"] = ["body.*"]
    s.knobs["width"], s.lr = 3 * s.facts["width"], 3 * s.lr


def small_batches(s: Setup, size: float) -> None:
    """Two to four rows a step, at a rate that fits."""
    s.batch_size, s.lr, s.epochs = round(size), s.lr / 5, max(2, s.epochs / 4)


def _series(seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed + 31)
    noise = 0.3 * torch.randn(1500, generator=g)
    rows = [noise[0], noise[1]]
    for t in range(2, 1500):
        rows.append(1.6 * rows[-1] - 0.9 * rows[-2] + noise[t])
    x = torch.stack(rows[50:])
    return x / x.std()


def chronological(s: Setup, _: float) -> None:
    """Windows of one series, split by time and read in its order, which is declared."""
    x = _series(s.seed % 1000)
    X, y = x.unfold(0, 16, 1)[:-1, :, None], x[16:, None]
    s.train, s.val, s.test = (X[:700], y[:700]), (X[716:950], y[716:950]), (X[966:], y[966:])
    s.shuffle, s.declared["time_ordered"] = False, True


def chronological_shuffled(s: Setup, _: float) -> None:
    """As `chronological`, training windows shuffled and nothing declared."""
    chronological(s, 0)
    s.shuffle = True
    s.declared.clear()


def much_dropout(s: Setup, p: float) -> None:
    """Dropout makes validation better than training."""
    s.knobs.update(dropout=p, width=2 * s.facts["width"])


def few_levels(s: Setup, levels: float) -> None:
    """Five columns of two to four levels: equal rows are natural, in both splits."""
    top = round(levels) - 1
    w = torch.tensor([1.0, -0.8, 0.6, 0.5, -0.4])

    def change(X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        X = ((X[:, :5] + 1.5) / 3 * top).round().clamp(0, top)
        told = torch.rand(len(X), generator=s.generator(f"levels{len(X)}"))
        return X, (torch.sigmoid(3 * (X / top - 0.5) @ w) > told).long()

    s.each(change)
    s.make, s.epochs, s.facts["classes"] = partial(nets.mlp, 5, 2, width=16), 8, 2


def pretrain(s: Setup, model: nn.Module, passes: int) -> None:
    """Let the whole model learn the training rows, then give it a new head."""
    X, y = s.train
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(passes):
        for rows in torch.randperm(len(y)).split(32):
            loss = s.loss(model(X[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.head.reset_parameters()


def pretrained_frozen(s: Setup, _: float) -> None:
    """Features learnt before stay; the optimizer has the head alone, as it is meant."""

    def after(model: nn.Module) -> None:
        pretrain(s, model, 6)
        for p in model.body.parameters():
            p.requires_grad_(requires_grad=False)
            p.grad = None

    s.after.append(after)
    s.params = lambda model: list(model.head.parameters())


def clip_with_adam(s: Setup, most: float) -> None:
    """Every gradient is clipped, which Adam does not notice."""
    clipped(s, most)


def _residual(s: Setup, **knobs: Any) -> None:
    make = s.make
    assert isinstance(make, partial)
    s.make = partial(nets_odd.residual, *make.args, **knobs)
    s.optimizer, s.lr, s.epochs = adam, 2e-3, max(4, round(0.6 * s.epochs))


def zero_residual(s: Setup, depth: float) -> None:
    """The last layer of every residual branch begins at zero."""
    _residual(s, depth=round(depth), zero=True)


def layer_scale(s: Setup, value: float) -> None:
    """Branches begin with a small learned factor."""
    _residual(s, depth=4, scale=value)


def stochastic_depth(s: Setup, p: float) -> None:
    """Branches are left out at random in training."""
    _residual(s, depth=4, skip=p)


def deep_residual(s: Setup, depth: float) -> None:
    """Many residual branches."""
    _residual(s, depth=round(depth))


def tied(s: Setup, _: float) -> None:
    """The head shares its weights with the embedding."""

    def tie(model: nn.Module) -> None:
        model.body.embed.weight.data.mul_(0.2)
        model.head.weight = model.body.embed.weight

    s.after.append(tie)


def wine(s: Setup, rows: float) -> None:
    """A hundred rows of wine."""
    X, y = datasets.load_wine(return_X_y=True)
    n = round(rows)
    parts = data.cut(data.floats(X), torch.as_tensor(y).long(), s.seed % 1000, train=n, val=40)
    s.train, s.val, s.test = data.scaled(parts)
    s.make, s.epochs, s.batch_size = partial(nets.mlp, 13, 3, width=16, depth=1), 12, 8
    s.facts["classes"] = 3


def iris(s: Setup, _: float) -> None:
    """Iris, where one column alone tells one class."""
    X, y = datasets.load_iris(return_X_y=True)
    parts = data.cut(data.floats(X), torch.as_tensor(y).long(), s.seed % 1000, train=80, val=30)
    s.train, s.val, s.test = data.scaled(parts)
    s.make, s.epochs, s.batch_size, s.facts["classes"] = partial(nets.mlp, 4, 3, width=16), 10, 8, 3


def decay_everything(s: Setup, decay: float) -> None:
    """A little weight decay on everything."""
    s.optimizer = lambda params, lr: torch.optim.AdamW(params, lr, weight_decay=decay)


def far_targets(s: Setup, offset: float) -> None:
    """Targets far from zero, and a head whose bias begins at their mean."""
    s.targets(lambda y: 2 * y + offset)
    mean = s.train[1].mean(0)
    changed(s, lambda m: m.head.bias.copy_(mean))


def smoothing(s: Setup, share: float) -> None:
    """Smoothed labels."""
    s.loss = nn.CrossEntropyLoss(label_smoothing=share)


def class_weights(s: Setup, _: float) -> None:
    """Weights of classes in the loss."""
    s.loss = nn.CrossEntropyLoss(weight=torch.linspace(0.5, 2.0, s.facts["classes"]))


def acts(name: str) -> Any:
    """Return the change to another activation."""

    def change(s: Setup, _: float) -> None:
        s.knobs["act"] = name

    return change


def rare_words(s: Setup, words: float) -> None:
    """Most of the vocabulary is rare: no batch has all of it, and some words never come."""
    s.train, s.val, s.test = data.reviews(s.seed % 1000, vocabulary=round(words))
    make = s.make
    assert isinstance(make, partial)
    if "vocabulary" in make.keywords:
        s.knobs["vocabulary"] = round(words) + 200
    else:
        s.make = partial(make.func, round(words) + 200, *make.args[1:], **make.keywords)


def alternation(s: Setup, _: float) -> None:
    """Body and head are updated in turns."""
    count = [0]

    def step(exp: Any, xb: Any, yb: Any) -> Tensor:
        count[0] += 1
        exp.optimizer.zero_grad()
        loss = exp.loss(call(exp.model, xb), yb)
        loss.backward()
        resting = exp.model.body if count[0] % 2 else exp.model.head
        for p in resting.parameters():
            p.grad = None
        exp.optimizer.step()
        return loss.detach()

    s.step = step
    s.epochs *= 1.5


def warmup(s: Setup, share: float) -> None:
    """The rate rises from zero and falls as a cosine."""

    def schedule(optimizer: torch.optim.Optimizer, steps: int) -> Any:
        first = max(1, round(share * steps))

        def factor(step: int) -> float:
            if step < first:
                return step / first
            return 0.5 * (
                1 + float(torch.cos(torch.tensor(3.14159 * (step - first) / max(1, steps - first))))
            )

        return lr_scheduler.LambdaLR(optimizer, factor)

    s.scheduler, s.scheduler_every = schedule, "step"


def constant_columns(s: Setup, count: float) -> None:
    """Some columns are always the same."""

    def change(X: Tensor) -> Tensor:
        X = X.clone()
        X[..., : round(count)] = 0.0
        X[..., 0] = 1.0
        return X

    s.inputs(change)


def one_hot(s: Setup, levels: float) -> None:
    """Three columns are replaced by their level, one column a level."""
    count = round(levels)
    edges = torch.linspace(-1.2, 1.2, count - 1)

    def change(X: Tensor) -> Tensor:
        hot = [
            F.one_hot(torch.bucketize(X[:, i].contiguous(), edges), count).float() for i in range(3)
        ]
        return torch.cat([X, *hot], 1)

    s.inputs(change)
    _more_inputs(s, 3 * count)


def _more_inputs(s: Setup, more: int) -> None:
    make = s.make
    assert isinstance(make, partial)
    s.make = partial(make.func, make.args[0] + more, *make.args[1:], **make.keywords)


def sparse_counts(s: Setup, words: float) -> None:
    """Rows are counts of words, nine tenths of them zero."""
    vocabulary = round(words)
    table = torch.softmax(1.5 * torch.randn(4, vocabulary, generator=s.generator("words")), -1)
    g = s.generator("counts")

    def change(X: Any, y: Any) -> tuple[Tensor, Tensor]:
        y = torch.randint(4, (len(y),), generator=g)
        drawn = torch.multinomial(table[y], 15, replacement=True, generator=g)
        return F.one_hot(drawn, vocabulary).sum(1).float(), y

    s.each(change)
    s.make, s.epochs, s.lr = partial(nets.mlp, vocabulary, 4, width=24, depth=1), 6, 3e-3
    s.facts["classes"] = 4


def bytes_before_norm(s: Setup, _: float) -> None:
    """Images of 0..255 in front of a batch norm."""
    s.inputs(lambda X: (X + 1) * 127.5)
    make = s.make
    s.make = lambda **knobs: nn.Sequential(nn.BatchNorm2d(1), make(**knobs))


FLOATS = ("clouds_mlp", "friedman_mlp", "digits_cnn", "waves_conv", "rows_lstm")
ODDITIES = (
    odd("plain", nothing, (
        "digits_mlp", "cancer_mlp", "clouds_mlp", "moons_mlp", "friedman_mlp", "diabetes_mlp", "three_mlp",
        "digits_cnn", "digits_bncnn", "gratings_cnn", "spots_cnn", "reviews_bag", "reviews_attention",
        "reviews_lstm", "order_attention", "order_gru", "prose_gpt", "prose_gru", "markov_gru", "markov_gpt",
        "place_attention", "waves_gru", "waves_conv", "recall_gru", "forecast_rnn", "rows_lstm",
        "pictures_auto", "pictures_convauto", "factors_auto",
    )),
    odd("sparse_relu", sparse_relu, ("digits_mlp", "digits_cnn", "clouds_mlp"), 0.05, 0.15),
    odd("entropy_floor", twice, ("markov_gru", "markov_gpt"), 1.5, 2.5),
    odd("easy", easy, ("clouds_mlp", "gratings_cnn"), 0.8, 1.3),
    odd("noise_limited", noisy_targets, ("friedman_mlp", "three_mlp", "forecast_rnn", "diabetes_mlp"), 0.8, 1.6),
    odd("one_cycle", one_cycle, ("digits_mlp", "digits_bncnn", "gratings_cnn", "waves_gru", "spots_cnn"), 2, 5),
    odd("declared_freeze", declared_freeze, ("digits_mlp", "clouds_mlp", "digits_cnn")),
    odd("small_batches", small_batches, ("clouds_mlp", "friedman_mlp", "moons_mlp", "waves_conv"), 2, 4),
    odd("chronological", chronological, ("forecast_rnn",)),
    odd("chronological_shuffled", chronological_shuffled, ("forecast_rnn",)),
    odd("much_dropout", much_dropout, ("clouds_mlp", "digits_mlp", "waves_conv", "digits_cnn"), 0.3, 0.6),
    odd("few_levels", few_levels, ("clouds_mlp",), 2, 4),
    odd("pretrained_frozen", pretrained_frozen, ("digits_cnn", "digits_mlp", "waves_gru", "reviews_lstm")),
    odd("clip_with_adam", clip_with_adam, ("digits_mlp", "prose_gpt", "waves_gru", "friedman_mlp"), 0.01, 0.3),
    odd("zero_residual", zero_residual, ("clouds_mlp", "friedman_mlp", "digits_mlp"), 2, 6),
    odd("layer_scale", layer_scale, ("clouds_mlp", "friedman_mlp"), 1e-4, 1e-2),
    odd("stochastic_depth", stochastic_depth, ("clouds_mlp", "digits_mlp"), 0.1, 0.3),
    odd("deep_residual", deep_residual, ("friedman_mlp", "clouds_mlp", "digits_mlp"), 6, 12),
    odd("tied", tied, ("prose_gpt", "markov_gpt")),
    odd("wine", wine, ("clouds_mlp",), 60, 100),
    odd("iris", iris, ("clouds_mlp",)),
    odd("decay_everything", decay_everything, ("clouds_mlp", "friedman_mlp", "digits_mlp", "forecast_rnn"), 1e-3, 0.05),
    odd("far_targets", far_targets, ("friedman_mlp", "forecast_rnn", "spots_cnn", "diabetes_mlp"), 20, 300),
    odd("smoothing", smoothing, ("digits_mlp", "digits_cnn", "waves_gru", "reviews_attention"), 0.05, 0.2),
    odd("class_weights", class_weights, ("clouds_mlp", "digits_cnn", "reviews_bag")),
    odd("elu", acts("elu"), FLOATS[:4]),
    odd("gelu", acts("gelu"), ("digits_mlp", *FLOATS[:4])),
    odd("selu", acts("selu"), ("digits_mlp", "clouds_mlp", "waves_conv")),
    odd("prelu", acts("prelu"), ("digits_mlp", "clouds_mlp", "waves_conv")),
    odd("rare_words", rare_words, ("reviews_bag", "reviews_attention", "reviews_lstm"), 200, 600),
    odd("alternation", alternation, ("digits_mlp", "digits_cnn", "friedman_mlp")),
    odd("warmup", warmup, ("digits_mlp", "digits_cnn", "prose_gpt", "rows_lstm", "friedman_mlp"), 0.1, 0.3),
    odd("constant_columns", constant_columns, ("clouds_mlp", "digits_mlp", "waves_conv"), 1, 3),
    odd("one_hot", one_hot, ("clouds_mlp", "friedman_mlp", "cancer_mlp"), 4, 12),
    odd("sparse_counts", sparse_counts, ("clouds_mlp",), 40, 120),
    odd("bytes_before_norm", bytes_before_norm, ("digits_bncnn", "digits_cnn")),
)  # fmt: skip
