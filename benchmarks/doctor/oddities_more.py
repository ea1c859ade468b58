"""More healthy runs that look odd: losses, steps, schedules, forms of data that people really use."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from benchmarks.doctor import nets
from benchmarks.doctor.faults_wiring import as_binary
from benchmarks.doctor.oddities import odd
from benchmarks.doctor.setup import Setup
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from gipi.doctor.experiment import call

Loss = Callable[[Any, Tensor], Tensor]


def loss_of(loss: Loss, *, outputs: int = 0, end: str = "") -> Callable[[Setup, float], None]:
    """Return the change to another loss, with another number of outputs and an end."""

    def change(s: Setup, _: float) -> None:
        s.loss = loss
        if end:
            s.knobs["end"] = end
        if outputs:
            make = s.make
            assert isinstance(make, partial)
            s.make = partial(make.func, *make.args[:-1], outputs, **make.keywords)

    return change


def sigmoid_and_bce(s: Setup, _: float) -> None:
    """Probabilities, and the loss of probabilities."""
    as_binary(s, 0)
    s.knobs["end"], s.loss = "sigmoid", nn.BCELoss()


def gaussian(said: Tensor, y: Tensor) -> Tensor:
    """Minus log-likelihood of a mean and a log-variance: below zero where the fit is good."""
    mean, logvar = said[:, :1], said[:, 1:].clamp(-6, 6)
    return 0.5 * ((y - mean).square() * (-logvar).exp() + logvar).mean()


def quantiles(said: Tensor, y: Tensor) -> Tensor:
    """The pinball loss of the median and two outer quantiles."""
    q = torch.tensor([0.5, 0.1, 0.9])
    error = y - said
    return torch.maximum(q * error, (q - 1) * error).mean()


def focal(said: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy with easy rows weighted down."""
    told = F.log_softmax(said, -1).gather(-1, y[:, None])[:, 0]
    return -((1 - told.exp()) ** 2 * told).mean()


def hinge(said: Tensor, y: Tensor) -> Tensor:
    """The multi-class hinge."""
    return F.multi_margin_loss(said, y)


def counts(s: Setup, mean: float) -> None:
    """Whole numbers of events as targets of a Poisson loss."""
    g = s.generator("counts")
    s.targets(lambda y: torch.poisson((0.6 * y).exp().clamp(max=6) * mean, generator=g))
    s.loss, s.kind, s.epochs = nn.PoissonNLLLoss(), "counts", s.epochs / 2


def counts_by_square(s: Setup, mean: float) -> None:
    """Whole numbers from 0 to about nine, fitted by squared error as the numbers that they are."""
    s.targets(lambda y: (y * 1.5 + mean).round().clamp(0, 9))


def positive(s: Setup, _: float) -> None:
    """Targets above zero and a softplus that keeps outputs there."""
    s.targets(lambda y: (0.5 * y).exp())
    s.knobs["end"] = "softplus"


def relu_of_amounts(s: Setup, _: float) -> None:
    """Amounts, none of them below zero, after a ReLU that cannot go below it."""
    s.targets(lambda y: y + 3.0)
    s.targets(lambda y: y.clamp(min=0))
    s.knobs["end"] = "relu"
    s.after.append(lambda m: m.head.bias.data.fill_(3.0))


def restarts(s: Setup, times: float) -> None:
    """Cosines that start again, with the loss jumping up each time."""
    s.scheduler = lambda optimizer, steps: lr_scheduler.CosineAnnealingWarmRestarts(
        optimizer, max(2, round(steps / times))
    )
    s.scheduler_every, s.lr = "step", 2 * s.lr


def on_plateau(s: Setup, _: float) -> None:
    """The rate falls where validation stands."""
    s.scheduler = lambda optimizer, steps: lr_scheduler.ReduceLROnPlateau(optimizer, patience=2)


def step_decay(s: Setup, _: float) -> None:
    """The rate is a tenth in the last third."""
    s.scheduler = lambda optimizer, steps: lr_scheduler.StepLR(
        optimizer, max(1, round(s.epochs * 0.67)), 0.1
    )


def heavy_momentum(s: Setup, _: float) -> None:
    """Momentum of 0.95 at a rate that fits, with Nesterov."""
    s.optimizer = lambda params, lr: torch.optim.SGD(params, lr, momentum=0.95, nesterov=True)
    s.lr = 0.01


