"""What the processes of a run do together; in a run of one process each of these is nothing, or the plain
thing.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from maquette.core.processes import is_leader

T = TypeVar("T")


def joined() -> bool:
    """Whether this process talks to others."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def barrier() -> None:
    """Wait until every process is here."""
    if joined():
        dist.barrier()


def from_leader(value: T) -> T:
    """What the leading process has, in every process."""
    if not joined():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def by_leader(act: Callable[[], object]) -> None:
    """Have the leading process do something, when all are ready for it; the others wait until it is done."""
    barrier()
    if is_leader():
        act()
    barrier()


def mean_over_processes(total: Float[Tensor, ""], count: Tensor | int) -> Float[Tensor, ""]:
    """`total / count`, so that the mean of it over all processes is that of the whole batch.

    Each process has a part of the batch, and the gradients of the parts are averaged. A loss that is divided
    by a number which differs from part to part (covered rays, words) would weigh the parts wrongly; divided
    by the mean of these numbers it does not. Without gradients nothing is asked of the other processes.
    """
    counted = torch.as_tensor(count, dtype=torch.float32, device=total.device)
    if not (joined() and torch.is_grad_enabled()):
        return total / counted.clamp(min=1.0)
    counted = counted.detach().clone()
    dist.all_reduce(counted)
    world = dist.get_world_size()
    return total / (counted.clamp(min=1.0) / world)
