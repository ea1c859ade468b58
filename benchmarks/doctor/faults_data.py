"""Faults that lie in the rows: values, targets, splits, order, augmentation."""

from __future__ import annotations

import torch
from benchmarks.doctor.setup import Fault, Setup, sgd
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

TABLES = ("clouds_mlp", "friedman_mlp", "three_mlp", "cancer_mlp", "diabetes_mlp")
IMAGES = ("digits_cnn", "gratings_cnn", "spots_cnn")
SERIES = ("waves_gru", "waves_conv", "recall_gru", "forecast_rnn")
CLASSES = ("digits_mlp", "clouds_mlp", "digits_cnn", "gratings_cnn", "waves_gru", "reviews_bag")
NUMBERS = ("friedman_mlp", "diabetes_mlp", "three_mlp", "spots_cnn", "forecast_rnn")


def columns(s: Setup, share: float) -> Tensor:
    """Return some of the last dimension's columns (channels of images), at least one."""
    width = s.train[0].shape[-1]
    count = max(1, round(width * share))
    return torch.randperm(width, generator=s.generator("columns"))[:count]


def holes(s: Setup, share: float, value: float, *, of: float) -> None:
    """Put `value` into a share of the cells of some columns, in all splits."""
    g, which = s.generator("holes"), columns(s, of)

    def change(X: Tensor) -> Tensor:
        X = X.clone()
        hit = torch.rand(X[..., which].shape, generator=g) < share
        X[..., which] = torch.where(hit, value, X[..., which])
        return X

    s.inputs(change)


def missing(s: Setup, share: float) -> None:
    """A share of the cells of a third of the columns is NaN."""
    holes(s, share, float("nan"), of=0.34)


def sentinel(s: Setup, share: float) -> None:
    """A share of the cells of a fifth of the columns is -999, for "unknown"."""
    holes(s, share, -999.0, of=0.2)


def huge_sentinel(s: Setup, share: float) -> None:
    """As `sentinel`, with 1e6."""
    holes(s, share, 1e6, of=0.15)


def wild_columns(s: Setup, factor: float) -> None:
    """A third of the columns is in units that are `factor` times smaller, with an offset."""
    which = columns(s, 0.34)

    def change(X: Tensor) -> Tensor:
        X = X.clone()
        X[..., which] = X[..., which] * factor + factor
        return X

    s.inputs(change)


def raw_bytes(s: Setup, factor: float) -> None:
    """Images stay in 0..255 (`factor` 255), and the rate is one that fits scaled ones."""
    low, high = float(s.train[0].min()), float(s.train[0].max())
    s.inputs(lambda X: (X - low) / (high - low) * factor)


def _momentum(s: Setup, _: float) -> None:
    s.optimizer, s.lr = sgd, 0.02


def far_off(s: Setup, offset: float) -> None:
    """Sensors with a large constant reading: a scale of 30 around `offset`."""
    s.inputs(lambda X: 30 * X + offset)


def big_targets(s: Setup, scale: float) -> None:
    """Targets in their own unit, as prices are: scale * y + 3 * scale."""
    s.targets(lambda y: scale * y + 3 * scale)


def order_of(s: Setup) -> Tensor:
    """Return the training rows' order by class or first target."""
    y = s.train[1]
    return torch.argsort(y if y.ndim == 1 else y.flatten(1)[:, 0], stable=True)


def sorted_rows(s: Setup, _: float) -> None:
    """Rows are sorted by target and read in that order."""
    order = order_of(s)
    s.each(lambda X, y: (X[order], y[order]), "train")
    s.shuffle = False


def sorted_loader(s: Setup, _: float) -> None:
    """As `sorted_rows`, in a loader that was made without shuffle."""
    order = order_of(s)
    s.each(lambda X, y: (X[order], y[order]), "train")
    s.loader = lambda pair, size: DataLoader(TensorDataset(*pair), batch_size=size)


