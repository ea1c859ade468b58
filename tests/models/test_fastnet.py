"""FastNet: shapes, whitening, identity start, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from gipi import models
from gipi.core.errors import ConfigError, ModelError
from gipi.core.schema import Signature


def net(image: tuple[int, int, int] = (3, 32, 32), **options: object) -> torch.nn.Module:
    """A narrow FastNet for pictures of this shape."""
    chosen = {"widths": (8, 16), **options}
    return models.build("fastnet", Signature(image=image, outputs=5), options=chosen)


@pytest.mark.parametrize("image", [(3, 32, 32), (1, 28, 28), (3, 40, 17), (4, 64, 64)])
def test_any_picture(image: tuple[int, int, int]) -> None:
    """Outputs and stage maps have the shapes that are stated."""
    model = net(image)
    x = torch.randn(2, *image)
    assert model(x).shape == (2, 5)
    maps = model.features(x)
    assert [m.shape[1] for m in maps] == list(model.feature_channels)
    assert len(maps) == len(model.feature_strides) == 2


def test_parameters_of_the_default() -> None:
    """64-256-256 on CIFAR-10: counted by hand, layer by layer."""
    model = models.build("fastnet", Signature(image=(3, 32, 32), outputs=10))
    whiten = 24 * 12 + 24
    blocks = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 256 * 256 + 256 * 256 + 256 * 256)
    norms = 2 * 2 * (64 + 256 + 256)
    assert sum(p.numel() for p in model.parameters()) == whiten + blocks + norms + 2560


def test_the_first_layer_whitens() -> None:
    """Answers on correlated pictures are uncorrelated and have variance one; both signs exist."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, 34, 34, generator=generator)
    x = torch.nn.functional.avg_pool2d(x, 3, 1) * 2 + x[:, :1, 1:-1, 1:-1] + 3  # correlated
    model = net()
    assert not model.whiten.weight.requires_grad
    model.first_look(x)
    said = torch.nn.functional.conv2d(x.double(), model.whiten.weight.double())
    rows = said.transpose(0, 1).reshape(24, -1)
    covariance = torch.cov(rows)[:12, :12]
    assert torch.allclose(covariance, torch.eye(12).double(), atol=0.02)
    assert torch.equal(model.whiten.weight[:12], -model.whiten.weight[12:])


def test_without_whitening_the_first_layer_learns() -> None:
    """The option leaves weights as drawn, and free."""
    model = net(whiten=False)
    before = model.whiten.weight.clone()
    model.first_look(torch.randn(8, 3, 32, 32))
    assert model.whiten.weight.requires_grad
    assert torch.equal(before, model.whiten.weight)


def test_a_block_begins_as_the_identity() -> None:
    """The first convolution passes its input on in its first channels."""
    model = net((3, 32, 32), widths=(32,))
    x = torch.randn(1, 24, 31, 31)
    assert torch.allclose(model.blocks[0].conv1(x)[:, :24], x, atol=1e-6)


def test_large_pictures_are_averaged_down() -> None:
    """With side=32 the net sees what averaging 2x2 squares makes of 64x64 pixels."""
    large, small = net((3, 64, 64), side=32), net((3, 32, 32))
    large.load_state_dict(small.state_dict())
    x = torch.randn(2, 3, 64, 64)
    pooled = torch.nn.functional.avg_pool2d(x, 2)
    assert torch.allclose(large.eval()(x), small.eval()(pooled), atol=1e-6)
    assert large.feature_strides == (4, 8)


def test_answers_are_averaged_over_the_mirror_image_outside_training_only() -> None:
    """A picture and its mirror image get the same answer, the mean of what each gets alone."""
    looks, plain = net(mirror=True).eval(), net().eval()
    x = torch.randn(3, 3, 32, 32)
    mean = (plain(x) + plain(x.flip(3))) / 2
    assert torch.equal(looks(x), mean)
    assert not torch.allclose(plain(x), mean, atol=1e-4)
    looks.train()
    plain.train()
    assert torch.equal(looks(x), plain(x))


def test_refusals() -> None:
    """Tables, and more blocks than the picture can be halved."""
    with pytest.raises(ModelError, match="table"):
        models.build("fastnet", Signature(numbers=3, outputs=2))
    with pytest.raises(ConfigError, match="5 blocks on 32x32"):
        net(widths=(8, 8, 8, 8, 8))
