"""Draw the pictures of the documentation with the code they explain.

`scripts/docs` runs it; `python scripts/pictures.py schedules xor` draws some. Every picture is made
from a fixed seed, so the files change only when the code does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from gipi import data, losses, models, optim, tasks
from gipi import nn as parts
from gipi.core.batch import Batch
from gipi.core.config import Recipe
from gipi.core.schema import Signature
from gipi.deploy import forecasts
from gipi.text import train_tokenizer
from gipi.train import evaluate, fit

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "pictures"
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")

STYLE = {
    "svg.hashsalt": "gipi",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": mpl.cycler(color=COLOURS),
    "axes.titlesize": 10,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
}


def save(figure: Any, name: str) -> None:
    """Write one picture; without a date, so that the same picture is the same file."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    plt.close(figure)


# ------------------------------------------------------------------------ house


LEVELS: tuple[tuple[str, ...], ...] = (
    ("core",),
    ("nn", "losses", "metrics", "optim", "text"),
    ("models", "data"),
    ("tasks",),
    ("train",),
    ("doctor",),
    ("study", "report", "deploy"),
    ("api",),
    ("cli",),
)


def house() -> None:
    """Draw the folders by level, and an arrow that says where imports point."""
    figure, ax = plt.subplots(figsize=(7, 4))
    height = 0.72
    for row, names in enumerate(LEVELS):
        width = 8 / len(names)
        for column, name in enumerate(names):
            colour = COLOURS[row % len(COLOURS)]
            box = mpl.patches.FancyBboxPatch(
                (column * width + 0.08, row), width - 0.16, height,
                boxstyle="round,pad=0,rounding_size=0.12",
                facecolor=colour + "22", edgecolor=colour,
            )  # fmt: skip
            ax.add_patch(box)
            ax.text((column + 0.5) * width, row + height / 2, name, ha="center", va="center")
    ax.annotate("", xy=(8.5, 0), xytext=(8.5, len(LEVELS) - 0.3), arrowprops={"arrowstyle": "->"})
    ax.text(8.6, len(LEVELS) / 2, "imports", rotation=90, va="center")
    ax.set_xlim(0, 9)
    ax.set_ylim(-0.1, len(LEVELS))
    ax.axis("off")
    save(figure, "house")


# ------------------------------------------------------------------------ schedules and descent


def schedules() -> None:
    """Draw every schedule against progress, and one with warm-up."""
    figure, ax = plt.subplots(figsize=(7, 2.8))
    progress = np.linspace(0, 1, 401)
    shown = [r.name for r in optim.SCHEDULES if r.name != "plateau"]
    for name in shown:
        schedule = optim.build_schedule(name)
        ax.plot(progress, [schedule(float(p)) for p in progress], label=name)
    warm = optim.build_schedule("cosine", warmup=0.1)
    ax.plot(progress, [warm(float(p)) for p in progress], "k:", label="cosine, warmup=0.1")
    ax.set_xlabel("progress of the run")
    ax.set_ylabel("lr / initial lr")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, "schedules")


def descent() -> None:
    """Draw paths of descent with three batch sizes on the same least-squares bowl."""
    rows = 256
    generator = torch.Generator().manual_seed(3)
    x_BF = torch.randn(rows, 2, generator=generator) * torch.tensor([1.0, 0.45])
    y_B = x_BF @ torch.tensor([1.0, -1.0]) + 0.6 * torch.randn(rows, generator=generator)
    best = torch.linalg.lstsq(x_BF, y_B[:, None]).solution[:, 0]
    grid = torch.linspace(-2.2, 2.2, 80)
    a, b = torch.meshgrid(grid + best[0], grid + best[1], indexing="xy")
    height = ((torch.stack([a, b], -1) @ x_BF.T - y_B) ** 2).mean(-1)

    figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.7), sharey=True)
    for ax, (title, batch_size) in zip(
        axes, [("batch_size=full", rows), ("batch_size=16", 16), ("batch_size=1", 1)], strict=True
    ):
        w = nn.Parameter(best + torch.tensor([-1.9, 1.8]))
        optimizer = torch.optim.SGD([w], lr=0.25 if batch_size > 1 else 0.08)
        path, order = [w.detach().clone()], torch.Generator().manual_seed(1)
        for _ in range(60):
            pick = torch.randperm(rows, generator=order)[:batch_size]
            total, count = losses.mse(x_BF[pick] @ w, y_B[pick])
            optimizer.zero_grad()
            (total / count).backward()
            optimizer.step()
            path.append(w.detach().clone())
        walk = torch.stack(path).numpy()
        ax.contour(a, b, height, levels=12, colors="#9ca3af", linewidths=0.6)
        ax.plot(walk[:, 0], walk[:, 1], "o-", markersize=2, linewidth=0.9, color=COLOURS[0])
        ax.plot(*best.numpy(), "*", color=COLOURS[1], markersize=10)
        ax.set_title(title)
        ax.set_xlabel("w₁")
    axes[0].set_ylabel("w₂")
    save(figure, "descent")


