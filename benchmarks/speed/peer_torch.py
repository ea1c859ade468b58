"""What the peers on torch share: the best settings, the same as the hand-written loop's.

Lightning, fastai and skorch each take a torch module and a DataLoader. They get: bf16 and
channels-last where they are fastest, the fused optimizer, the best number of threads, whole batches
gathered by index (a BatchSampler with batch_size=None: no per-sample Python, no collate), and no
logger, checkpoint, progress bar or evaluation.

fastai imports torchvision, and so does Lightning where it is installed. Its registry wheel fails
beside a CPU build of torch because three operators are missing; they are declared here, before
anything imports it. Nothing of torchvision is used.
"""

from __future__ import annotations

import handwritten
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset
from works import Data, Work, make_model

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, "
    "int pooled_width, int sampling_ratio, bool aligned) -> Tensor",
)
_TORCHVISION = torch.library.Library("torchvision", "FRAGMENT")
for _operator in _OPERATORS:
    _TORCHVISION.define(_operator)


class Tuned(nn.Module):
    """A module whose forward pass runs in the precision and layout of `settings`."""

    def __init__(self, model: nn.Module, settings: handwritten.Settings) -> None:
        super().__init__()
        self.settings = settings
        self.net = model.to(memory_format=torch.channels_last) if settings.channels_last else model

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, 10) float32."""
        with handwritten.precision(self.settings):
            return self.net(x).float()


def tuned_model(work: Work, seed: int) -> Tuned:
    """Return the model in its best settings, and set the number of threads of the process."""
    settings = handwritten.BEST[work.name]
    torch.set_num_threads(settings.threads)
    return Tuned(make_model(work, seed=seed), settings)


def dataset(work: Work, x: Tensor, y: Tensor) -> TensorDataset:
    """Return rows in the precision and layout that the model wants."""
    return TensorDataset(handwritten.prepare(x, handwritten.BEST[work.name]), y)


def batched(work: Work, data: Data) -> DataLoader:
    """Return a loader that gathers whole batches by index."""
    rows = dataset(work, data.x, data.y)
    sampler = BatchSampler(RandomSampler(rows), work.batch_size, drop_last=False)
    return DataLoader(rows, sampler=sampler, batch_size=None)


def fused_optimizer(work: Work, params: object) -> torch.optim.Optimizer:
    """Return the work's optimizer with torch's fused implementation."""
    if work.optimizer == "nesterov":
        return torch.optim.SGD(
            params, lr=work.lr, momentum=work.momentum, nesterov=True,
            weight_decay=work.weight_decay, fused=True,
        )  # fmt: skip
    return torch.optim.Adam(params, lr=work.lr, fused=True)


@torch.inference_mode()
def accuracy(work: Work, data: Data, model: nn.Module) -> float:
    """Return the share of validation rows named rightly."""
    model.eval()
    rows = dataset(work, data.x_val, data.y_val)
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in DataLoader(rows, batch_size=256))
    return right / len(data.y_val)
