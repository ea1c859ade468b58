"""The watch within the Hugging Face Trainer and Lightning, where they are installed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.doctor.patients import blobs
from torch import nn

from gipi.core.errors import MissingExtra, RequestError
from gipi.doctor import bridges

if TYPE_CHECKING:
    from pathlib import Path


def rows() -> list[dict[str, torch.Tensor]]:
    """Two kinds of token rows."""
    torch.manual_seed(0)
    y = torch.randint(2, (96,))
    x = torch.randint(5, 20, (96, 6))
    x[:, 2] = y + 2
    return [{"input_ids": a, "labels": b} for a, b in zip(x, y, strict=True)]


def trained(model: nn.Module, tmp_path: Path, steps: int = 12) -> Any:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    seen = bridges.for_trainer()
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=steps, per_device_train_batch_size=16, report_to=[],
        use_cpu=True, disable_tqdm=True, save_strategy="no", logging_strategy="no",
    )  # fmt: skip
    transformers.Trainer(model, arguments, train_dataset=rows(), callbacks=[seen]).train()
    return seen


def bert(**more: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, num_labels=2, max_position_embeddings=8, **more,
        )
    )  # fmt: skip


def test_the_trainer_is_watched(tmp_path: Path) -> None:
    seen = trained(bert(), tmp_path)
    assert seen.watch.record.step == 12
    assert all(h.whole for h in seen.watch.record.heard.values())
    assert [f for f in seen.findings if f.severity == "problem"] == []


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(bridges, "import_module", absent)
    with pytest.raises(MissingExtra, match="the package lightning is not installed"):
        bridges.for_lightning(nn.MSELoss())


def test_the_net_within_a_lightning_module() -> None:
    both = nn.ModuleDict({"net": nn.Linear(2, 1), "loss": nn.MSELoss()})
    assert bridges._net_of(both) is both["net"]
    both["other"] = nn.Linear(1, 1)
    with pytest.raises(RequestError, match=r"2 children with weights \(net, other\)"):
        bridges._net_of(both)


class Both(nn.ModuleDict):
    """Two layers that are called as one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        said: torch.Tensor = self["b"](self["a"](x).relu())
        return said


def test_a_lightning_module_that_is_called_itself() -> None:
    both = Both({"a": nn.Linear(2, 3), "b": nn.Linear(3, 1)})
    assert bridges._net_of(both) is both


@pytest.mark.parametrize(
    ("bug", "code"),
    [("", None), ("softmax", "double_softmax"), ("frozen", "frozen_layer"),
     ("sign", "loss_sign_flipped"), ("part", "params_not_in_optimizer")],
)  # fmt: skip
@pytest.mark.parametrize("within", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_what_a_run_of_lightning_does_wrong_is_named(
    bug: str, code: str | None, within: bool
) -> None:
    """Its optimizers are given a closure that calls the net."""
    lightning: Any = pytest.importorskip("pytorch_lightning")

    class Lit(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            one, two = nn.Linear(10, 32), nn.Linear(32, 4)
            one.requires_grad_(bug != "frozen")
            if within:
                self.net = nn.Sequential(one, nn.ReLU(), two)
            else:
                self.one, self.two = one, two

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            said = self.net(x) if within else self.two(self.one(x).relu())
            turned: torch.Tensor = said.softmax(1) if bug == "softmax" and not within else said
            return turned

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            cost = nn.functional.cross_entropy(self(batch[0]), batch[1])
            return -cost if bug == "sign" else cost

        def configure_optimizers(self) -> torch.optim.Optimizer:
            last = self.net[2] if within else self.two
            return torch.optim.Adam((last if bug == "part" else self).parameters(), 3e-3)

    x, y = blobs(400, width=10, apart=1.2)[0]
    model = Lit()
    if bug == "softmax" and within:
        model.net.append(nn.Softmax(1))
    seen = bridges.for_lightning(nn.functional.cross_entropy)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 24, shuffle=True)
    lightning.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[seen],
    ).fit(model, loader)  # fmt: skip
    assert seen.watch.record.step == 3 * len(loader)
    assert "nothing was judged" not in str(seen.watch)
    assert [f.code for f in seen.findings if f.severity == "problem"][:1] == (
        [code] if code else []
    )


def test_lightning_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the callback's own base where Lightning is not installed: the calls are the same."""
    try:
        pytest.importorskip("lightning.pytorch")
    except pytest.skip.Exception:
        monkeypatch.setattr(bridges, "import_module", lambda _: SimpleNamespace(Callback=object))
    seen = bridges.for_lightning(nn.functional.mse_loss)
    module = nn.ModuleDict({"net": nn.Linear(3, 1)})
    optimizer = torch.optim.SGD(module.parameters(), 0.01)
    seen.on_train_start(SimpleNamespace(optimizers=[optimizer]), module)
    x, y = torch.randn(32, 3), torch.randn(32, 1)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.mse_loss(module["net"](x), y).backward()
        optimizer.step()
    seen.on_train_end(None, module)
    assert seen.watch.record.step == 5
    assert [f for f in seen.findings if f.severity == "problem"] == []
