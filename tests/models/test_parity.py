"""The published nets: parameter counts, names and shapes of tensors, and answers.

keys/*.txt hold names and shapes with their source; keys/logits.json holds what torchvision's nets
answer with the weights of `oracle.hot`, written by `python -m tests.models.write_logits`.
"""

from __future__ import annotations

import pytest
import torch
from tests.models.oracle import hot, keys, logits, pictures, torchvision_models
from torch import nn
from torch.nn import functional as F

from gipi import models
from gipi.core.schema import Signature
from gipi.models.densenet import DenseNet
from gipi.models.googlenet import ConvUnit

SIDES = {"alexnet": 96}
TORCHVISION = (
    "alexnet", "googlenet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "densenet121", "densenet161", "densenet169", "densenet201",
)  # fmt: skip
WRITTEN = ("alexnet", "googlenet", "resnet18", "resnet50", "densenet121")
CIFAR_LINE = {"resnet20": 269_722, "resnet32": 464_154, "resnet44": 658_586, "resnet56": 853_018,
              "resnet110": 1_727_962}  # fmt: skip
TOLERANCE = 1e-10


def build(name: str, side: int = 224, *, classes: int = 1000, **options) -> nn.Module:
    if name == "googlenet":
        options.setdefault("auxiliary", True)
    if side < 224 and name in TORCHVISION:
        options.setdefault("stem", "imagenet")
    signature = Signature(image=(3, side, side), outputs=classes)
    return models.build(name, signature, options=options)


def check_keys(name: str, module: nn.Module) -> None:
    """Assert that names and shapes are those of the committed list, and the count with them."""
    count, shapes = keys(name)
    assert {k: tuple(v.shape) for k, v in module.state_dict().items()} == shapes
    assert sum(p.numel() for p in module.parameters()) == count


def check_logits(name: str, module: nn.Module, case: str | None = None) -> None:
    """Assert that the hot net answers what torchvision's answers."""
    side = SIDES.get(name, 64)
    with torch.no_grad():
        found = hot(module).eval()(pictures(2, side))[:, :8]
    expected = logits(case or name)
    assert expected.abs().max() > 0.1  # an answer of zeros would compare nothing
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", TORCHVISION)
def test_names_shapes_and_counts_are_the_published_ones(name):
    check_keys(name, build(name, SIDES.get(name, 64)))


@pytest.mark.parametrize("name", list(CIFAR_LINE))
def test_the_cifar_line_has_the_published_counts(name):
    module = build(name, 32, classes=10)
    assert sum(p.numel() for p in module.parameters()) == CIFAR_LINE[name]
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in module.modules()) == int(name[6:])


@pytest.mark.parametrize("name", ["resnet20", "resnet32"])
def test_the_cifar_line_has_the_names_of_the_published_checkpoints(name):
    module = build(name, 32, classes=10)
    _, shapes = keys(name)
    own = {k: tuple(v.shape) for k, v in module.state_dict().items() if "num_batches" not in k}
    assert own == shapes


@pytest.mark.parametrize("name", WRITTEN)
def test_answers_are_those_written_down(name):
    check_logits(name, build(name, SIDES.get(name, 64)))


@pytest.mark.parametrize("name", TORCHVISION)
def test_answers_are_those_of_torchvision(name):
    published = torchvision_models()
    side = SIDES.get(name, 64)
    extra = {"init_weights": False} if name == "googlenet" else {}
    theirs = hot(getattr(published, name)(weights=None, **extra)).eval()
    ours = hot(build(name, side)).eval()
    x = pictures(2, side)
    with torch.no_grad():
        expected = theirs(x)
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(ours(x), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "densenet121"])
def test_batch_statistics_and_training_answers_are_those_of_torchvision(name):
    published = torchvision_models()
    extra = {"init_weights": False} if name == "googlenet" else {}
    theirs, ours = hot(getattr(published, name)(weights=None, **extra)), hot(build(name, 64))
    for module in (*theirs.modules(), *ours.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    x = pictures(4, 64)
    with torch.no_grad():
        expected, found = theirs.train()(x), ours.train()(x)
    if name == "googlenet":
        expected = torch.stack([expected.logits, expected.aux_logits1, expected.aux_logits2], 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)
    for key, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], tensor, rtol=0, atol=TOLERANCE)


# ------------------------------------------------------------ the details that people get wrong


