"""The Fisher diagonal's speed, memory and error, beside other ways to it."""

import contextlib
import copy
import ctypes
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap

from evidence import fisher_rivals
from evidence.fisher_rivals import Squares, Way
from ftd import store
from ftd.errors import UserError
from ftd.fisher import fisher_diagonal
from ftd.fisher.general import Loss
from ftd.models import cells, networks
from ftd.models.genotype import Genotype, Skeleton
from ftd.names import did_you_mean
from ftd.runtime.device import default_device
from ftd.runtime.progress import log
from ftd.runtime.threads import setup
from ftd.store.provenance import packages
from ftd.tasks.targets import Target
from ftd.tasks.targets.classes import Classes
from ftd.tasks.targets.dense import Dense
from ftd.tasks.targets.regression import Regression

Batch = tuple[torch.Tensor, torch.Tensor]
Batches = list[Batch]
Method = Callable[[Batches], dict[str, torch.Tensor] | None]
Ways = dict[str, Way | None]
"""By name; the floor and ours, which do not go by squares, have none."""

DARTS, DENSE = "darts-cells", "encoder-decoder"
CASES = {  # network: channels, side of the images, images in a batch
    "small-cnn": (1, 28, 256),
    "vgg16": (3, 32, 32),
    "resnet18": (3, 32, 32),
    "densenet121": (3, 32, 32),
    DARTS: (3, 32, 32),
    DENSE: (3, 64, 32),
}
FLOOR, OURS, UNCHECKED = "floor", "ours", "ours, unchecked"
_OWN = (FLOOR, OURS, UNCHECKED)
_LABELS = 10
_ENCODER, _CHANNELS, _UNMEASURED = "resnet18-x0.25", 3, 0.2  # a share of pixels
_MICROBATCH = 16  # the released code uses 10 and 50
_FEW = 2  # batches of the methods whose costs are the same for every batch

_SKELETON = Skeleton.usual(5, 4, 16, feeds=2, fan_in=2)  # DARTS searches with 8 cells
_CELL = (  # every operation that DARTS chooses from
    (("sep_conv_3x3", 0), ("sep_conv_5x5", 1)),
    (("dil_conv_3x3", 0), ("max_pool_3x3", 1)),
    (("skip_connect", 0), ("avg_pool_3x3", 2)),
    (("dil_conv_5x5", 1), ("sep_conv_3x3", 3)),
)


def run(
    out: Path,
    *,
    batches: int,
    rounds: int,
    cases: Iterable[str] = (),
    methods: Iterable[str] = (),
    threads: int | None = None,
) -> pd.DataFrame:
    """Time the Fisher diagonal against other ways to it; write every round as Parquet.

    The floor is evaluation mode, zero_grad, and the mean loss's forward and backward pass over
    each batch: of cross entropy, or, of the encoder and decoder, squared errors summed over the
    pixels that were measured, which the rivals are not given. All get the same images, in
    channels-last order. Ours goes over all batches, of which it checks the first; the others, to
    which all batches are the same, over two. Each is compared with the floor over as many. Those
    that are not installed, or do not take a network, are missing there, and the log says why.

    Args:
        cases: networks, of ``CASES``; none: all.
        methods: beside the floor; none: all.
        threads: ``None``: what ``ftd.runtime.threads.setup`` takes.

    Returns:
        One row per network, method and number of ``images``: ``ratio`` to the floor (the median
        over rounds of the ratio within the round), ``images_per_second`` (median), ``peak_mib``
        (most memory above that before) and ``error`` (as ``_errors`` says).

    Raises:
        UserError: an unknown network or method.
    """
    cases = _known(cases, CASES, "network")
    methods = _known(methods, [OURS, UNCHECKED, *_WAYS, *fisher_rivals.RIVALS], "method")
    setup()
    if threads:
        torch.set_num_threads(threads)
    device = default_device()
    ways = _WAYS | fisher_rivals.installed()
    names = [name for name in (*_OWN, *ways) if name in (FLOOR, *methods)]
    wanted = {name: ways.get(name) for name in names}
    facts = {
        "batches": batches,
        "cases": {name: list(CASES[name]) for name in cases},
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "packages": packages() | fisher_rivals.versions(),
    }
    rows: list[dict] = []
    for name in cases:
        rows += _rows(name, device, wanted, batches, rounds)
        table = pd.DataFrame(rows)  # kept as it grows: all of it takes long
        store.write_table(out, pa.Table.from_pandas(table, preserve_index=False), facts)
    return _medians(table)