# ------------------------------------------------------------------------ equivalence


def equivalence() -> None:
    """Draw the distance from the undivided run: sums and counts, and the mean of means."""
    generator = torch.Generator().manual_seed(0)
    x_BF = torch.randn(1000, 12, generator=generator, dtype=torch.float64)
    y_B = (x_BF @ torch.randn(12, 3, generator=generator, dtype=torch.float64)).argmax(1)

    def run(pieces: int | None, *, mean_of_means: bool = False) -> list[Tensor]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 3)).double()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
        seen = []
        for step in range(50):
            pick = torch.randperm(1000, generator=torch.Generator().manual_seed(step))[:100]
            batch = Batch({"numbers": x_BF[pick]}, y_B[pick], rows=100)
            optimizer.zero_grad()
            parts_of_it = batch.split(pieces or 100)
            for part in parts_of_it:
                total, count = losses.cross_entropy(net(part.inputs["numbers"]), part.target)
                divisor = count * len(parts_of_it) if mean_of_means else batch.rows
                (total / divisor).backward()
            optimizer.step()
            seen.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
        return seen

    whole = run(None)
    figure, ax = plt.subplots(figsize=(7, 2.6))
    for label, other in [
        ("micro_batch=32, mean of means", run(32, mean_of_means=True)),
        ("micro_batch=32, sums and counts", run(32)),
        ("micro_batch=7, sums and counts", run(7)),
    ]:
        far = [float((a - b).norm() / a.norm()) for a, b in zip(whole, other, strict=True)]
        ax.semilogy(range(1, 51), np.maximum(far, 1e-18), label=label)
    ax.axhline(1e-10, color="#6b7280", linestyle=":", label="the law, float64")
    ax.set_xlabel("step")
    ax.set_ylabel("relative distance\nof the weights")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, "equivalence")


# ------------------------------------------------------------------------ perceptron


def frontier(ax: Axes, predict: Callable[[Tensor], Tensor], X: Tensor, y: Tensor) -> None:
    """Shade what a classifier of the plane answers, with its training points."""
    grid = torch.linspace(-0.5, 1.5, 160)
    a, b = torch.meshgrid(grid, grid, indexing="xy")
    points = torch.stack([a.flatten(), b.flatten()], 1)
    with torch.no_grad():
        answer = predict(points).reshape(a.shape)
    ax.contourf(
        a, b, answer, levels=[-0.5, 0.5, 1.5], colors=[COLOURS[0] + "33", COLOURS[3] + "55"]
    )
    for value, mark in ((0, "o"), (1, "s")):
        ax.plot(
            *X[y == value].T, mark, color=COLOURS[0] if value == 0 else COLOURS[3], markersize=8
        )
    ax.set_xticks([0, 1])
    ax.set_yticks([0, 1])
    ax.set_aspect("equal")


def rosenblatt(X: Tensor, y: Tensor, epochs: int) -> tuple[Callable[[Tensor], Tensor], list[int]]:
    """Learn by the perceptron rule; return the classifier and the mistakes of each epoch."""
    net = models.build("perceptron", Signature(numbers=2, outputs=1), seed=0, options={})
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    mistakes = []
    for _ in range(epochs):
        wrong = 0
        for x, t in zip(X, y, strict=True):
            score = net(x[None])
            total, _ = losses.perceptron(score, t[None])
            wrong += int(net.decide(x[None]) != t)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
        mistakes.append(wrong)
    return lambda points: net.decide(points).float(), mistakes