def test_a_resnet_with_its_stride_in_the_first_convolution_fails():
    moved = build("resnet50", 64, variant="v1")
    check_keys("resnet50", moved)  # names and shapes cannot tell the two apart
    with pytest.raises(AssertionError, match="not close"):
        check_logits("resnet50", moved)


def test_the_stride_stands_where_the_variant_says():
    for variant, first, second in (("v1.5", 1, 2), ("v1", 2, 1)):
        block = build("resnet50", 64, variant=variant).layer2[0]
        assert block.conv1.stride == (first, first)
        assert block.conv2.stride == (second, second)


def test_transform_input_is_that_of_the_published_googlenet():
    check_logits("googlenet", build("googlenet", 64, transform_input=True), "googlenet-transform")
    with pytest.raises(AssertionError, match="not close"):
        check_logits("googlenet", build("googlenet", 64), "googlenet-transform")


def spoil_eps(module):
    for unit in module.modules():
        if isinstance(unit, ConvUnit):
            unit.bn.eps = 1e-5


def spoil_ceil(module):
    for pool in (module.maxpool1, module.maxpool2, module.maxpool3):
        pool.ceil_mode = False


def spoil_last_pool(module):
    module.maxpool4.kernel_size = 3


@pytest.mark.parametrize("spoil", [spoil_eps, spoil_ceil, spoil_last_pool])
def test_a_googlenet_with_a_wrong_detail_fails(spoil):
    module = build("googlenet", 64)
    spoil(module)
    with pytest.raises(AssertionError, match="not close"):
        check_logits("googlenet", module)


def test_the_third_branch_is_3x3_in_the_published_weights_and_5x5_in_the_paper():
    assert build("googlenet", 64).inception3a.branch3[1].conv.kernel_size == (3, 3)
    assert build("googlenet", 64, variant="2014").inception3a.branch3[1].conv.kernel_size == (5, 5)


def test_blocks_of_the_2014_net_have_the_weights_of_the_papers_table():
    """Table 1 counts weights without biases in thousands, some rows up to 7.5 % off."""
    net = build("googlenet", 224, variant="2014", auxiliary=False)
    assert sum(p.numel() for p in net.parameters()) == 6_998_552
    table = {"inception3a": 159, "inception3b": 380, "inception4a": 364, "inception4b": 437,
             "inception4c": 463, "inception4d": 580, "inception4e": 840, "inception5a": 1072,
             "inception5b": 1388, "fc": 1000}  # fmt: skip
    for name, thousands in table.items():
        weights = [p for k, p in net.get_submodule(name).named_parameters() if k.endswith("weight")]
        count = sum(p.numel() for p in weights) / 1024
        assert count == pytest.approx(thousands, rel=0.08), name
    conv2 = net.conv2.conv.weight.numel() + net.conv3.conv.weight.numel()
    assert conv2 / 1024 == 112


def test_auxiliary_heads_stand_in_the_order_of_depth():
    """The head on 4a is second, that on 4d third; torchvision's tuple has them the other way."""
    net = build("googlenet", 64).train()
    net.aux1.requires_grad_(False)
    seen = []
    net.aux1.register_forward_hook(lambda *_: seen.append("4a"))
    net.aux2.register_forward_hook(lambda *_: seen.append("4d"))
    with torch.no_grad():
        net.aux1.fc2.weight.zero_()
        net.aux1.fc2.bias.fill_(1.0)
        net.aux2.fc2.weight.zero_()
        net.aux2.fc2.bias.fill_(2.0)
        out = net(torch.randn(2, 3, 64, 64))
    assert out.shape == (2, 3, 1000)
    assert (out[:, 1] == 1).all()
    assert (out[:, 2] == 2).all()
    assert seen == ["4a", "4d"]
    assert net.aux1.conv.conv.in_channels == 512
    assert net.aux2.conv.conv.in_channels == 528


def test_the_published_mean_of_an_auxiliary_head_is_5x5_of_stride_3():
    net = build("googlenet", 64, variant="2014")
    x = torch.randn(2, 512, 14, 14)
    y = net.aux1.conv(F.avg_pool2d(x, 5, 3))
    expected = net.aux1.fc2(F.relu(net.aux1.fc1(y.flatten(1))))
    torch.testing.assert_close(net.aux1.eval()(x), expected)
    assert net.aux1(torch.randn(2, 512, 4, 4)).shape == (2, 1000)  # any other size goes, too


