"""The collectives of a process group of torch.distributed: an all_gather, an all_reduce and a reduce_scatter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed

_all_gather: Any = getattr(distributed, "all_gather_single", None) or getattr(
    distributed, "all_gather_into_tensor", None
)
_reduce_scatter: Any = getattr(distributed, "reduce_scatter_single", None) or getattr(
    distributed, "reduce_scatter_tensor", None
)


class GroupCollectives:
    """What the ranks of a process group exchange; gloo and NCCL have all three collectives."""

    on_host = True

    def __init__(self, group: Any) -> None:
        self.group, self.size, self.rank = group, distributed.get_world_size(group), distributed.get_rank(group)

    @property
    def device(self) -> torch.device:
        """Where the group's backend takes tensors from."""
        if "gloo" in str(distributed.get_backend_config(self.group)):
            return torch.device("cpu")
        accelerator = torch.accelerator.current_accelerator()
        if accelerator is None:
            return torch.device("cpu")
        return torch.device(accelerator.type, torch.accelerator.current_device_index())

    def gather(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        """Rows are padded to the longest rank's: gloo takes equal numbers alone."""
        longest = max(sizes)
        if not longest or 0 in x.shape[1:]:
            return x.new_empty(sum(sizes), *x.shape[1:])
        given = x.contiguous()
        if x.shape[0] < longest:
            given = torch.cat([given, given.new_zeros(longest - x.shape[0], *x.shape[1:])])
        if x.dtype in (torch.float16, torch.bfloat16):  # which gloo does not know
            given = given.view(torch.uint8)
        found = given.new_empty(self.size * longest, *given.shape[1:])
        _all_gather(found, given, group=self.group)
        found = found.view(x.dtype)
        if min(sizes) == longest:
            return found
        return torch.cat([found[r * longest : r * longest + count] for r, count in enumerate(sizes)])

    def total(self, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total, group=self.group)
        return total

    def scatter(self, x: Tensor, own: Tensor, sizes: Sequence[int]) -> Tensor:
        """Rows are padded as in `gather`."""
        longest = max(sizes)
        found = x.new_empty(longest, *x.shape[1:])
        if not found.numel():
            return found
        if min(sizes) < longest:
            padding = (x.new_zeros(longest - count, *x.shape[1:]) for count in sizes)
            x = torch.cat([part for both in zip(torch.split(x, list(sizes)), padding, strict=True) for part in both])
        _reduce_scatter(found, x.contiguous(), group=self.group)
        return found[: own.shape[0]]

    def numbers(self, row: Sequence[int]) -> list[list[int]]:
        own = torch.tensor([row], dtype=torch.int64, device=self.device)
        found: list[list[int]] = self.gather(own, [1] * self.size).tolist()
        return found

    def objects(self, x: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, x, group=self.group)
        return found


def obstacle(group: object) -> str | None:
    """Why there are no collectives over a group, as half a sentence."""
    if not distributed.is_available():
        return "this build of torch has no torch.distributed"
    if not isinstance(group, distributed.ProcessGroup):
        return (
            "PyTorch wants a process group that this process belongs to, such as torch.distributed.group.WORLD; "
            f"got {group!r}"
        )
    size, world = distributed.get_world_size(group), distributed.get_world_size()
    if world % size:
        return f"a group of {size} ranks does not divide the {world} ranks that gradients are averaged over"
    return None
