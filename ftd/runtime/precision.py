"""Arithmetic: half precision where speed matters, single precision where small differences do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def mixed(device: torch.device) -> torch.autocast:
    """Mixed precision (bf16) on a GPU, nothing on a CPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


@contextmanager
def without_tf32() -> Iterator[None]:
    """GPUs multiply in float32, not with ten bits; as it was afterwards."""
    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = False
        yield
    finally:
        for backend, flag in zip(backends, before, strict=True):
            backend.allow_tf32 = flag