# ------------------------------------------------------------ the nets without published weights


def test_alexnet_of_2012_has_the_papers_layers():
    net = build("alexnet", 224, variant="2012")
    counts = {n: sum(p.numel() for p in m.parameters()) for n, m in net.features.named_children()}
    assert {n: c for n, c in counts.items() if c} == {
        "conv1": 34_944, "conv2": 307_456, "conv3": 885_120, "conv4": 663_936, "conv5": 442_624,
    }  # fmt: skip
    dense = [m for m in net.classifier if isinstance(m, nn.Linear)]
    assert [sum(p.numel() for p in m.parameters()) for m in dense] == [
        37_752_832, 16_781_312, 4_097_000,
    ]  # fmt: skip
    assert sum(p.numel() for p in net.parameters()) == 60_965_224
    maps = net.features(torch.zeros(1, 3, 224, 224))
    assert [tuple(m.shape[1:]) for m in maps] == [(96, 55, 55), (256, 27, 27), (256, 13, 13)]
    assert (net.features.conv2.bias == 1).all()
    assert (net.features.conv1.bias == 0).all()
    assert net.features.conv3.weight.std().item() == pytest.approx(0.01, rel=0.01)


def test_each_group_of_2012_sees_its_half_of_the_maps():
    conv2 = build("alexnet", 224, variant="2012").features.conv2
    x = torch.zeros(1, 96, 5, 5)
    base = conv2(x)
    x[:, :48] = torch.randn(48, 5, 5)
    moved = (conv2(x) != base).flatten(2).any(2)[0]
    assert moved[:128].all()
    assert not moved[128:].any()


def test_response_normalisation_is_the_papers_formula():
    layer = build("alexnet", 224, variant="2012").features.norm1.double()
    x = 30 * torch.randn(2, 9, 3, 3, dtype=torch.float64)
    k, n, alpha, beta = 2.0, 5, 1e-4, 0.75
    for i in range(9):
        near = x[:, max(0, i - n // 2) : min(9, i + n // 2 + 1)].square().sum(1)
        torch.testing.assert_close(layer(x)[:, i], x[:, i] / (k + alpha * near) ** beta)


@pytest.mark.parametrize(("depth", "growth", "count"), [(100, 12, 769_162), (190, 40, 25_624_430)])
def test_densenet_bc_has_the_published_counts(depth, growth, count):
    """The paper's Table 2 says 0.8M and 25.6M."""
    net = build("densenet-bc", 32, classes=10, depth=depth, growth=growth)
    assert sum(p.numel() for p in net.parameters()) == count


def densenets(**options) -> list[DenseNet]:
    return [
        hot(build("densenet-bc", 8, classes=3, growth=4, memory_efficient=saving,
                  **{"depth": 16, **options}))
        for saving in (False, True)
    ]  # fmt: skip


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_recomputing_counts_the_batch_once_and_changes_nothing(norm):
    plain, saving = densenets(norm=norm)
    x = pictures(3, 8)
    for net in (plain, saving):
        for _ in range(2):
            net.train()(x).square().sum().backward()
    for (name, a), (_, b) in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-12, msg=name)
    for key, tensor in plain.state_dict().items():
        assert torch.equal(saving.state_dict()[key], tensor), key
        if key.endswith("num_batches_tracked"):
            assert tensor.item() == 2
    norms = [m for m in saving.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.track_running_stats for m in norms)


def test_statistics_would_be_counted_twice_without_the_guard(monkeypatch):
    from contextlib import nullcontext

    from gipi.models import densenet

    monkeypatch.setattr(densenet, "statistics_kept", lambda layer: nullcontext())
    plain, saving = densenets()
    for net in (plain, saving):
        net.train()(pictures(3, 8)).square().sum().backward()
    key = "features.denseblock1.denselayer1.norm1.num_batches_tracked"
    assert plain.state_dict()[key].item() == 1
    assert saving.state_dict()[key].item() == 2


def test_recomputing_keeps_fewer_maps():
    kept = []
    for net in densenets(depth=70):
        saved = []

        def keep(tensor, saved=saved):
            saved.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            net.train()(pictures(16, 8))
        parameters = {p.data_ptr() for p in net.parameters()}
        sizes = {t.data_ptr(): t.numel() for t in saved if t.data_ptr() not in parameters}
        kept.append(sum(sizes.values()))
    assert kept[1] < 0.6 * kept[0]