def _rows(
    network: str, device: torch.device, ways: Ways, batches: int, rounds: int
) -> Iterator[dict]:
    """Rounds of all methods in turn, after one to warm up."""
    model, batch = _case(network, device)
    loss = _target(network).loss
    if network == DENSE:
        own = {name: partial(_WAYS[name], loss=loss) for name in ways if name in _WAYS}
        ways = {name: own.get(name) for name in ways if name not in fisher_rivals.RIVALS}
    errors = _errors(network, model, batch, ways, loss)
    methods = {name: _method(name, model, ways[name], loss) for name in errors}
    few = min(batches, _FEW)
    turns = [(name, batches if name in _OWN else few) for name in methods]
    turns = dict.fromkeys([*turns, (FLOOR, few)])  # the others' own
    for number in range(-1, rounds):
        for name, count in turns:
            seconds, peak = _measured(
                methods[name], [batch] * (count if number >= 0 else few), device
            )
            row = {"network": network, "method": name, "round": number}
            row |= {"images": count * len(batch[1]), "seconds": seconds, "peak_mib": peak}
            if number >= 0:
                yield row | {"error": errors[name]}
        log(f"{network}: round {number + 1} of {rounds} done")


def _known(chosen: Iterable[str], known: Iterable[str], what: str) -> list[str]:
    chosen = list(chosen) or list(known)
    for name in chosen:
        if name not in known:
            raise UserError(f"unknown {what} {name!r}{did_you_mean(name, known)}")
    return chosen


def _medians(table: pd.DataFrame) -> pd.DataFrame:
    table = table.assign(images_per_second=table["images"] / table["seconds"])
    like = ["network", "round", "images"]
    floor = table[table["method"] == FLOOR].set_index(like)["seconds"]
    table["ratio"] = table["seconds"] / floor.reindex(table.set_index(like).index).to_numpy()
    groups = table.groupby(["network", "method", "images"], sort=False)
    return groups.agg(
        ratio=("ratio", "median"),
        images_per_second=("images_per_second", "median"),
        peak_mib=("peak_mib", "max"),
        error=("error", "first"),
    ).reset_index()