def xor() -> None:
    """Draw a perceptron on AND and on XOR, and an MLP with one hidden layer on XOR."""
    X = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y_and, y_xor = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 1, 0])
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.5), width_ratios=[1, 1, 1, 1.3])
    curves = {}
    for ax, title, y in ((axes[0], "perceptron, AND", y_and), (axes[1], "perceptron, XOR", y_xor)):
        predict, curves[title] = rosenblatt(X, y, 60)
        frontier(ax, predict, X, y)
        ax.set_title(title)
    net = models.build(
        "mlp", Signature(numbers=2, outputs=2), seed=1,
        options={"widths": [4], "activation": "tanh", "numbers": "plain"},
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    curve = []
    for epoch in range(300):
        total, count = losses.cross_entropy(net(X), y_xor)
        if epoch < 60:
            curve.append(int((net(X).argmax(1) != y_xor).sum()))
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    net.eval()
    frontier(axes[2], lambda points: net(points).argmax(1).float(), X, y_xor)
    axes[2].set_title("mlp, 4 hidden units, XOR")
    curves["mlp, XOR"] = curve
    for title, values in curves.items():
        axes[3].plot(range(1, len(values) + 1), values, label=title)
    axes[3].set_xlabel("epoch")
    axes[3].set_ylabel("mistakes of 4")
    axes[3].legend(fontsize=7)
    save(figure, "xor")


# ------------------------------------------------------------------------ activations


def activations() -> None:
    """Draw the activations, and the spread of a signal through thirty layers by each start."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 2.9), width_ratios=[1.2, 1, 1])
    x = torch.linspace(-4, 4, 401)
    for record in parts.ACTIVATIONS:
        axes[0].plot(x, record.build()(x).detach(), label=record.name, linewidth=1.1)
    axes[0].set_title("activations")
    axes[0].set_ylim(-2, 4)
    axes[0].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))

    width, depth, generator = 256, 30, torch.Generator().manual_seed(0)
    for ax, name in zip(axes[1:], ("relu", "tanh"), strict=True):
        function = parts.activation(name)
        for start in ("he", "xavier", "normal"):
            h = torch.randn(512, width, generator=generator, dtype=torch.float64)
            spread = []
            for _ in range(depth):
                weight = torch.empty(width, width, dtype=torch.float64)
                parts.INITS.get(start).build(weight, generator)
                h = function(h @ weight.T)
                spread.append(float(h.pow(2).mean().sqrt()))
            rule = " (the rule)" if parts.init_for(name) == start else ""
            ax.semilogy(range(1, depth + 1), np.maximum(spread, 1e-30), label=start + rule)
        ax.legend(fontsize=7, loc="lower left")
        ax.set_ylim(1e-12, 1e2)
        ax.set_title(f"signal through {depth} {name} layers")
        ax.set_xlabel("layer")
    axes[1].set_ylabel("root mean square")
    save(figure, "activations")


# ------------------------------------------------------------------------ augmentation


def augmentation() -> None:
    """Draw one digit, and what each augmentation makes of it in eight epochs."""
    digits, columns, row = data.open_data("digits"), 8, 5
    # The digits are grey, and keep their size; a mosaic needs boxes.
    fits = [r for r in data.AUGMENTATIONS if "colour" not in r.tags]
    names = [r.name for r in fits if r.name not in ("resize", "mosaic")]
    figure, axes = plt.subplots(
        len(names), columns + 1, figsize=(0.62 * (columns + 2), 0.66 * len(names))
    )
    for line, name in zip(axes, names, strict=True):
        plain = digits.stream("train", batch_size=16, shuffle=False)
        varied = digits.stream("train", batch_size=16, shuffle=False, augment=(name,))
        batches = [next(iter(plain.epoch(0)))]
        batches += [next(iter(varied.epoch(epoch))) for epoch in range(columns)]
        low, high = batches[0].inputs["image"].aminmax()
        for ax, batch in zip(line, batches, strict=True):
            picture = batch.inputs["image"][row, 0]
            ax.imshow(picture, cmap="gray", vmin=float(low), vmax=float(high))
            ax.axis("off")
        line[0].axis("on")
        line[0].set_xticks([])
        line[0].set_yticks([])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    axes[0][0].set_title("original")
    axes[0][1].set_title("epoch 1")
    axes[0][columns].set_title(str(columns))
    save(figure, "augmentation")


# ------------------------------------------------------------------------ forecast


def hours(count: int = 900) -> dict[str, np.ndarray]:
    """Return a generated series with a day, half a day, a slow drift and noise."""
    draw, t = np.random.default_rng(0), np.arange(count)
    dates = (np.datetime64("2024-01-01T00", "h") + t).astype("datetime64[us]")
    wave = 3 * np.sin(2 * np.pi * t / 24) + np.cos(2 * np.pi * t / 12)
    drift = np.cumsum(draw.normal(0, 0.05, count))
    return {"date": dates, "load": 20 + wave + drift + draw.normal(0, 0.5, count)}


def forecast() -> None:
    """Draw one window with its forecast, and the error by step ahead beside the naive rules."""
    ahead, past = 24, 72
    rows = data.open_data(hours(), data.DataOptions(task="forecast", horizon=ahead, lookback=past))
    task = tasks.forecast()
    model = models.build("dlinear", rows.signature(1))
    recipe = Recipe(epochs=15, batch_size=32, lr=0.01, precision="fp32", threads=1, gemm="native",
                    compile="off", layout="contiguous")  # fmt: skip
    fit(model, task, rows.stream("train", batch_size=32), recipe, schema=rows.schema)
    judged = evaluate(model, task, rows.stream("test", batch_size=64, shuffle=False),
                      schema=rows.schema, keep=True)  # fmt: skip
    found = forecasts.judge(judged, task, rows.schema, rows, samples=True)
    window = next(w for w in found["windows"] if w["kind"] == "median")["series"][0]
    figure, axes = plt.subplots(1, 2, figsize=(7.6, 2.7), width_ratios=(1.5, 1))
    before = np.arange(1 - len(window["past"]), 1)
    steps = np.arange(1, ahead + 1)
    axes[0].plot([*before, *steps], [*window["past"], *window["truth"]], label="truth")
    axes[0].plot(steps, window["forecast"], label="forecast")
    axes[0].axvline(0.5, color="grey", lw=0.8, ls=":")
    axes[0].set_title("a window: what the model saw, and the horizon")
    for rule, errors in found["by_step"].items():
        axes[1].plot(steps, errors, label=rule)
    axes[1].set_title("squared error by step ahead")
    for ax in axes:
        ax.set_xlabel("steps ahead")
        ax.legend(fontsize=7)
    save(figure, "forecast")


# ------------------------------------------------------------------------ sequences


def topologies() -> None:
    """Draw the four topologies of a recurrent net unrolled in time."""
    # title, steps that have an input, steps that have an output
    shapes = (
        ("sequence-to-vector", range(4), (3,)),
        ("sequence-to-sequence", range(4), range(4)),
        ("vector-to-sequence", (0,), range(4)),
        ("encoder-decoder", range(6), (3, 4, 5)),
    )
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.1), width_ratios=[4, 4, 4, 6])
    for ax, (title, entering, leaving) in zip(axes, shapes, strict=True):
        steps = max(*entering, *leaving) + 1
        for t in range(steps):
            colour = COLOURS[1] if title == "encoder-decoder" and t >= 3 else COLOURS[0]
            box = {"boxstyle": "round,pad=0.35", "facecolor": colour + "22", "edgecolor": colour}
            ax.text(t, 1, "h", ha="center", va="center", bbox=box)
            if t:
                _arrow(ax, (t - 0.72, 1), (t - 0.28, 1))
        for places, height, letter in ((entering, 0.0, "x"), (leaving, 2.0, "y")):
            for t in places:
                shown = letter
                if height == 0.0 and title == "encoder-decoder" and t >= 3:
                    shown = "y"  # what was written before is what is read next
                ax.text(t, height, shown, ha="center", va="center")
                _arrow(ax, (t, height * 0.55 + 0.2), (t, height * 0.55 + 0.6))
        if title == "encoder-decoder":
            for t, s in ((3, 0), (4, 1), (5, 2)):
                bend = {"connectionstyle": "arc3,rad=-0.45", "color": COLOURS[4], "linestyle": ":"}
                _arrow(ax, (s, 1.32), (t, 1.32), **bend)
        ax.set_title(title)
        ax.set_xlim(-0.5, steps - 0.5)
        ax.set_ylim(-0.3, 2.4)
        ax.axis("off")
    save(figure, "topologies")


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], **look: Any) -> None:
    ax.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "->", **look})


def recurrent() -> None:
    """Draw how far a gradient reaches back through each cell, and what a decoder looks at."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.9), width_ratios=[1.6, 1])
    steps, width, seed = 100, 32, torch.Generator().manual_seed(0)
    x_BTD = torch.randn(16, steps, 8, generator=seed).requires_grad_()
    for cell, bias in (("rnn", None), ("lstm", None), ("lstm", 0.0), ("gru", None)):
        net = parts.Recurrent(8, width, generator=torch.Generator().manual_seed(1), cell=cell)
        if bias is not None:
            with torch.no_grad():
                net.get_parameter("levels.0.0.bias_ih_l0").fill_(bias)
        slope_BTD = torch.autograd.grad(net(x_BTD)[:, -1].sum(), x_BTD)[0]
        reach_T = slope_BTD.norm(dim=2).mean(0).flip(0)
        label = cell if bias is None else f"{cell}, forget bias 0"
        axes[0].semilogy(range(steps), np.maximum(reach_T.numpy(), 1e-20), label=label)
    axes[0].set_xlabel("steps back")
    axes[0].set_ylabel("size of the gradient")
    axes[0].set_title("before training")
    axes[0].legend()

    letters, longest = "abcdefgh", 7
    word_BS = torch.randint(1, 1 + len(letters), (2000, longest), generator=seed)
    net = models.build(
        "gru", Signature(vocab=2 + len(letters), outputs=2 + len(letters)), seed=0,
        options={"topology": "encoder-decoder", "width": 32, "embedding": 16},
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    begin = torch.full((len(word_BS), 1), 1 + len(letters))
    back_BT = word_BS.flip(1)
    entered_BT = torch.cat([begin, back_BT[:, :-1]], 1)
    for step in range(400):
        pick = slice(64 * step % 1920, 64 * step % 1920 + 64)
        scores = net(word_BS[pick], entered_BT[pick])
        optimizer.zero_grad()
        nn.functional.cross_entropy(scores.flatten(0, 1), back_BT[pick].flatten()).backward()
        optimizer.step()
    weights_TS = net.alignment(word_BS[:1], entered_BT[:1])[0].detach().numpy()
    axes[1].imshow(weights_TS, cmap="Blues", vmin=0, vmax=1)
    read = [letters[int(i) - 1] for i in word_BS[0]]
    axes[1].set_xticks(range(longest), read)
    axes[1].set_yticks(range(longest), read[::-1])
    axes[1].set_xlabel("read")
    axes[1].set_ylabel("written")
    axes[1].set_title("weights of the attention")
    save(figure, "recurrent")


# ------------------------------------------------------------------------ tokenizers


SMALL_CORPUS = (
    "low lower lowest low low lower slow slower slowest slow",
    "new newer newest new renew renewed wide wider widest widely",
    "the slow river is the widest and the lowest of the new rivers",
    "a newer and wider road is slower than the old and lower one",
) * 3
SENTENCE = "the newest river is widening slowly"


def tokenizers() -> None:
    """Draw the same sentence cut by every kind of tokenizer, trained on the same few lines."""
    kinds = {"char": 60, "bpe": 300, "wordpiece": 80, "unigram": 70, "word": 80}
    figure, ax = plt.subplots(figsize=(7.5, 2.6))
    for row, (kind, vocab) in enumerate(kinds.items()):
        made = train_tokenizer(SMALL_CORPUS, kind=kind, vocab=vocab)
        found = made.encode(SENTENCE, special=False)
        y = len(kinds) - row
        ax.text(-1, y, kind, ha="right", va="center")
        for number, (a, b) in enumerate(found.offsets.tolist()):
            unknown = found.ids[number] == made.unk
            colour = "#9ca3af" if unknown else COLOURS[number % 5]
            box = mpl.patches.FancyBboxPatch(
                (a + 0.06, y - 0.32), b - a - 0.12, 0.64,
                boxstyle="round,pad=0,rounding_size=0.2",
                facecolor=colour + ("55" if unknown else "22"), edgecolor=colour,
            )  # fmt: skip
            ax.add_patch(box)
        for place, letter in enumerate(SENTENCE):
            ax.text(place + 0.5, y, letter, ha="center", va="center", family="monospace")
        ax.text(len(SENTENCE) + 0.8, y, f"{len(found)} tokens", va="center")
    ax.set_xlim(-6, len(SENTENCE) + 6)
    ax.set_ylim(0.5, len(kinds) + 0.5)
    ax.axis("off")
    save(figure, "tokenizers")


PICTURES: dict[str, Callable[[], None]] = {
    "house": house,
    "schedules": schedules,
    "descent": descent,
    "equivalence": equivalence,
    "xor": xor,
    "activations": activations,
    "augmentation": augmentation,
    "forecast": forecast,
    "topologies": topologies,
    "recurrent": recurrent,
    "tokenizers": tokenizers,
}


def main() -> None:
    """Draw the pictures that were named, or all."""
    mpl.use("Agg")
    plt.rcParams.update(STYLE)
    torch.set_num_threads(1)
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name]()
        print(f"docs/pictures/{name}.svg")


if __name__ == "__main__":
    main()
