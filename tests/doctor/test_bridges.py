"""The watch within the Hugging Face Trainer and Lightning, where they are installed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
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
    assert seen.watch.step == 12
    assert all(h.whole for h in seen.watch.heard.values())
    assert [f for f in seen.findings if f.severity == "problem"] == []


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(bridges, "import_module", absent)
    with pytest.raises(MissingExtra, match="the package lightning is not installed"):
        bridges.for_lightning(nn.MSELoss())


def test_the_net_within_a_lightning_module() -> None:
    both = nn.ModuleDict({"net": nn.Linear(2, 1), "loss": nn.MSELoss()})
    assert bridges._only_child(both) is both["net"]
    both["other"] = nn.Linear(1, 1)
    with pytest.raises(RequestError, match=r"2 children with weights \(net, other\)"):
        bridges._only_child(both)


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
    assert seen.watch.step == 5
    assert [f for f in seen.findings if f.severity == "problem"] == []