def adagrad(s: Setup, _: float) -> None:
    """Adagrad at a rate of 0.05."""
    s.optimizer = torch.optim.Adagrad
    s.lr = 0.05


def lbfgs(s: Setup, _: float) -> None:
    """L-BFGS over all rows, whose step calls the loss many times."""
    s.optimizer = lambda params, lr: torch.optim.LBFGS(
        params, lr, max_iter=5, line_search_fn="strong_wolfe"
    )
    s.batch_size, s.lr, s.epochs = 4096, 1.0, 6
    s.knobs["width"] = 8

    def step(exp: Any, xb: Any, yb: Any) -> Tensor:
        def closure() -> Tensor:
            exp.optimizer.zero_grad()
            loss = exp.loss(call(exp.model, xb), yb)
            loss.backward()
            return loss

        return exp.optimizer.step(closure).detach()

    s.step = step


def accumulates(s: Setup, batches: float) -> None:
    """Gradients of several batches make one step."""
    count, every = [0], round(batches)
    s.batch_size = max(4, s.batch_size // every)

    def step(exp: Any, xb: Any, yb: Any) -> Tensor:
        loss = exp.loss(call(exp.model, xb), yb)
        (loss / every).backward()
        count[0] += 1
        if count[0] % every == 0:
            exp.optimizer.step()
            exp.optimizer.zero_grad()
        return loss.detach()

    s.step = step


def mixes_rows(s: Setup, share: float) -> None:
    """Mixup: rows and their losses are blended, so training loss stays above validation."""

    def step(exp: Any, xb: Any, yb: Any) -> Tensor:
        part = float(torch.rand(())) * share
        other = torch.randperm(len(yb))
        exp.optimizer.zero_grad()
        said = exp.model((1 - part) * xb + part * xb[other])
        loss = (1 - part) * exp.loss(said, yb) + part * exp.loss(said, yb[other])
        loss.backward()
        exp.optimizer.step()
        return loss.detach()

    s.step = step


def penalised(s: Setup, strength: float) -> None:
    """The step adds a small L1 penalty of the weights to the loss."""

    def step(exp: Any, xb: Any, yb: Any) -> Tensor:
        exp.optimizer.zero_grad()
        loss = exp.loss(call(exp.model, xb), yb)
        (loss + strength * sum(p.abs().sum() for p in exp.model.parameters())).backward()
        exp.optimizer.step()
        return loss.detach()

    s.step = step


def light_noise(s: Setup, strength: float) -> None:
    """Augmentation by a little noise."""
    std = float(s.train[0].std())
    s.transform = lambda X: X + strength * std * torch.randn_like(X)


def shifts(s: Setup, _: float) -> None:
    """Augmentation by a shift of at most one pixel."""

    def change(X: Tensor) -> Tensor:
        down, right = (int(v) for v in torch.randint(-1, 2, (2,)))
        return X.roll((down, right), (-2, -1))

    s.transform = change


def both_ways(s: Setup, _: float) -> None:
    """A classifier that reads from both ends, as it may."""
    s.knobs["both_ways"] = True


def no_order(s: Setup, _: float) -> None:
    """Attention without places where the order of words says nothing."""
    s.knobs["positions"] = False


def masked_words(s: Setup, share: float) -> None:
    """A masked language model: most targets are -100, and it sees both ways."""
    words = s.facts["vocabulary"]
    g = s.generator("masked")

    def change(X: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        hit = torch.rand(X.shape, generator=g) < share
        hit[:, 0] |= ~hit.any(1)
        return torch.where(hit, words, X), torch.where(hit, X, -100)

    s.each(change)
    make = s.make
    assert isinstance(make, partial)
    s.make = partial(nets.attention, words + 1, s.train[0].shape[1], words, every=True)
    s.epochs *= 2


def labels_apart(s: Setup, _: float) -> None:
    """Several yes-or-no answers a row, some of them rare."""
    classes = s.facts["classes"]
    table = (torch.rand(classes, 6, generator=s.generator("labels")) < 0.35).float()
    table[0, 0] = 1.0
    s.targets(lambda y: table[y])
    make = s.make
    assert isinstance(make, partial)
    s.make = partial(make.func, *make.args[:-1], 6, **make.keywords)
    s.loss, s.kind = nn.BCEWithLogitsLoss(), "multilabel"


def easily_rare(s: Setup, ratio: float) -> None:
    """A class is rare, and told as well as the others."""
    g = s.generator("rare")

    def thin(X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        keep = (y != 0) | (torch.rand(len(y), generator=g) < 1 / ratio)
        keep[(y == 0).nonzero()[:4]] = True
        return X[keep], y[keep]

    s.each(thin)
    s.epochs *= 1.5


def wide(s: Setup, times: float) -> None:
    """Many more parameters than rows, which does no harm here."""
    s.knobs["width"] = round(times) * s.facts["width"]
    s.lr /= 2
    s.epochs = max(3, s.epochs // 2)


def finetunes(s: Setup, factor: float) -> None:
    """A learnt body moves at a small rate, a new head at a larger one."""

    def pretrain(model: nn.Module) -> None:
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        X, y = s.train
        for _ in range(5):
            for rows in torch.randperm(len(y)).split(32):
                loss = s.loss(model(X[rows]), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        model.head.reset_parameters()
        model.zero_grad()

    s.after.append(pretrain)
    lr = s.lr
    s.params = lambda m: [{"params": list(m.body.parameters()), "lr": lr * factor},
                          {"params": list(m.head.parameters())}]  # fmt: skip
    s.epochs = max(3, s.epochs // 2)


def weight_normed(s: Setup, _: float) -> None:
    """Weights are a direction and a length."""

    def change(model: nn.Module) -> None:
        for m in list(model.modules()):
            if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d)):
                parametrizations.weight_norm(m)

    s.after.append(change)


def doubles(s: Setup, _: float) -> None:
    """Everything in float64."""
    s.after.append(lambda m: m.double())
    s.inputs(lambda X: X.double())
    if s.train[1].is_floating_point():
        s.targets(lambda y: y.double())


class Stream:
    """Batches in a new order every pass; `length`: it tells how many there are."""

    def __init__(self, pair: tuple[Any, Tensor], size: int, shape: Callable[[Any], Any]) -> None:
        self.pair, self.size, self.shape, self.passes = pair, size, shape, 0

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        self.passes += 1
        X, y = self.pair
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(self.passes))
        for rows in order.split(self.size):
            yield self.shape(X[rows]), y[rows]


class Counted(Stream):
    """A stream that tells how many batches a pass has."""

    def __len__(self) -> int:
        return (len(self.pair[1]) + self.size - 1) // self.size


def stream(s: Setup, _: float) -> None:
    """Rows come from an iterable that does not tell its length."""
    s.loader = lambda pair, size: Stream(pair, size, lambda X: X)


def loader(s: Setup, _: float) -> None:
    """Rows come from a loader that shuffles."""
    s.loader = lambda pair, size: DataLoader(TensorDataset(*pair), batch_size=size, shuffle=True)


def two_inputs(s: Setup, _: float) -> None:
    """Two groups of columns, given as a tuple."""
    _shaped(s, lambda X: (X[:, :4], X[:, 4:]))


def named_inputs(s: Setup, _: float) -> None:
    """Two groups of columns, given by name."""
    _shaped(s, lambda X: {"left": X[:, :4], "right": X[:, 4:]})


def _shaped(s: Setup, shape: Callable[[Tensor], Any]) -> None:
    inputs = s.train[0].shape[1]
    outputs = s.facts.get("classes") or s.facts["outputs"]
    s.make = lambda **_: nets.TwoInputs(4, inputs - 4, outputs)
    s.loader = lambda pair, size: Counted(pair, size, shape)
    s.val = Counted(s.val, 64, shape)  # type: ignore[arg-type, assignment]
    X, y = s.test
    s.test = (shape(X), y)


def no_validation(s: Setup, _: float) -> None:
    """There are no validation rows."""
    s.val = None


def small_validation(s: Setup, rows: float) -> None:
    """Twenty or thirty validation rows, with the noise that this brings."""
    s.each(lambda X, y: (X[: round(rows)], y[: round(rows)]), "val")


def variational(s: Setup, _: float) -> None:
    """A variational autoencoder, whose outputs are a tuple."""
    inputs = s.train[0].shape[1]

    def loss(said: Any, y: Tensor) -> Tensor:
        rebuilt, mean, logvar = said
        apart = -0.5 * (1 + logvar - mean.square() - logvar.exp()).sum(-1).mean()
        return (rebuilt - y).square().sum(-1).mean() + 0.1 * apart

    s.make, s.loss = lambda **_: nets.Variational(inputs), loss


def probed(s: Setup, _: float) -> None:
    """A second head reads detached features: a detach that is meant."""
    make, outputs = s.make, s.facts["classes"]
    width = s.knobs.get("width", s.facts["width"])
    s.make = lambda **knobs: nets.Probed(make(**knobs), width, outputs)
    first = s.loss
    s.loss = lambda said, y: first(said[0], y) + first(said[1], y)


def experts(s: Setup, count: float) -> None:
    """Experts of which some get no row of a batch."""
    inputs = s.train[0].shape[1]
    outputs = s.facts.get("classes") or s.facts["outputs"]
    s.make = lambda **_: nets.Experts(inputs, outputs, experts=round(count))


def averaged(s: Setup, decay: float) -> None:
    """Evaluation uses a running mean of the weights, kept inside the model."""
    make = s.make

    class Averaged(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net, self.slow = net, copy.deepcopy(net).requires_grad_(requires_grad=False)

        def forward(self, x: Any) -> Any:
            return (self.net if self.training else self.slow)(x)

    def step(exp: Any, xb: Any, yb: Any) -> Tensor:
        exp.optimizer.zero_grad()
        loss = exp.loss(call(exp.model, xb), yb)
        loss.backward()
        exp.optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(
                exp.model.slow.parameters(), exp.model.net.parameters(), strict=True
            ):
                slow.lerp_(fast, 1 - decay)
        return loss.detach()

    s.make = lambda **knobs: Averaged(make(**knobs))
    s.params = lambda model: list(model.net.parameters())
    s.step = step


def in_any_order(s: Setup, _: float) -> None:
    """Rows lie in no order at all and are read as they lie."""
    s.shuffle = False


def lagged(s: Setup, noise: float) -> None:
    """A column that rightly says much, such as last year's value: in all splits alike."""
    g = s.generator("lag")

    def change(X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        X = X.clone()
        X[:, -1] = (y[:, 0] + noise * torch.randn(len(y), generator=g)) / (1 + noise**2) ** 0.5
        return X, y

    s.each(change)


def heavy_tails(s: Setup, _: float) -> None:
    """Columns with rare, large, true values."""

    def change(X: Tensor) -> Tensor:
        X = X.clone()
        X[:, :3] = X[:, :3].sign() * (X[:, :3].abs().exp() - 1) / 2
        return X

    s.inputs(change)


def no_biases(s: Setup, _: float) -> None:
    """Layers without biases."""

    def strip(model: nn.Module) -> None:
        for m in model.modules():
            if isinstance(m, nn.Linear):
                m.bias = None  # type: ignore[assignment]

    s.after.append(strip)


def orthogonal(s: Setup, gain: float) -> None:
    """Orthogonal first weights."""

    def change(model: nn.Module) -> None:
        for p in model.parameters():
            if p.ndim == 2:
                nn.init.orthogonal_(p, gain)

    s.after.append(change)


def linear_question(s: Setup, epochs: float) -> None:
    """A linear model where the answer is linear, trained long after it stands still."""
    w = torch.randn(s.train[0].shape[1], 1, generator=s.generator("linear"))
    g = s.generator("linear noise")
    s.each(lambda X, y: (X, 0.5 * X @ w + 0.5 * torch.randn(len(X), 1, generator=g)))
    inputs = s.train[0].shape[1]
    s.make, s.epochs, s.lr = lambda **_: nn.Sequential(nn.Linear(inputs, 1)), round(epochs), 0.01


LOSSES = (
    odd("log_softmax_and_ce", loss_of(nn.CrossEntropyLoss(), end="log_softmax"), ("digits_mlp", "waves_gru", "digits_cnn")),
    odd("log_softmax_and_nll", loss_of(nn.NLLLoss(), end="log_softmax"), ("clouds_mlp", "digits_cnn", "reviews_lstm")),
    odd("sigmoid_and_bce", sigmoid_and_bce, ("cancer_mlp", "reviews_bag", "moons_mlp")),
    odd("gaussian", loss_of(gaussian, outputs=2), ("friedman_mlp", "forecast_rnn")),
    odd("quantiles", loss_of(quantiles, outputs=3), ("friedman_mlp", "forecast_rnn")),
    odd("huber", loss_of(nn.SmoothL1Loss()), ("friedman_mlp", "spots_cnn", "three_mlp")),
    odd("focal", loss_of(focal), ("digits_mlp", "clouds_mlp", "waves_conv")),
    odd("hinge", loss_of(hinge), ("digits_mlp", "clouds_mlp", "gratings_cnn")),
    odd("counts", counts, ("friedman_mlp",), 1.5, 3),
    odd("counts_by_square", counts_by_square, ("friedman_mlp", "three_mlp", "spots_cnn"), 4, 5),
    odd("positive", positive, ("friedman_mlp", "forecast_rnn", "spots_cnn")),
    odd("relu_of_amounts", relu_of_amounts, ("friedman_mlp", "spots_cnn", "forecast_rnn")),
    odd("labels_apart", labels_apart, ("digits_mlp", "clouds_mlp", "digits_cnn")),
    odd("variational", variational, ("pictures_auto", "factors_auto")),
)  # fmt: skip
STEPS = (
    odd("restarts", restarts, ("digits_mlp", "digits_bncnn", "friedman_mlp"), 3, 5),
    odd("on_plateau", on_plateau, ("digits_mlp", "friedman_mlp", "waves_gru", "moons_mlp")),
    odd("step_decay", step_decay, ("digits_bncnn", "clouds_mlp", "pictures_auto")),
    odd("heavy_momentum", heavy_momentum, ("digits_mlp", "moons_mlp", "friedman_mlp")),
    odd("adagrad", adagrad, ("reviews_bag", "clouds_mlp")),
    odd("lbfgs", lbfgs, ("friedman_mlp", "three_mlp")),
    odd("accumulates", accumulates, ("digits_mlp", "waves_gru", "friedman_mlp", "prose_gpt"), 2, 4),
    odd("mixes_rows", mixes_rows, ("digits_mlp", "digits_cnn", "clouds_mlp"), 0.3, 0.5),
    odd("penalised", penalised, ("digits_mlp", "friedman_mlp", "waves_conv"), 1e-5, 2e-4),
    odd("light_noise", light_noise, ("digits_mlp", "waves_conv", "friedman_mlp"), 0.05, 0.3),
    odd("shifts", shifts, ("gratings_cnn", "digits_bncnn")),
    odd("finetunes", finetunes, ("digits_cnn", "digits_mlp", "reviews_lstm"), 0.01, 0.1),
    odd("averaged", averaged, ("digits_mlp", "friedman_mlp", "waves_conv"), 0.9, 0.95),
)  # fmt: skip
FORMS = (
    odd("both_ways", both_ways, ("reviews_lstm", "waves_gru", "rows_lstm")),
    odd("no_order", no_order, ("reviews_attention",)),
    odd("masked_words", masked_words, ("markov_gpt",), 0.15, 0.3),
    odd("easily_rare", easily_rare, ("waves_gru", "waves_conv", "gratings_cnn"), 8, 16),
    odd("wide", wide, ("digits_mlp", "clouds_mlp", "waves_conv"), 4, 8),
    odd("weight_normed", weight_normed, ("digits_mlp", "digits_cnn", "friedman_mlp")),
    odd("doubles", doubles, ("clouds_mlp", "friedman_mlp", "waves_conv")),
    odd("stream", stream, ("digits_mlp", "friedman_mlp", "markov_gru")),
    odd("loader", loader, ("digits_cnn", "reviews_attention", "diabetes_mlp")),
    odd("two_inputs", two_inputs, ("clouds_mlp", "friedman_mlp")),
    odd("named_inputs", named_inputs, ("clouds_mlp", "friedman_mlp")),
    odd("no_validation", no_validation, ("digits_mlp", "friedman_mlp", "prose_gpt", "waves_gru")),
    odd("small_validation", small_validation, ("clouds_mlp", "friedman_mlp", "reviews_bag"), 15, 30),
    odd("probed", probed, ("digits_mlp", "clouds_mlp")),
    odd("experts", experts, ("clouds_mlp", "friedman_mlp"), 3, 6),
    odd("in_any_order", in_any_order, ("digits_mlp", "friedman_mlp", "waves_gru")),
    odd("lagged", lagged, ("friedman_mlp", "diabetes_mlp"), 0.4, 0.8),
    odd("heavy_tails", heavy_tails, ("clouds_mlp", "friedman_mlp", "three_mlp")),
    odd("no_biases", no_biases, ("digits_mlp", "clouds_mlp", "pictures_auto")),
    odd("orthogonal", orthogonal, ("digits_mlp", "rows_lstm", "clouds_mlp"), 0.8, 1.4),
    odd("linear_question", linear_question, ("friedman_mlp", "diabetes_mlp"), 15, 40),
)  # fmt: skip
ODDITIES = (*LOSSES, *STEPS, *FORMS)
