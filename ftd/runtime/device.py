"""Which GPU a process computes on: one of its own, held by a lock until the process ends.

On a workstation several jobs start at once and each would take the first GPU. Here each locks one
(a file per device and user, so a kill frees it) and hides the others from CUDA. A Slurm job with
one GPU takes it as it is; one with several has locks of its own, since with cgroups the devices of
every job are numbered from 0.
"""

import errno
import os
import shutil
import subprocess
import tempfile
import time
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ftd.errors import UserError
from ftd.runtime.progress import log

if TYPE_CHECKING:
    import torch
    from filelock import FileLock

VISIBLE = "CUDA_VISIBLE_DEVICES"
CLAIMED = "FTD_GPU"  # said to the processes that this one starts: they share its device
HIDDEN = ("", "-1", "NoDevFiles")  # CUDA sees no device from such an entry on
RETRY = 1.0  # seconds between looks for a free device

_held: "FileLock | None" = None


def claim(*, detect: bool = True) -> str | None:
    """Take one GPU for this process; returns its name, or ``None`` where there is none.

    To be called before CUDA is first asked for anything: it reads ``CUDA_VISIBLE_DEVICES`` once.
    A second call does nothing. Waits while all devices are taken.

    Args:
        detect: ask nvidia-smi where ``CUDA_VISIBLE_DEVICES`` does not say which devices there are.

    Raises:
        UserError: the folder of the locks is not this user's to write.
    """
    global _held
    given = os.environ.get(VISIBLE)
    if given is not None and given == os.environ.get(CLAIMED):
        return given  # by an earlier call, or by the process that started this one
    slurm_job = os.environ.get("SLURM_JOB_ID")
    devices = []
    if given is not None:
        devices = _shown(given)
    elif detect and not slurm_job:
        devices = _listed()
    if not devices:
        return None
    device = devices[0]
    if not slurm_job or len(devices) > 1:
        device, _held = _lock_one(devices, slurm_job or "host")
    os.environ[VISIBLE] = os.environ[CLAIMED] = device
    log(f"GPU {device}" + (f" of Slurm job {slurm_job}" if slurm_job else " claimed"))
    return device


def default_device() -> "torch.device":
    """A GPU if there is one, else the CPU."""
    import torch  # 2 s, which the command line and columns without missing pairs spare

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def usable(device: "torch.device | str") -> "torch.device":
    """A device that can be computed on.

    Raises:
        UserError: it is not there, or none.
    """
    import torch  # as above

    try:
        found = torch.zeros(1, device=device)
        found.item()  # there are none on "meta"
        return found.device
    except (AssertionError, RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"device {str(device)!r}: cannot be computed on ({reason})") from error


def _shown(visible: str) -> list[str]:
    """The devices, by number or UUID, that ``CUDA_VISIBLE_DEVICES`` shows."""
    names = (name.strip() for name in visible.split(","))
    return list(takewhile(lambda name: name not in HIDDEN, names))


def _listed() -> list[str]:
    """The numbers of the devices that nvidia-smi lists; none where there is no driver."""
    if not shutil.which("nvidia-smi"):
        return []
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # nvidia-smi's numbers
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True)
    return listed.stdout.split() if listed.returncode == 0 else []


def _lock_one(devices: list[str], owner: str) -> "tuple[str, FileLock]":
    """The first free device, and the lock that stands for it.

    Args:
        owner: the Slurm job whose numbers the devices' are, or "host".
    """
    folder = Path(tempfile.gettempdir()) / f"ftd-gpus-{os.getuid()}"
    waiting = False
    while True:
        for device in devices:
            lock = _lock(folder / f"{owner}-{quote(device, safe='')}")
            if lock:
                return device, lock
        if not waiting:
            log(f"waiting for a GPU: other processes hold {', '.join(devices)}")
            waiting = True
        time.sleep(RETRY)


def _lock(path: Path) -> "FileLock | None":
    """The lock of a file, held; ``None`` if another process holds it."""
    from filelock import FileLock, Timeout  # 0.03 s, which processes without a GPU spare

    # A soft lock, a file that is there or not, would outlive a killed process.
    lock = FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if path.parent.is_symlink() or path.parent.stat().st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "its folder is another user's")
        lock.acquire()
    except Timeout:
        return None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be locked to claim a GPU ({error.strerror}); set TMPDIR to a folder "
            "of your own on a local disk"
        ) from error
    return lock