def _rare(s: Setup, ratio: float) -> None:
    """Class 0 becomes `ratio` times rarer in train and val; classes overlap."""
    g = s.generator("rare")
    if s.train[0].is_floating_point():
        s.inputs(lambda X: X + 0.6 * X.std() * torch.randn(X.shape, generator=g))

    def thin(X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        keep = (y != 0) | (torch.rand(len(y), generator=g) < 1 / ratio)
        keep[(y == 0).nonzero()[:4]] = True
        return X[keep], y[keep]

    s.each(thin, "train", "val")
    s.epochs *= 1.5


def _weighted(s: Setup, _: float) -> None:
    count = torch.bincount(s.train[1], minlength=s.facts["classes"]).float()
    s.loss = nn.CrossEntropyLoss(weight=count.sum() / (len(count) * count))


def nothing(_: Setup, __: float) -> None:
    """The base says it all."""


def rolled(s: Setup, lag: float) -> None:
    """Targets of train and val were joined some rows off."""
    s.targets(lambda y: y.roll(round(lag), 0), "train", "val")


def permuted(s: Setup, _: float) -> None:
    """Targets of train and val were joined in another order."""
    g = s.generator("permuted")
    s.targets(lambda y: y[torch.randperm(len(y), generator=g)], "train", "val")


def flipped(s: Setup, share: float) -> None:
    """A share of the labels of train and val is any other class."""
    g, classes = s.generator("flipped"), s.facts["classes"]

    def change(y: Tensor) -> Tensor:
        wrong = (y + torch.randint(1, classes, y.shape, generator=g)) % classes
        return torch.where(torch.rand(y.shape, generator=g) < share, wrong, y)

    s.targets(change, "train", "val")
    s.epochs *= 2


def _longer(s: Setup, _: float) -> None:
    s.epochs *= 2


def _leak(s: Setup, noise: float, *, where: tuple[str, ...]) -> None:
    """Put the target with noise into the last column of some splits, noise into the others'."""
    g = s.generator("leak")
    mean = s.train[1].float().mean()
    std = s.train[1].float().std()

    def told(X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        X, y_ = X.clone(), (y.float().reshape(len(y), -1)[:, 0] - mean) / std
        X[..., -1] = (y_ + noise * torch.randn(len(y), generator=g)).reshape(
            -1, *[1] * (X.ndim - 2)
        )
        return X, y

    def noisy(X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        X = X.clone()
        X[..., -1] = torch.randn(X[..., -1].shape, generator=g)
        return X, y

    for split in ("train", "val", "test"):
        s.each(told if split in where else noisy, split)


def leak(s: Setup, noise: float) -> None:
    """The last column holds the answer in train and val, and is empty talk in use."""
    _leak(s, noise, where=("train", "val"))


def no_leak(s: Setup, noise: float) -> None:
    """The last column is noise everywhere."""
    _leak(s, noise, where=())


def overlap(s: Setup, share: float) -> None:
    """A share of the validation rows is training rows."""
    g = s.generator("overlap")
    X, y = s.train
    Xv, yv = (v.clone() for v in s.val)  # type: ignore[union-attr]
    count = round(len(yv) * share)
    into = torch.randperm(len(yv), generator=g)[:count]
    taken = torch.randperm(len(y), generator=g)[:count]
    Xv[into], yv[into] = X[taken], y[taken]
    s.val = (Xv, yv)


def repeated(s: Setup, unique: float) -> None:
    """Only a share `unique` of the training rows is there, each many times."""
    count = max(16, round(len(s.train[1]) * unique))
    again = torch.arange(len(s.train[1])) % count
    order = torch.randperm(len(again), generator=s.generator("repeated"))
    s.each(lambda X, y: (X[again[order]], y[again[order]]), "train")


def split_by_column(s: Setup, _: float) -> None:
    """Validation rows are those with the largest first column (mean brightness of images)."""
    _split(s, lambda X, y: X.reshape(len(X), -1)[:, 0] if X.ndim == 2 else X.flatten(1).mean(1))


def split_by_class(s: Setup, _: float) -> None:
    """Validation rows are those of the last classes: rows were cut before they were shuffled."""
    _split(s, lambda X, y: y.float() if y.ndim == 1 else y.flatten(1)[:, 0])


def _split(s: Setup, key) -> None:
    X, y = (torch.cat(parts) for parts in zip(s.train, s.val, strict=True))  # type: ignore[arg-type]
    order = torch.argsort(key(X, y), stable=True)
    train = order[: len(s.train[1])]
    train = train[torch.randperm(len(train), generator=s.generator("split"))]
    val = order[len(train) :]
    s.train, s.val = (X[train], y[train]), (X[val], y[val])


def val_other_scale(s: Setup, factor: float) -> None:
    """Validation rows went through another preparation: scale and shift."""
    s.inputs(lambda X: factor * X + factor, "val")


def val_raw(s: Setup, _: float) -> None:
    """Validation images stayed in 0..255."""
    low, high = float(s.train[0].min()), float(s.train[0].max())
    s.inputs(lambda X: (X - low) / (high - low) * 255, "val")


def loud(s: Setup, strength: float) -> None:
    """Augmentation adds noise that is `strength` times as loud as the data."""
    std = float(s.train[0].std())
    s.transform = lambda X: X + strength * std * torch.randn_like(X)


def scrambled(s: Setup, _: float) -> None:
    """Augmentation shuffles the places of every row."""

    def change(X: Tensor) -> Tensor:
        if X.ndim == 4:
            flat = X.flatten(2)
            order = torch.rand(len(X), 1, flat.shape[-1]).argsort(-1)
            return flat.gather(2, order.expand_as(flat)).reshape(X.shape)
        order = torch.rand(X.shape[:2]).argsort(-1)
        return X.gather(1, order[..., None].expand_as(X) if X.ndim == 3 else order)

    s.transform = change


def erased(s: Setup, share: float) -> None:
    """Augmentation erases a share of every row's values."""
    s.transform = lambda X: X * (torch.rand(X.shape) >= share)


def few_rows(s: Setup, share: float) -> None:
    """Train on a share of the rows, for `Fault.base` of overfitting."""
    keep = max(24, round(len(s.train[1]) * share))
    s.each(lambda X, y: (X[:keep], y[:keep]), "train")


FAULTS = (
    Fault("missing", "nan_in_data", missing, (*TABLES, "waves_gru", "spots_cnn"), 0.005, 0.05),
    Fault("sentinel", "sentinel_values", sentinel, (*TABLES, "waves_conv"), 0.02, 0.1),
    Fault("huge_sentinel", "sentinel_values", huge_sentinel, ("clouds_mlp", "three_mlp", "recall_gru"), 0.02, 0.06),
    Fault("wild_columns", "unnormalised_input", wild_columns,
          ("clouds_mlp", "friedman_mlp", "three_mlp", "cancer_mlp", "forecast_rnn", "waves_conv"), 300, 3e4),
    Fault("raw_bytes", "unnormalised_input", raw_bytes, IMAGES, 255, 255, base=_momentum),
    Fault("far_off", "unnormalised_input", far_off, ("waves_gru", "recall_gru", "moons_mlp", "diabetes_mlp"), 300, 3000),
    Fault("big_targets", "target_unscaled", big_targets, NUMBERS, 30, 1000),
    Fault("sorted_rows", "data_not_shuffled", sorted_rows, (*CLASSES, "friedman_mlp", "digits_bncnn")),
    Fault("sorted_loader", "data_not_shuffled", sorted_loader, ("clouds_mlp", "waves_conv", "gratings_cnn", "reviews_lstm")),
    Fault("rare_class", "class_imbalance", nothing, ("clouds_mlp", "moons_mlp", "reviews_bag", "waves_conv"), 15, 40,
          base=_rare, twin=_weighted),
    Fault("rolled", "labels_misaligned", rolled, (*CLASSES, "friedman_mlp"), 1, 5, auto=False),
    Fault("permuted", "labels_misaligned", permuted, (*CLASSES, "spots_cnn", "cancer_mlp"), auto=False),
    Fault("flipped", "label_noise", flipped, (*CLASSES, "waves_conv"), 0.15, 0.4, auto=False, twin=_longer),
    Fault("leak", "target_leak", leak, ("friedman_mlp", "clouds_mlp", "cancer_mlp", "diabetes_mlp"), 0.01, 0.08,
          auto=False, twin=no_leak),
    Fault("overlap", "train_val_overlap", overlap,
          ("clouds_mlp", "digits_cnn", "diabetes_mlp", "waves_gru", "reviews_lstm", "friedman_mlp"), 0.2, 0.9),
    Fault("repeated", "duplicate_rows", repeated, ("clouds_mlp", "friedman_mlp", "gratings_cnn", "waves_gru"), 0.1, 0.3,
          auto=False),
    Fault("split_by_column", "train_val_shift", split_by_column,
          ("friedman_mlp", "clouds_mlp", "three_mlp", "digits_cnn"), auto=False),
    Fault("split_by_class", "train_val_shift", split_by_class,
          ("digits_mlp", "waves_gru", "reviews_bag", "friedman_mlp"), auto=False),
    Fault("val_other_scale", "preprocessing_mismatch", val_other_scale,
          ("clouds_mlp", "friedman_mlp", "waves_conv", "cancer_mlp", "forecast_rnn"), 6, 60, also=("train_val_shift",)),
    Fault("val_raw", "preprocessing_mismatch", val_raw, (*IMAGES, "pictures_auto"), also=("train_val_shift",)),
    Fault("loud", "augmentation_destroys_signal", loud, ("clouds_mlp", "digits_cnn", "waves_conv", "friedman_mlp"), 3, 8),
    Fault("scrambled", "augmentation_destroys_signal", scrambled, ("waves_gru", "order_gru", "digits_bncnn", "gratings_cnn")),
    Fault("erased", "augmentation_destroys_signal", erased, ("clouds_mlp", "digits_mlp", "waves_conv"), 0.85, 0.95),
)  # fmt: skip
