"""The Fisher diagonal's speed and memory, beside other ways to it."""

import contextlib
import copy
import ctypes
import platform
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap

from ftd import store
from ftd.fisher import fisher_diagonal
from ftd.models import networks
from ftd.runtime.device import default_device
from ftd.runtime.progress import log
from ftd.runtime.threads import setup
from ftd.store.provenance import packages
from ftd.tasks.targets.classes import Classes

CASES = {  # network: channels, side of the images, images in a batch
    "small-cnn": (1, 28, 256),
    "vgg16": (3, 32, 32),
    "resnet18": (3, 32, 32),
    "densenet121": (3, 32, 32),
}
_LABELS = 10
_MICROBATCH = 16  # the released code uses 10 and 50


def run(out: Path, *, batches: int, rounds: int) -> pd.DataFrame:
    """Time the Fisher diagonal against other ways to it; write every round as Parquet.

    The floor is evaluation mode, zero_grad, and the mean cross entropy's forward and backward
    pass over each batch. All get the same images, in channels-last order.

    Returns:
        One row per network and method: ``ratio`` to the floor (the median over rounds of the
        ratio within the round), ``seconds`` (median), ``peak_mib`` (most memory above that
        before). BackPACK is missing where it is not installed or does not take the network.
    """
    setup()
    device = default_device()
    rows = []
    for network, (channels, size, batch) in CASES.items():
        torch.manual_seed(0)
        shape = channels, size, size
        model = networks.build(network, image_shape=shape, target=Classes(_LABELS), seed=0)
        model = model.eval().to(device)
        images = torch.randn(batch, *shape, device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.randint(_LABELS, (batch,), device=device)
        methods = _methods(model, [(images, labels)] * batches)
        for number in range(-1, rounds):  # one round to warm up
            for method, run in methods.items():
                seconds, peak = _measured(run, device)
                if number >= 0:
                    row = {"network": network, "method": method, "round": number}
                    rows.append(row | {"seconds": seconds, "peak_mib": peak})
            log(f"{network}: round {number + 1} of {rounds} done")
    table = pd.DataFrame(rows)
    facts = {
        "batches": batches,
        "cases": {name: list(case) for name, case in CASES.items()},
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "packages": packages(),
    }
    store.write_table(out, pa.Table.from_pandas(table, preserve_index=False), facts)
    floor = table[table["method"] == "floor"].set_index(["network", "round"])["seconds"]
    keys = table.set_index(["network", "round"]).index
    table["ratio"] = table["seconds"] / floor.reindex(keys).to_numpy()
    groups = table.groupby(["network", "method"], sort=False)
    return groups.agg(
        ratio=("ratio", "median"), seconds=("seconds", "median"), peak_mib=("peak_mib", "max")
    ).reset_index()


def _methods(
    model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]
) -> dict[str, Callable[[], object]]:
    parameters = dict(model.named_parameters())
    detached = {name: value.detach() for name, value in parameters.items()}

    def floor() -> None:
        for images, labels in batches:
            model.zero_grad()
            F.cross_entropy(model(images), labels).backward()

    def summed(squares_of: Callable) -> dict[str, torch.Tensor]:
        total = {name: torch.zeros_like(v, dtype=torch.float64) for name, v in detached.items()}
        for images, labels in batches:
            for name, value in squares_of(images, labels).items():
                total[name] += value
        return total

    def chunked(size: int) -> Callable:
        """Squares of the gradients of the mean losses of so many images each."""

        def squares(images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            total = {name: torch.zeros_like(value) for name, value in detached.items()}
            for x, y in zip(images.split(size), labels.split(size), strict=True):
                loss = F.cross_entropy(model(x), y)
                gradients = torch.autograd.grad(loss, list(parameters.values()))
                for name, gradient in zip(total, gradients, strict=True):
                    total[name].addcmul_(gradient, gradient)
            return total

        return squares

    def sample_loss(chosen, image, label):
        return F.cross_entropy(functional_call(model, chosen, (image[None],)), label[None])

    per_sample = vmap(grad(sample_loss), in_dims=(None, 0, 0))

    def mapped(images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        found = per_sample(detached, images, labels)
        return {name: value.square_().sum(0) for name, value in found.items()}

    methods = {
        "floor": floor,
        "ours": lambda: fisher_diagonal(model, batches, loss=F.cross_entropy),
        "ours, unchecked": lambda: fisher_diagonal(
            model, batches, loss=F.cross_entropy, check=False
        ),
        "autograd loop": lambda: summed(chunked(1)),
        "vmap": lambda: summed(mapped),
        f"micro-batches of {_MICROBATCH} (not exact)": lambda: summed(chunked(_MICROBATCH)),
    }
    backpack = _backpack(model)
    return methods | ({"BackPACK": lambda: summed(backpack)} if backpack else {})


def _backpack(model: nn.Module) -> Callable | None:
    """BackPACK's SumGradSquared, where it is installed."""
    try:
        from backpack import backpack, extend  # not everyone has it
        from backpack.extensions import SumGradSquared
    except ImportError:
        log("BackPACK is not installed: left out (pip install backpack-for-pytorch)")
        return None
    twin = copy.deepcopy(model)
    for layer in twin.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # BackPACK reads inputs after the forward pass
    plain = all(type(layer).__module__.startswith("torch.nn") for layer in twin.modules())
    try:
        twin = extend(twin, use_converter=not plain)
    except Exception as error:  # whatever its converter meets in a network it does not know
        log(f"BackPACK does not take this network: left out ({error})")
        return None
    loss_of = extend(nn.CrossEntropyLoss(reduction="sum"))

    def squares(images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        with backpack(SumGradSquared()):
            loss_of(twin(images), labels).backward()
        return {
            name: value.sum_grad_squared
            for name, value in zip(dict(model.named_parameters()), twin.parameters(), strict=True)
        }

    return squares


def _measured(run: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds, and MiB at the peak above what was held before."""
    before = reset_peak(device)
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, peak_of(device) - before


def reset_peak(device: torch.device) -> float:
    """Start measuring the peak; MiB held now. On Linux or a GPU, else NaN."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    with contextlib.suppress(AttributeError, OSError):  # glibc: give back what is free
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return float("nan")
    return peak_of(device)


def peak_of(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float("nan")
