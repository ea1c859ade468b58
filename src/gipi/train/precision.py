"""How the arithmetic is done: a `Setup`, and what it takes to apply one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from gipi.core.errors import ConfigError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LAYOUTS = {"channels_last": torch.channels_last}


@dataclass(frozen=True)
class Setup:
    """Everything that is measured once, pinned for the whole run and restored on resume.

    precision  fp32 | bf16 | fp16 (autocast: weights stay fp32)
    layout     contiguous | channels_last
    threads    threads within one operation (CPU)
    gemm       native | onednn: which library multiplies fp32 matrices on the CPU
    compile    whether torch.compile wraps the model
    rows       fp32 | bf16: how resident rows are stored; bf16 only where the first layer rounds
               its input to bf16 anyway, so that not one bit of the loss changes
    step_s     seconds of one step in the trial; 0 where there was none
    trial      candidate -> seconds per step, for the report; origin says who chose
    """

    precision: str = "fp32"
    layout: str = "contiguous"
    threads: int = 1
    gemm: str = "native"
    compile: bool = False
    rows: str = "fp32"
    step_s: float = 0.0
    origin: str = "given"
    trial: tuple[tuple[str, float], ...] = ()

    @property
    def memory_format(self) -> torch.memory_format | None:
        """The layout of image batches, or None for torch's default."""
        return LAYOUTS.get(self.layout)

    @property
    def name(self) -> str:
        """The candidate in a few words, such as "bf16 channels_last 2 threads"."""
        parts = [self.precision]
        if self.layout != "contiguous":
            parts.append(self.layout)
        if self.gemm != "native":
            parts.append(f"{self.gemm} gemm")
        if self.compile:
            parts.append("compiled")
        return " ".join([*parts, f"{self.threads} thread{'s' if self.threads != 1 else ''}"])

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Setup:
        """Rebuild a setup from `to_dict`."""
        trial = tuple((name, seconds) for name, seconds in data["trial"])
        return replace(Setup(), **{**data, "trial": trial})


def autocast(setup: Setup, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context of a forward pass; it can be entered many times."""
    if setup.precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[setup.precision])


def set_gemm(name: str) -> None:
    """Choose the library behind fp32 matrix products on the CPU, process-wide.

    torch sends fp32 products to oneDNN when it is allowed reduced precision internally. Where the
    processor has no unit for that (no AMX), the products stay exact fp32 and merely avoid the slow
    path that MKL takes on processors of other makers; `gemm_is_exact` decides, by a product.
    """
    torch.backends.mkldnn.matmul.fp32_precision = "bf16" if name == "onednn" else "none"  # type: ignore[attr-defined]


def gemm_is_exact() -> bool:
    """Whether a product as torch now computes it is right to fp32 rounding (against fp64)."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(64, 512, generator=generator)
    b = torch.randn(512, 64, generator=generator)
    error = ((a @ b).double() - a.double() @ b.double()).abs().max()
    bound = 512 * torch.finfo(torch.float32).eps * a.abs().max() * b.abs().max() / 4
    return bool(error < bound)


def onednn_usable(device: torch.device) -> bool:
    """Whether the oneDNN path exists here and keeps fp32 products exact."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.backends.mkldnn, "matmul"):
        return False
    before = torch.backends.mkldnn.matmul.fp32_precision
    try:
        set_gemm("onednn")
        return gemm_is_exact()
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


def apply_threads_and_gemm(setup: Setup, device: torch.device) -> None:
    """Set what torch keeps per process: threads and the fp32 product library (CPU only)."""
    if device.type != "cpu":
        return
    if torch.get_num_threads() != setup.threads:
        torch.set_num_threads(setup.threads)
    if hasattr(torch.backends.mkldnn, "matmul"):
        set_gemm(setup.gemm)


def require_precision(precision: str, *, supported: bool, device: torch.device) -> None:
    """Raise `ConfigError` where a precision that was asked for does not exist on the device."""
    if not supported and precision == "fp16":
        raise ConfigError(
            f"precision=fp16 on {device.type}",
            "a GPU for fp16",
            "use precision=bf16 or auto",
        )