def _case(network: str, device: torch.device) -> tuple[nn.Module, Batch]:
    """A network of ``CASES`` and a batch for it, the same in every run."""
    channels, size, count = CASES[network]
    shape, target = (channels, size, size), _target(network)
    if network == DARTS:
        genotype = Genotype(_SKELETON, _CELL, _CELL)
        model = cells.build(genotype, image_shape=shape, target=target, seed=0)
    else:
        name = _ENCODER if network == DENSE else network
        model = networks.build(name, image_shape=shape, target=target, seed=0)
    torch.manual_seed(0)
    images = torch.randn(count, *shape, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    if network == DENSE:
        known = torch.rand(count, 1, size, size, device=device) > _UNMEASURED
        values = torch.randn(count, _CHANNELS, size, size, device=device)
        return model.eval().to(device), (images, torch.where(known, values, torch.nan))
    return model.eval().to(device), (images, torch.randint(_LABELS, (count,), device=device))


def _target(network: str) -> Target:
    if network == DENSE:
        return Dense(Regression(_CHANNELS, [0.0] * _CHANNELS, [1.0] * _CHANNELS))
    return Classes(_LABELS)


def _errors(
    network: str, model: nn.Module, batch: Batch, ways: Ways, loss: Loss = F.cross_entropy
) -> dict[str, float]:
    """Each method's largest deviation from a loop over samples, relative to its tensor's largest
    entry; of those alone that take the network.

    Over the batch's first images in float64: in float32 a ReLU whose input lies within rounding of
    zero moves entries by more than most methods' own errors.
    """
    double = copy.deepcopy(model).double()
    few = batch[0][:_MICROBATCH].double(), batch[1][:_MICROBATCH]
    exact = _mean(double, _chunked(double, size=1, loss=loss), [few])
    errors = {FLOOR: float("nan")}
    for name, way in ways.items():
        if name == FLOOR:
            continue
        try:
            found = _method(name, double, way, loss)([few])
        except Exception as error:  # whatever a package meets in a network that it does not know
            reason = " ".join(str(error).split()) or type(error).__name__
            log(f"{network}: {name} does not take it, left out ({reason[:200]})")
            continue
        errors[name] = max(
            ((found[key] - value).abs().max() / value.abs().max()).item()
            for key, value in exact.items()
        )
    return errors


def _method(name: str, model: nn.Module, way: Way | None, loss: Loss) -> Method:
    if name == FLOOR:
        return partial(_floor, model, loss)
    if way:
        return partial(_mean, model, way(model))
    check = "first" if name == OURS else False
    return partial(fisher_diagonal, model, loss=loss, check=check)


def _floor(model: nn.Module, loss: Loss, batches: Batches) -> None:
    for images, labels in batches:
        model.zero_grad()
        loss(model(images), labels).backward()


def _mean(model: nn.Module, squares: Squares, batches: Batches) -> dict[str, torch.Tensor]:
    """Of the samples' squares, in float64, as ours gives them."""
    parameters = model.named_parameters()
    total = {name: torch.zeros_like(v, dtype=torch.float64) for name, v in parameters}
    for images, labels in batches:
        for name, value in squares(images, labels).items():
            total[name] += value
    count = sum(len(labels) for _, labels in batches)
    return {name: value.div_(count) for name, value in total.items()}


def _chunked(model: nn.Module, *, size: int, loss: Loss = F.cross_entropy) -> Squares:
    """Squares of the gradients of the mean losses of so many images each, times that number."""
    parameters = dict(model.named_parameters())

    def squares(images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        total = {name: torch.zeros_like(value) for name, value in parameters.items()}
        for x, y in zip(images.split(size), labels.split(size), strict=True):
            gradients = torch.autograd.grad(loss(model(x), y), list(parameters.values()))
            for name, gradient in zip(total, gradients, strict=True):
                total[name].addcmul_(gradient, gradient, value=len(x))
        return total

    return squares


def _mapped(model: nn.Module, *, loss: Loss = F.cross_entropy) -> Squares:
    """torch.func's vmap over the gradient of a sample's loss."""
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def sample_loss(chosen, image, label):
        return loss(functional_call(model, chosen, (image[None],)), label[None])

    per_sample = vmap(grad(sample_loss), in_dims=(None, 0, 0))

    def squares(images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        found = per_sample(parameters, images, labels)
        return {name: value.square_().sum(0) for name, value in found.items()}

    return squares


_WAYS: dict[str, Way] = {
    "autograd loop": partial(_chunked, size=1),
    "vmap": _mapped,
    f"micro-batches of {_MICROBATCH} (not exact)": partial(_chunked, size=_MICROBATCH),
}


def _measured(method: Method, batches: Batches, device: torch.device) -> tuple[float, float]:
    """Seconds, and MiB at the peak above what was held before.

    Few batches are timed after one that is not: to get back the memory that was given away takes
    as long as a tenth of them.
    """
    before = reset_peak(device)
    if len(batches) <= _FEW:
        method(batches[:1])
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    method(batches)
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
