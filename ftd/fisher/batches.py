"""Batches that a user gives, as pairs of tensors of whole units."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from ftd.errors import UserError
from ftd.runtime.progress import log

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


def whole_units(
    batches: Batches, size: int, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of a multiple of ``size`` samples; what is left over waits for the next batch.

    Raises:
        UserError: something else than batches, or samples of unlike shapes in a unit.
    """
    if not isinstance(batches, Iterable):
        raise UserError(f"batches: expected pairs (inputs, targets), got {told(batches)}")
    over: tuple[torch.Tensor, ...] | None = None
    for number, batch in enumerate(batches):
        if not is_pair(batch):
            raise UserError(
                f"fisher_diagonal: batch {number}: expected (inputs [B, …], targets [B, …]), got "
                f"{told(batch)}; make such a pair of it"
            )
        with torch.inference_mode(False):  # which a generator may have left on
            batch = tuple(value.to(device) for value in batch)
            batch = tuple(value.clone() if value.is_inference() else value for value in batch)
        if over is not None:
            if any(old.shape[1:] != new.shape[1:] for old, new in zip(over, batch, strict=True)):
                raise UserError(
                    f"fisher_diagonal: batch {number}: {told(batch)} goes on with a micro-batch of "
                    f"{told(over)}; give samples of one shape, or microbatch=1"
                )
            batch = tuple(torch.cat(pair) for pair in zip(over, batch, strict=True))
        whole = len(batch[0]) // size * size
        if whole:
            yield batch[0][:whole], batch[1][:whole]
        over = tuple(value[whole:] for value in batch) if whole < len(batch[0]) else None
    if over is not None:
        log(f"fisher_diagonal: a last micro-batch of {len(over[0])} instead of {size} is dropped")


def is_pair(batch: Any) -> bool:
    """Whether a batch is (inputs [B, …], targets [B, …])."""
    return (
        isinstance(batch, (tuple, list))
        and len(batch) == 2
        and all(isinstance(value, torch.Tensor) for value in batch)
        and all(is_plain(value) and value.dim() for value in batch)
        and len(batch[0]) == len(batch[1])
    )


def told(value: Any) -> str:
    """What something is, in a few words."""
    if isinstance(value, torch.Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        if not is_plain(value):
            return f"a sparse or nested tensor of {kind}"
        return f"a tensor {list(value.shape)} of {kind}"
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(repr, value))}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {', '.join(map(told, value)) or 'nothing'}"
    return type(value).__name__


def is_plain(value: torch.Tensor) -> bool:
    """Whether a tensor is neither sparse nor nested."""
    return value.layout == torch.strided and not value.is_nested
