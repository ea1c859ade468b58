"""What the machine has: the device, its memory, its arithmetic. All device names live here."""

from __future__ import annotations

import os
import platform
import sys
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gipi.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

_IMPORTED = time.time()


def pick_device(name: str | None = None) -> torch.device:
    """Return the device called `name`, or the best one: CUDA, then MPS, then the CPU.

    Raises `ConfigError` where the device does not exist on this machine.
    """
    if name is None or name == "auto":
        if torch.cuda.is_available():
            index = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
            return torch.device("cuda", index)
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"device '{name}' cannot be used: {str(error).splitlines()[0]}",
            "a device of this machine",
            "use cpu, or leave the device out to take the best one",
        ) from error
    return device


def synchronize(device: torch.device) -> None:
    """Wait until the device has done its work (nothing to do on the CPU)."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # sync
    elif device.type == "mps":
        torch.mps.synchronize()  # sync


def constants(values: Sequence[float], device: torch.device | str) -> torch.Tensor:
    """Return a float32 tensor of a few numbers that is written on the device itself.

    `torch.tensor(values, device=...)` copies from the host, for which the host waits until the
    device has done everything asked of it before. It is for the hot path.
    """
    if torch.device(device).type == "cpu":
        return torch.tensor(values, dtype=torch.float32)
    return torch.stack([torch.full((), value, device=device) for value in values])


def supports(device: torch.device, precision: str) -> bool:
    """Return whether the device has fast arithmetic in `precision` (fp32, bf16, fp16)."""
    if precision == "fp32":
        return True
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported() if precision == "bf16" else True
    if device.type == "mps":
        return precision == "fp16"
    if precision == "bf16":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and _has_bf16_units()  # noqa: SLF001
    return False


@cache
def _has_bf16_units() -> bool:
    """Tell bf16 instructions from an emulation; only x86 needs the question asked."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return True
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return False
    flags = cpuinfo.read_text()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def memory_bytes(device: torch.device) -> int:
    """Return the memory in use: the process's resident set on the CPU, allocated bytes on a GPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def free_bytes(device: torch.device) -> int:
    """Return how much memory can still be taken on the device (an estimate on the CPU)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return 4 << 30
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4


def machine() -> dict[str, str | int]:
    """Return what identifies this machine for cached measurements and for the record."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    found: dict[str, str | int] = {
        "cpu": name,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }  # fmt: skip
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = str(torch.version.cuda)
    return found


def process_start() -> float:
    """Return when this process started, in seconds since the epoch."""
    stat, uptime = Path("/proc/self/stat"), Path("/proc/uptime")
    if stat.exists() and uptime.exists():
        ticks = int(stat.read_text().rpartition(")")[2].split()[19])
        age = float(uptime.read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
        return time.time() - max(age, 0.0)
    return _IMPORTED


def interactive() -> bool:
    """Return whether a person types into this process: Python's prompt, or a notebook's kernel."""
    return hasattr(sys, "ps1") or "ipykernel" in sys.modules


def run_delay_s() -> float:
    """Return how long this thread has waited for a processor that others held, in seconds.

    Read from the scheduler's own account (Linux); 0.0 elsewhere.
    """
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) * 1e-9
    except (OSError, IndexError, ValueError):
        return 0.0
