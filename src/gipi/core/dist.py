"""Ranks: who this process is among those that train together (torchrun sets the environment)."""

from __future__ import annotations

import gc
import itertools
import os
from typing import Any

import torch
from torch import distributed as td

_groups = itertools.count()  # process groups that this process has left


def rank() -> int:
    """Return this process's rank; 0 when it trains alone."""
    return td.get_rank() if td.is_available() and td.is_initialized() else 0


def world() -> int:
    """Return the number of ranks; 1 when this process trains alone."""
    return td.get_world_size() if td.is_available() and td.is_initialized() else 1


def launched() -> bool:
    """Return whether torchrun (or a look-alike) started this process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ


def start(device: torch.device) -> bool:
    """Join the process group that torchrun prepared; return whether this call opened it."""
    if not launched() or td.is_initialized():
        return False
    td.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return True


def stop() -> None:
    """Leave the process group, together: a rank that leaves early takes the others down."""
    if td.is_initialized():
        td.barrier()
        gc.collect()  # DDP's reducer must be gone before the group is
        _all_have_left()
        td.destroy_process_group()


def _all_have_left() -> None:
    """Wait until every rank is out of the last barrier: only then may one close its sockets.

    The ranks tell each other through the store of the launcher, which outlives them.
    """
    store = td.distributed_c10d._get_default_store()  # noqa: SLF001  no public way to ask
    number, size = next(_groups), td.get_world_size()
    store.set(f"gipi/left/{number}/{td.get_rank()}", "1")
    store.wait([f"gipi/left/{number}/{other}" for other in range(size)])


def sum_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """Add `value` over all ranks, in place; nothing happens when this process trains alone."""
    if world() > 1:
        td.all_reduce(value)
    return value


def barrier() -> None:
    """Wait for all ranks."""
    if world() > 1:
        td.barrier()


def largest(value: int, device: torch.device) -> int:
    """Return the largest of the ranks' values, the same answer on all of them."""
    if world() == 1:
        return value
    votes = torch.tensor(value, device=device)
    td.all_reduce(votes, op=td.ReduceOp.MAX)
    return int(votes.item())  # sync


def latest(value: float, device: torch.device) -> float:
    """Return the largest of the ranks' numbers, the same float64 on all of them."""
    if world() == 1:
        return value
    votes = torch.tensor(value, device=device, dtype=torch.float64)
    td.all_reduce(votes, op=td.ReduceOp.MAX)
    return float(votes.item())  # sync


def gather(value: Any) -> list[Any]:
    """Return what each rank passes, in the order of the ranks."""
    found: list[Any] = [value] * world()
    if world() > 1:
        td.all_gather_object(found, value)
    return found


def any_rank(flag: bool, device: torch.device) -> bool:  # noqa: FBT001  one flag is the question
    """Return whether any rank says yes, the same answer on all of them."""
    if world() == 1:
        return flag
    votes = torch.tensor(int(flag), device=device)
    td.all_reduce(votes)
    return bool(votes.item())  # sync


def from_first(text: str) -> str:
    """Return the text that rank 0 passes, on every rank."""
    if world() == 1:
        return text
    box = [text]
    td.broadcast_object_list(box, src=0)
    return box[0]
