"""Setting a process up so that results do not depend on the machine's load."""

import contextlib
import ctypes
import os
import re

import torch

from ftd.runtime.device import claim, default_device
from ftd.runtime.progress import log

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def setup() -> None:
    """Set the process up so that a stage's result does not depend on the machine's load.

    One thread, or ``OMP_NUM_THREADS`` (which the workflow sets), if it is a number from 1 to 9999:
    sums differ between thread counts. Denormals are flushed: an over-trained network's gradients
    can become so small that a CPU works many times slower. Of several GPUs the process takes one
    for itself, and takes cuDNN's deterministic algorithms. Memory that is freed is kept for what
    comes next.
    """
    _keep_freed_memory()
    if not torch.cuda.is_initialized():  # else the choice is made
        claim(detect=torch.backends.cuda.is_built())
    log(f"device: {default_device()}")
    threads = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # of nested levels the first
    torch.set_num_threads(int(threads) if re.fullmatch("[1-9][0-9]{0,3}", threads) else 1)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.deterministic = True


def _keep_freed_memory() -> None:
    """Let glibc keep 256 MiB of freed tensors of up to 32 MiB each.

    By itself it gives them back to the system after every step and gets them anew, page by page.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(_TRIM_THRESHOLD, 2**28)
        libc.mallopt(_MMAP_THRESHOLD, 2**25)
