"""Fisher diagonals against a plain per-sample autograd loop in double precision."""

import copy
import os
import subprocess
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ftd import fisher
from ftd.config.search_keys import SpaceSettings
from ftd.errors import UserError
from ftd.fisher import Formula, convolutions, engine, general, layers, outer
from ftd.measures.fisher_task import unit_trace
from ftd.models import cells, networks
from ftd.search.space import Space
from ftd.tasks.targets.alignment import InOrder, index_order
from ftd.tasks.targets.classes import Classes


def oracle(model, inputs, targets, loss=F.cross_entropy):
    """Mean of squared per-sample gradients, one backward pass a sample, float64."""
    model = copy.deepcopy(model).double()
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for value in parameters.values():
        value.requires_grad_(True)
    if inputs.is_floating_point():
        inputs = inputs.double()
    for x, y in zip(inputs, targets, strict=True):
        value = loss(model(x[None]), y[None])
        found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                total[name] += gradient.detach().to_dense() ** 2
    return {name: value / len(inputs) for name, value in total.items()}


def agree(found, expected, tolerance=1e-5, floor=1e-30):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].shape == value.shape and found[name].dtype == torch.float64
        error = (found[name] - value).abs().max().item()
        assert error <= tolerance * value.abs().max().item() + floor, name


def check(model, inputs, targets, loss=F.cross_entropy, batch=7):
    model.eval()
    batches = list(zip(inputs.split(batch), targets.split(batch), strict=True))
    expected = oracle(model, inputs, targets, loss)
    agree(fisher.fisher_diagonal(model, batches, loss=loss), expected)


def only_formulas(monkeypatch):
    """Fail where a parameter takes the general path."""
    monkeypatch.setattr(general.General, "squares", None)


def settled(model):
    """Evaluation mode, with batch norms and scales that are not the trivial ones."""
    generator = torch.Generator().manual_seed(1)
    for layer in model.modules():
        if getattr(layer, "running_mean", None) is not None:
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
        if isinstance(layer, (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)):
            layer.weight.data.normal_(1, 0.3, generator=generator)
    return model.eval()


# Layers -----------------------------------------------------------------------------------------

CONVOLUTIONS = {
    "plain": {"kernel_size": 3},
    "padded": {"kernel_size": 3, "padding": 1},
    "fewer outputs than inputs": {"kernel_size": 3, "padding": 1, "out_channels": 2},
    "fewer outputs, wide padding": {"kernel_size": (3, 2), "padding": (4, 1), "out_channels": 2},
    "fewer outputs, dilated": {"kernel_size": 3, "dilation": 2, "out_channels": 2},
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "oblong": {"kernel_size": (5, 2), "stride": (1, 2), "padding": (2, 0)},
    "dilated": {"kernel_size": 3, "dilation": (1, 2), "padding": 2},
    "same": {"kernel_size": (4, 3), "padding": "same"},
    "valid": {"kernel_size": 3, "padding": "valid"},
    "reflecting": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    "circular": {"kernel_size": 3, "padding": (0, 2), "padding_mode": "circular"},
    "replicating, fewer outputs": {
        **{"kernel_size": 3, "padding": 1, "padding_mode": "replicate", "out_channels": 2}
    },
    "groups": {"kernel_size": 3, "groups": 2, "stride": 2},
    "depthwise": {"kernel_size": 3, "groups": 4, "padding": 1, "out_channels": 4},
    "depthwise, two each": {"kernel_size": 3, "groups": 4, "out_channels": 8, "dilation": 2},
    "pointwise": {"kernel_size": 1},
    "pointwise, strided": {"kernel_size": 1, "stride": 2},
    "without bias": {"kernel_size": 3, "bias": False},
}


@pytest.mark.parametrize("channels_last", [False, True], ids=["", "channels last"])
@pytest.mark.parametrize("keys", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolutions(monkeypatch, keys, channels_last):
    only_formulas(monkeypatch)
    torch.manual_seed(0)
    layer = nn.Conv2d(**{"in_channels": 4, "out_channels": 6} | keys)
    model = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.LazyLinear(3))
    inputs = torch.randn(9, 4, 8, 7)
    if channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    model(inputs)
    check(model, inputs, torch.arange(9) % 3)


WAYS = ("_by_taps", "_one_by_one", "_by_rows", "_unfolded", "_depthwise", "_merged")


@st.composite
def convolved(draw):
    """A convolution, sides of an image that it takes, and the ways that are open to it."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inner = draw(st.integers(1, 4))
    kernel, dilation, stride = (
        (draw(st.integers(1, most)), draw(st.integers(1, most))) for most in (3, 2, 3)
    )
    around = draw(st.sampled_from(["same", "valid", "numbers"]))
    if around == "same":
        stride = (1, 1)
    padding = tuple(draw(st.integers(0, 3)) for _ in kernel) if around == "numbers" else around
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    sides = [draw(st.integers(1, 6)) for _ in kernel]
    if around != "same":
        pads = padding if around == "numbers" else (0, 0)
        sides = [max(s, r - 2 * p) for s, r, p in zip(sides, reach, pads, strict=True)]
    fits = around == "numbers" and all(p < s for p, s in zip(padding, sides, strict=True))
    mode = draw(st.sampled_from(["zeros", "circular", "reflect"])) if fits else "zeros"
    outputs = groups * draw(st.integers(1, 8))
    layer = nn.Conv2d(
        *(groups * inner, outputs, kernel, stride, padding, dilation, groups),
        bias=draw(st.booleans()),
        padding_mode=mode,
    )
    ways = ["_one_by_one", "_by_rows"] + (["_by_taps", "_unfolded"] if groups == 1 else [])
    return layer.double(), sides, [*ways, "_depthwise", "_merged"] if inner == 1 else ways


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(deadline=None, max_examples=60)
@given(convolved(), st.sampled_from([300, 20_000, 2**21]), st.sampled_from([1, 2]), st.data())
def test_every_way_to_a_convolution(case, budget, samples, data):
    layer, sides, ways = case
    units = data.draw(st.integers(1, 4))
    torch.manual_seed(data.draw(st.integers(0, 100)))
    x = torch.randn(units * samples, layer.in_channels, *sides).double()
    layout = data.draw(st.sampled_from([torch.channels_last, torch.contiguous_format]))
    x = x.contiguous(memory_format=layout)
    with torch.no_grad():
        g = torch.randn_like(layer(x))
    expected = {name: torch.zeros_like(value) for name, value in layer.named_parameters()}
    for xs, gs in zip(x.split(samples), g.split(samples), strict=True):
        gradients = torch.autograd.grad((layer(xs) * gs).sum(), list(layer.parameters()))
        for name, value in zip(expected, gradients, strict=True):
            expected[name] += value**2
    for way in ways:
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            patch.setattr(convolutions, "_way", lambda *_, way=way: getattr(convolutions, way))
            found = convolutions.convolution(layer, x, g, units, budget)
        agree({name: found[name] for name in expected}, expected, 1e-12)


CHOSEN = {  # channels, outputs, side, kernel, groups
    "_by_taps": [(512, 512, 2, 3, 1), (64, 64, 4, 1, 1)],
    "_one_by_one": [(64, 64, 32, 3, 1), (256, 128, 32, 1, 1), (64, 64, 32, 3, 4)],
    "_by_rows": [(16, 32, 14, 3, 1), (8, 8, 8, 3, 2)],
    "_unfolded": [(1, 16, 28, 3, 1)],
    "_depthwise": [],
    "_merged": [(8, 8, 32, 3, 8), (8, 16, 8, 5, 8)],
}


@pytest.mark.parametrize("way", WAYS)
def test_the_way_to_a_convolution_follows_its_shapes(way):
    assert {*CHOSEN} == {*WAYS}
    for channels, outputs, side, kernel, groups in CHOSEN[way]:
        layer = nn.Conv2d(channels, outputs, kernel, padding=kernel // 2, groups=groups)
        kernel = convolutions.Kernel.of(layer)
        x, g = torch.empty(8, channels, side, side), torch.empty(8, outputs, side, side)
        assert convolutions._way(kernel, x, g, 8, engine.CPU_BUDGET).__name__ == way
        if way == "_merged":  # which has kernels of its own in single precision alone
            found = convolutions._way(kernel, x.double(), g.double(), 8, engine.CPU_BUDGET)
            assert found.__name__ == "_depthwise"
    small = convolutions.Kernel.of(nn.Conv2d(64, 64, 3, padding=1))
    x = torch.empty(2, 64, 32, 32)  # whose unfolded units a GPU takes at once
    assert convolutions._way(small, x, x, 2, engine.GPU_BUDGET).__name__ == "_unfolded"


@pytest.mark.parametrize("positions", [1, 2, 3, 4])
def test_positions_that_cancel_cost_no_digits(positions):
    """A gradient of 1e-3 of its terms: its square by single pairs of them would be rounding."""
    torch.manual_seed(0)
    g, x = torch.randn(5, positions, 24), 1 + 1e-3 * torch.randn(5, positions, 40)
    g = g - g.mean(1, keepdim=True) if positions > 1 else g
    total = torch.zeros(24, 40)
    outer.add_outer_squares(total, g, x, 2**21)
    expected = torch.einsum("upo,upi->uoi", g.double(), x.double()).square().sum(0)
    agree({"w": total.double()}, {"w": expected}, 1e-3 if positions > 3 else 1e-6)


@pytest.mark.parametrize("budget", [1, 2_000, 2**21])
@pytest.mark.parametrize(("rows", "columns"), [(24, 40), (24, 27), (5, 1100)])
def test_tiles_are_all_of_a_product(budget, rows, columns):
    torch.manual_seed(0)
    g, x = torch.randn(7, 6, rows).double(), torch.randn(7, 6, columns).double()
    expected = torch.ones(rows, columns).double()
    found = expected.clone()
    expected += torch.einsum("upo,upi->uoi", g, x).square().sum(0)
    if rows * columns < 2_000 or budget > 1:  # a number at a time is slow
        outer.add_outer_squares(found, g, x, budget)
        agree({"w": found}, {"w": expected}, 1e-12)


def image_layers():
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
        *(nn.Conv2d(6, 6, 3, padding=1), nn.GroupNorm(3, 6), nn.ReLU(inplace=True)),
        *(nn.Conv2d(6, 6, 3, stride=2), nn.LayerNorm([6, 3, 3]), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 4, bias=False)),
    )


def sequence_layers():
    """Tokens [B, T] → logits, by an embedding with padding and repeated tokens."""
    return nn.Sequential(
        *(nn.Embedding(9, 6, padding_idx=0), nn.Linear(6, 6), nn.LayerNorm(6), nn.GELU()),
        *(nn.Flatten(), nn.Linear(30, 4)),
    )


def test_norms(monkeypatch):
    only_formulas(monkeypatch)
    torch.manual_seed(0)
    check(settled(image_layers()), torch.randn(11, 1, 8, 8), torch.arange(11) % 4)


def test_a_far_mean_costs_a_batch_norm_no_digits():
    torch.manual_seed(0)
    model = settled(nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 3)))
    model[0].running_mean.fill_(30)  # PyTorch's own forward pass keeps few digits of more
    check(model, torch.randn(6, 2, 4, 4) + 30, torch.arange(6) % 3)


def test_embeddings_and_sequences(monkeypatch):
    only_formulas(monkeypatch)
    torch.manual_seed(0)
    check(settled(sequence_layers()), torch.randint(9, (11, 5)), torch.arange(11) % 4)


# The general path -------------------------------------------------------------------------------


class Tied(nn.Module):
    """An embedding that is also the output layer, by a shared parameter."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.middle = nn.Linear(4, 4)
        self.output = nn.Linear(4, 5, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens):
        return self.output(self.middle(self.embedding(tokens)).tanh().mean(1))


class TiedByHand(Tied):
    """The same, by using the parameter where its layer is not called."""

    def forward(self, tokens):
        return F.linear(self.middle(self.embedding(tokens)).tanh().mean(1), self.embedding.weight)


class Twice(nn.Module):
    """One layer called twice."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.inner(self.inner(x).tanh()))


class SequenceFirst(nn.Module):
    """Samples along the second dimension, as many as there are steps."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(3, 4), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.inner(x.transpose(0, 1)).tanh().sum(0))


class Own(nn.Module):
    """A parameter that no known layer holds, one that nothing uses, and a layer left out."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4))
        self.unused = nn.Parameter(torch.randn(2, 2))
        self.skipped = nn.Linear(4, 4)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(x * self.scale)


class Subclass(nn.Linear):
    def forward(self, x):
        return super().forward(x).square()


class Unknown(nn.Conv2d):
    """A layer that no formula is for."""


def patched():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 5))
    model[0].forward = types.MethodType(lambda self, x: F.linear(x, self.weight).exp(), model[0])
    return model


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


class NoVmap(nn.Module):
    """Control flow on values, which ``vmap`` refuses."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4, 5))

    def forward(self, x):
        return (x if x.sum() > 0 else 2 * x) @ self.scale


def transformer():
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(12, 5))


def weight_normed():
    parametrized = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    return nn.Sequential(parametrized, nn.Tanh(), nn.Linear(4, 5))


def batch_statistics():
    """A batch norm that always uses its batch: a sample's loss is that of the sample alone."""
    norm = nn.BatchNorm2d(2, track_running_stats=False)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False), norm, nn.Tanh(), nn.Flatten(), nn.Linear(8, 5)
    )


class Centred(nn.Module):
    """Samples that see each other by a path without gradients."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 5)

    def forward(self, x):
        return self.inner(x - x.mean(0, keepdim=True).detach())


class Force(nn.Module):
    """Outputs that hold a gradient taken in the forward pass."""

    def __init__(self):
        super().__init__()
        self.energy, self.head = nn.Linear(4, 4), nn.Linear(4, 5)

    def forward(self, x):
        x = x.detach().requires_grad_()
        energy = self.energy(x).tanh().sum()
        return self.head(torch.autograd.grad(energy, x, create_graph=True)[0])


class ZeroHead(nn.Module):
    """A new head of zeros on features of the whole batch."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 5)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        return self.head(x - x.mean(0, keepdim=True) * 0.5)


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 5)

    def forward(self, x):
        from torch.utils.checkpoint import checkpoint

        inner = lambda x: self.inner(x).tanh()  # noqa: E731
        return self.head(checkpoint(inner, x, use_reentrant=False))


class Doubled(torch.autograd.Function):
    """A function of one's own in the style that ``torch.func`` does not take."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class OwnFunction(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.head = nn.Parameter(torch.randn(4)), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(Doubled.apply(x * self.scale))


TOKENS = lambda: torch.randint(5, (6, 3))  # noqa: E731
UNUSUAL = {
    "tied weights": (Tied, TOKENS),
    "tied by hand": (TiedByHand, TOKENS),
    "a layer called twice": (Twice, lambda: torch.randn(6, 4)),
    "samples not first": (SequenceFirst, lambda: torch.randn(6, 6, 3)),
    "own and unused parameters": (Own, lambda: torch.randn(6, 4)),
    "a subclass": (lambda: nn.Sequential(Subclass(4, 5)), lambda: torch.randn(6, 4)),
    "a patched layer": (patched, lambda: torch.randn(6, 4)),
    "recurrent": (Recurrent, lambda: torch.randn(6, 3, 3)),
    "a subclass of a convolution": (
        lambda: nn.Sequential(Unknown(1, 2, 3), nn.Flatten(), nn.Linear(8, 5)),
        lambda: torch.randn(6, 1, 4, 4),
    ),
    "transformer": (transformer, lambda: torch.randn(6, 3, 4)),
    "parametrized": (weight_normed, lambda: torch.randn(6, 4)),
    "batch statistics": (batch_statistics, lambda: torch.randn(6, 1, 4, 4)),
    "samples that see each other": (Centred, lambda: torch.randn(6, 4)),
    "control flow on values": (NoVmap, lambda: torch.randn(6, 4)),
    "gradients in the forward pass": (Force, lambda: torch.randn(6, 4)),
    "a head of zeros": (ZeroHead, lambda: torch.randn(6, 4)),
    "checkpoints": (Checkpointed, lambda: torch.randn(6, 4)),
    "an autograd function": (OwnFunction, lambda: torch.randn(6, 4)),
    "renormed embedding": (
        lambda: nn.Sequential(nn.Embedding(5, 4, max_norm=0.5), nn.Flatten(), nn.Linear(12, 5)),
        TOKENS,
    ),
    "sparse embedding": (
        lambda: nn.Sequential(nn.Embedding(5, 4, sparse=True), nn.Flatten(), nn.Linear(12, 5)),
        TOKENS,
    ),
    "no image batch": (
        lambda: nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(9, 5)),
        lambda: torch.randn(6, 2, 5),
    ),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("batch", [1, 4, 6])
@pytest.mark.parametrize(("make", "inputs"), UNUSUAL.values(), ids=UNUSUAL)
def test_anything_else_is_exact_too(make, inputs, batch):
    torch.manual_seed(0)
    check(settled(make()), inputs(), torch.arange(6) % 5, batch=batch)


def test_outputs_of_any_kind():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 5)

        def forward(self, x):
            return {"logits": self.head(x)}

    loss = lambda outputs, y: F.cross_entropy(outputs["logits"], y)  # noqa: E731
    check(Named(), torch.randn(6, 4), torch.arange(6) % 5, loss)


def test_in_inference_mode():
    model, inputs, targets = case()
    expected = oracle(model, inputs, targets)
    with torch.inference_mode():
        batch = (inputs.clone(), targets.clone())
        found = fisher.fisher_diagonal(model, [batch], loss=F.cross_entropy)
    agree(found, expected)


WIDE = {
    "groups": (lambda: nn.Conv2d(64, 64, 3, padding=1, groups=2), (64, 1, 1)),
    "wide inputs": (lambda: nn.Linear(20000, 2), (20000,)),
    "transposed": (lambda: nn.ConvTranspose2d(64, 64, 3, groups=2), (64, 1, 1)),
    "three dimensions": (lambda: nn.Conv3d(32, 32, 3, padding=1), (32, 2, 1, 1)),
}


@pytest.mark.parametrize(("make", "shape"), WIDE.values(), ids=WIDE)
def test_what_is_built_at_once_follows_the_budget(monkeypatch, make, shape):
    """The largest tensor made beside the ordinary pass, for one and for many samples."""

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and visiting:
                self.found = max(getattr(self, "found", 0), result.numel() * 4)
            return result

    visiting = []
    formula = engine._Engine._formula

    def watched(self, *arguments):
        visiting.append(1)
        found = formula(self, *arguments)
        visiting.clear()
        return found

    monkeypatch.setattr(engine._Engine, "_formula", watched)
    monkeypatch.setattr(engine, "CPU_BUDGET", 200_000)
    model = nn.Sequential(make(), nn.Flatten()).eval()
    inputs = torch.randn(64, *shape)
    with Largest() as largest:
        loss = lambda outputs, _: outputs.square().sum()  # noqa: E731
        fisher.fisher_diagonal(model, [(inputs, torch.zeros(64))], loss=loss)
    own = max(value.numel() for value in model.parameters()) * 4
    assert largest.found <= max(
        engine.budget_of(torch.device("cpu")), 2 * own, inputs.nbytes if shape[0] == 64 else 0
    )


def test_an_input_changed_in_place_is_an_error_as_in_training():
    class Spoils(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 5)

        def forward(self, x):
            hidden = self.inner(x.clone())
            result = self.head(hidden)
            hidden.zero_()
            return result

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        check(Spoils(), torch.randn(6, 4), torch.arange(6) % 5)


@st.composite
def architectures(draw):
    """A chain of convolutions, norms and activations, with a branch, and a linear head."""
    channels, layers = draw(st.integers(1, 3)), []
    first = channels
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["conv", "depthwise", "batch", "group", "pool", "tanh"]))
        if kind == "conv":
            width = draw(st.integers(1, 5))
            kernel, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
            stride = draw(st.integers(1, 2))
            padding = draw(st.integers(0, 2)) + dilation * (kernel - 1) // 2
            layers.append(
                nn.Conv2d(
                    *(channels, width, kernel, stride, padding, dilation),
                    bias=draw(st.booleans()),
                )
            )
            channels = width
        elif kind == "depthwise":
            layers.append(nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=channels))
            channels *= 2
        else:
            layers.append(
                {
                    "batch": lambda: nn.BatchNorm2d(channels),  # noqa: B023
                    "group": lambda: nn.GroupNorm(1, channels),  # noqa: B023
                    "pool": lambda: nn.AvgPool2d(3, 1, 1),
                    "tanh": nn.Tanh,
                }[kind]()
            )
    head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, 3))
    return nn.Sequential(*layers, head), first


@settings(deadline=None, max_examples=40)
@given(architectures(), st.integers(0, 100), st.integers(1, 6), st.integers(4, 9))
def test_random_architectures(architecture, seed, batch, size):
    model, channels = architecture
    torch.manual_seed(seed)
    model = settled(model).double()
    inputs, targets = torch.randn(6, channels, size, size).double(), torch.randint(3, (6,))
    batches = list(zip(inputs.split(batch), targets.split(batch), strict=True))
    found = fisher.fisher_diagonal(model, batches, loss=F.cross_entropy)
    expected = oracle(model, inputs, targets)
    largest = max(value.max().item() for value in expected.values())
    # stacked norms make gradients that are nothing but rounding
    agree(found, expected, 1e-9, floor=1e-20 * largest)


# Networks ---------------------------------------------------------------------------------------


def darts_cell():
    import random

    space = Space.full(FULL)
    genotype = space.sample(1, random.Random(3), without=[])[0]
    return cells.build(genotype, image_shape=(3, 32, 32), target=Classes(10), seed=0)


FULL = SpaceSettings(nodes=[3], channels=[4])
NETWORKS = {
    name: (
        lambda name=name: networks.build(name, image_shape=(3, 32, 32), target=Classes(10), seed=0)
    )
    for name in ("vgg16", "resnet18", "densenet121", "small-cnn")
} | {"cell of DARTS operations": darts_cell}


def smooth(model):
    """SiLU for ReLU: a ReLU's input within rounding of zero switches, in whatever method."""
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.ReLU):
                setattr(parent, name, nn.SiLU())
    return model


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_networks_of_the_paper(monkeypatch, make):
    only_formulas(monkeypatch)
    torch.manual_seed(0)
    inputs, targets = torch.randn(3, 3, 32, 32), torch.arange(3)
    check(smooth(make()), inputs, targets, batch=2)
    model = make().eval()
    expected = oracle(model, inputs, targets)
    batches = [(inputs.double(), targets)]
    found = fisher.fisher_diagonal(model.double(), batches, loss=F.cross_entropy)
    agree(found, expected, 1e-9)


def test_equals_backpack(recwarn):
    from backpack import backpack, extend
    from backpack.extensions import SumGradSquared

    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4)),
    ).eval()
    inputs, targets = torch.randn(12, 1, 8, 8), torch.randint(4, (12,))
    found = fisher.fisher_diagonal(model, [(inputs, targets)], loss=F.cross_entropy)
    extended = extend(copy.deepcopy(model), use_converter=False)
    loss = extend(nn.CrossEntropyLoss(reduction="sum"))(extended(inputs), targets)
    with backpack(SumGradSquared()):
        loss.backward()
    expected = {
        name: value.sum_grad_squared.double() / 12 for name, value in extended.named_parameters()
    }
    agree(found, expected)


# Estimators -------------------------------------------------------------------------------------


def case():
    torch.manual_seed(0)
    model = networks.build("small-cnn", image_shape=(1, 8, 8), target=Classes(4), seed=0).eval()
    return model, torch.randn(23, 1, 8, 8), torch.randint(4, (23,))


def test_expected_is_the_mean_over_labels():
    model, inputs, _ = case()
    shares = copy.deepcopy(model).double()(inputs.double()).softmax(1).detach()
    expected = dict.fromkeys(dict(model.named_parameters()), 0.0)
    for x, share in zip(inputs, shares, strict=True):
        for label in range(4):
            found = oracle(model, x[None], torch.tensor([label]))
            expected = {name: expected[name] + share[label] * v / 23 for name, v in found.items()}
    batches = zip(inputs.split(9), torch.zeros(23).long().split(9), strict=True)
    found = fisher.fisher_diagonal(model, batches, loss=F.cross_entropy, estimator="expected")
    agree(found, expected)


def test_sampled_draws_from_the_model_and_tends_to_the_expectation():
    model, inputs, targets = case()

    def run(estimator, seed=0, repeats=1):
        batches = [(inputs, targets)] * repeats
        return fisher.fisher_diagonal(
            model, batches, loss=F.cross_entropy, estimator=estimator, seed=seed
        )

    first, again = run("sampled"), run("sampled")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(
        run("sampled")["head.linear.bias"], run("sampled", 1)["head.linear.bias"]
    )
    many, expected = run("sampled", repeats=200), run("expected")
    for name, value in expected.items():
        assert (many[name] - value).abs().max() < 0.1 * value.max(), name


@pytest.mark.parametrize("make", [image_layers, batch_statistics], ids=["formulas", "general"])
def test_microbatches_are_squares_of_mean_gradients(make, capfd):
    torch.manual_seed(0)
    model = settled(make())
    size = 8 if make is image_layers else 4
    inputs, targets = torch.randn(23, 1, size, size), torch.randint(4, (23,))
    expected = dict.fromkeys(dict(model.named_parameters()), 0.0)
    twin = copy.deepcopy(model).double()
    for x, y in zip(inputs.double().split(5)[:4], targets.split(5), strict=False):
        twin.zero_grad()
        F.cross_entropy(twin(x), y).backward()
        for name, value in twin.named_parameters():
            expected[name] = expected[name] + value.grad**2 / 4
    batches = zip(inputs.split(7), targets.split(7), strict=True)
    found = fisher.fisher_diagonal(model, batches, loss=F.cross_entropy, microbatch=5)
    agree(found, expected)
    assert "a last micro-batch of 3 instead of 5 is dropped" in capfd.readouterr().err


@pytest.mark.parametrize("make", [image_layers, batch_statistics], ids=["formulas", "general"])
def test_pooling_as_the_released_code_does(make):
    """Its loop: backward on each mini-batch's mean loss, squares, mean(0), mean over batches."""
    torch.manual_seed(0)
    model = settled(make())
    size = 8 if make is image_layers else 4
    inputs, targets = torch.randn(20, 1, size, size), torch.randint(4, (20,))
    twin = copy.deepcopy(model).double()
    expected = [torch.zeros_like(value) for value in twin.parameters()]
    loader = list(zip(inputs.double().split(5), targets.split(5), strict=True))
    for x, y in loader:
        twin.zero_grad()
        F.cross_entropy(twin(x), y).backward()
        for index, value in enumerate(twin.parameters()):
            expected[index] += torch.zeros_like(value) + (value.grad**2).mean(0)
    names = [name for name, _ in twin.named_parameters()]
    expected = {name: value / len(loader) for name, value in zip(names, expected, strict=True)}
    same = {"loss": F.cross_entropy, "microbatch": 5}
    batches = list(zip(inputs.split(7), targets.split(7), strict=True))
    found = fisher.fisher_diagonal(model, batches, **same, pool_first_dimension=True)
    agree(found, expected)
    plain = fisher.fisher_diagonal(model, batches, **same)
    for name, value in plain.items():
        torch.testing.assert_close(found[name].sum(), value.sum())
        assert (found[name] == found[name][:1]).all() and (value != value[:1]).any()


DENSE = {
    "maps": (
        lambda: nn.Conv2d(1, 3, 3, padding=1),
        lambda: torch.randn(4, 1, 5, 5),
        lambda: torch.randint(3, (4, 5, 5)),
    ),
    "sequences": (
        lambda: nn.Linear(6, 7),
        lambda: torch.randn(4, 5, 6),
        lambda: torch.randint(5, (4, 7)),
    ),
    "general": (
        lambda: Unknown(1, 3, 2, padding=1),
        lambda: torch.randn(4, 1, 4, 4),
        lambda: torch.randint(3, (4, 5, 5)),
    ),
}


@pytest.mark.parametrize("estimator", ["sampled", "expected"])
@pytest.mark.parametrize(("make", "inputs", "targets"), DENSE.values(), ids=DENSE)
def test_dense_outputs_have_no_labels_of_their_own(make, inputs, targets, estimator):
    model, batch = make().eval(), (inputs(), targets())
    assert model(batch[0]).dim() > 2
    with pytest.raises(
        UserError, match=rf"'{estimator}': expected outputs \[B, classes\], got \[4"
    ):
        fisher.fisher_diagonal(model, [batch], loss=F.cross_entropy, estimator=estimator)
    fisher.fisher_diagonal(model, [batch], loss=F.cross_entropy)


def test_outputs_that_are_no_tensor_have_none_either():
    class Named(nn.Linear):
        def forward(self, x):
            return {"logits": super().forward(x)}

    loss = lambda outputs, y: F.cross_entropy(outputs["logits"], y)  # noqa: E731
    batch = (torch.randn(6, 4), torch.arange(6) % 5)
    with pytest.raises(UserError, match="expected a model whose output is a tensor, got dict"):
        fisher.fisher_diagonal(Named(4, 5).eval(), [batch], loss=loss, estimator="sampled")


@pytest.mark.parametrize("make", [lambda: nn.Conv2d(1, 2, 3, padding=1), DENSE["general"][0]])
def test_labels_of_one_s_own(make):
    """Two answers to every map, of weights that depend on the outputs."""

    def labels_of(outputs, targets, estimator, generator):
        assert estimator == "expected" and not outputs.requires_grad
        share = outputs.double().mean((1, 2, 3)).sigmoid()
        return [(targets, share), (1 - targets, 1 - share)]

    torch.manual_seed(0)
    model = make().eval()
    inputs, targets = torch.randn(6, 1, 4, 4), torch.randint(2, (6, 4, 4))
    targets = F.pad(targets, (0, 1, 0, 1)) if isinstance(model, Unknown) else targets
    share = copy.deepcopy(model).double()(inputs.double()).mean((1, 2, 3)).sigmoid().detach()
    expected = dict.fromkeys(dict(model.named_parameters()), 0.0)
    for answers, weights in ((targets, share), (1 - targets, 1 - share)):
        for x, y, weight in zip(inputs, answers, weights, strict=True):
            for name, value in oracle(model, x[None], y[None]).items():
                expected[name] = expected[name] + weight * value / 6
    batches = list(zip(inputs.split(4), targets.split(4), strict=True))
    same = {"loss": F.cross_entropy, "estimator": "expected", "labels_of": labels_of}
    agree(fisher.fisher_diagonal(model, batches, **same), expected)


def test_weighted_labels_do_not_go_with_micro_batches():
    model, inputs, targets = case()
    labels_of = lambda outputs, y, *_: [(y, torch.ones(len(y)))]  # noqa: E731
    with pytest.raises(UserError, match="microbatch 5 with labels that have weights"):
        fisher.fisher_diagonal(
            model, [(inputs, targets)], loss=F.cross_entropy,
            estimator="sampled", labels_of=labels_of, microbatch=5,
        )  # fmt: skip


# Formulas of one's own --------------------------------------------------------------------------


class Scale(nn.Module):
    """A layer of one's own, whose parameter has a name of its own."""

    def __init__(self, width):
        super().__init__()
        self.factor = nn.Parameter(torch.randn(width))

    def forward(self, x):
        return x * self.factor


class Block(Scale):
    """One that holds another layer, and uses its own parameter after it."""

    def __init__(self, width):
        super().__init__(width)
        self.inner = nn.Linear(width, width)

    def forward(self, x):
        return super().forward(self.inner(x).tanh())


def scale(layer, x, g, units, budget):
    return {"factor": (x * g).view(units, -1, x.shape[1]).sum(1).square().sum(0)}


def test_a_formula_for_a_layer_of_one_s_own_is_used(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), Scale(6), nn.Tanh(), nn.Linear(6, 5)).eval()
    inputs, targets = torch.randn(9, 4), torch.arange(9) % 5
    expected = oracle(model, inputs, targets)
    batches = list(zip(inputs.split(4), targets.split(4), strict=True))
    agree(fisher.fisher_diagonal(model, batches, loss=F.cross_entropy), expected)
    only_formulas(monkeypatch)
    calls = []

    def counted(*arguments):
        calls.append(arguments[0])
        return scale(*arguments)

    for formula in (counted, Formula(counted), Formula(counted, dimensions=(2,))):
        same = {"loss": F.cross_entropy, "formulas": {Scale: formula}, "check": False}
        agree(fisher.fisher_diagonal(model, batches, **same), expected)
    assert len(calls) == 9 and set(calls) == {model[1]}


@pytest.mark.parametrize("refused", [{"dimensions": (4,)}, {"accepts": lambda layer: False}])
def test_a_layer_that_a_formula_does_not_hold_for_takes_the_general_path(refused):
    torch.manual_seed(0)
    model = nn.Sequential(Scale(4), nn.Linear(4, 5)).eval()
    inputs, targets = torch.randn(6, 4), torch.arange(6) % 5
    own = {Scale: Formula(lambda *_: pytest.fail("used"), **refused)}
    batches = [(inputs, targets)]
    found = fisher.fisher_diagonal(model, batches, loss=F.cross_entropy, formulas=own)
    agree(found, oracle(model, inputs, targets))


def test_a_formula_for_a_layer_that_holds_others(monkeypatch):
    only_formulas(monkeypatch)
    torch.manual_seed(0)

    def block(layer, x, g, units, budget):
        return scale(layer, layer.inner(x).tanh(), g, units, budget)

    model = nn.Sequential(Block(4), nn.Linear(4, 5)).eval()
    inputs, targets = torch.randn(6, 4), torch.arange(6) % 5
    batches = [(inputs, targets)]
    found = fisher.fisher_diagonal(model, batches, loss=F.cross_entropy, formulas={Block: block})
    agree(found, oracle(model, inputs, targets))


def test_a_formula_in_place_of_a_built_in_one_is_used(capfd):
    model, inputs, targets = case()

    def twice(*arguments):
        found = layers.linear(*arguments)
        return {name: 2 * value for name, value in found.items()} | {"rows": arguments[2].sum(0)}

    batches = [(inputs, targets)]
    plain = fisher.fisher_diagonal(model, batches, loss=F.cross_entropy)
    same = {"loss": F.cross_entropy, "formulas": {nn.Linear: twice}}
    found = fisher.fisher_diagonal(model, batches, **same, check=False)
    assert found.pop("head.linear:rows").shape == (4,)
    for name, value in plain.items():
        assert torch.equal(found[name], 2 * value if "head" in name else value)
    again = fisher.fisher_diagonal(model, batches, loss=F.cross_entropy)
    assert all(torch.equal(again[name], value) for name, value in plain.items())
    agree(fisher.fisher_diagonal(model, batches, **same), oracle(model, inputs, targets))
    assert "head.linear.bias" in capfd.readouterr().err  # of a wrong formula


@pytest.mark.parametrize("found", [{}, {"factor": torch.zeros(2)}, {"weight": torch.zeros(4)}])
def test_a_formula_that_leaves_out_a_parameter_is_an_error(found):
    model = nn.Sequential(Scale(4), nn.Linear(4, 5)).eval()
    batch = (torch.randn(6, 4), torch.arange(6) % 5)
    own = {Scale: lambda *_: dict(found)}
    with pytest.raises(UserError, match=r"formula of Scale gives no squares of its 'factor'"):
        fisher.fisher_diagonal(model, [batch], loss=F.cross_entropy, formulas=own)


# Promises ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [2, 4, 7])
def test_other_label_counts_pad_or_keep_the_logits(labels):
    model, inputs, _ = case()
    order = index_order(4, labels)
    check(InOrder(model, order), inputs, torch.arange(23) % labels)
    expected = F.pad(model(inputs), (0, max(0, labels - 4)))
    assert torch.equal(InOrder(model, order)(inputs), expected)


@pytest.mark.parametrize("budget", [1, 3_000, 10**9])
@pytest.mark.parametrize("make", [image_layers, Recurrent], ids=["formulas", "general"])
def test_chunks_and_batches_change_nothing_but_rounding(monkeypatch, budget, make):
    monkeypatch.setattr(engine, "CPU_BUDGET", budget)
    torch.manual_seed(0)
    model = settled(make())
    shape = (12, 1, 8, 8) if make is image_layers else (12, 3, 3)
    inputs, targets = torch.randn(shape), torch.randint(4, (12,))
    for batch in (1, 5, 12):
        check(model, inputs, targets, batch=batch)


def test_leaves_everything_as_it_was():
    model = settled(image_layers())
    model[0].weight.requires_grad_(False)
    model[3].bias.grad = torch.ones(6)
    calls = []
    model[4].register_forward_hook(lambda *_: calls.append(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in model]
    threads = torch.get_num_threads()
    inputs, targets = torch.randn(4, 1, 8, 8), torch.randint(4, (4,))
    with torch.no_grad():
        found = fisher.fisher_diagonal(model, [(inputs, targets)], loss=F.cross_entropy)
        assert not torch.is_grad_enabled()
    agree(found, oracle(model, inputs, targets))  # the frozen weight included
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * (
        len(list(model.parameters())) - 1
    )
    assert torch.equal(model[3].bias.grad, torch.ones(6)) and model[0].bias.grad is None
    assert hooks == [len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in model]
    assert calls and threads == torch.get_num_threads() and not model.training


def test_leaves_the_model_as_it_was_after_an_error():
    model, inputs, targets = case()
    with pytest.raises(UserError):
        fisher.fisher_diagonal(model, [(inputs, targets + 9)], loss=F.cross_entropy)
    assert all(p.requires_grad for p in model.parameters())
    assert not any(layer._forward_hooks for layer in model.modules())


def test_frozen_parameters_of_the_general_path():
    model = Twice()
    model.inner.requires_grad_(False)
    check(model, torch.randn(6, 4), torch.arange(6) % 5)


def test_refuses_training_mode_and_no_samples():
    model, _, _ = case()
    with pytest.raises(UserError, match="the model is in training mode"):
        fisher.fisher_diagonal(model.train(), [], loss=F.cross_entropy)
    model.eval().body[1].train()
    with pytest.raises(UserError, match=r"body\.1 is in training mode"):
        fisher.fisher_diagonal(model, [], loss=F.cross_entropy)
    with pytest.raises(UserError, match="no samples"):
        fisher.fisher_diagonal(model.eval(), [], loss=F.cross_entropy)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"estimator": "exact"}, "unknown estimator 'exact'"),
        ({"microbatch": 0}, "microbatch 0"),
        ({"microbatch": 2, "estimator": "expected"}, "microbatch 2"),
    ],
)
def test_refuses_wrong_arguments(keys, message):
    with pytest.raises(UserError, match=message):
        fisher.fisher_diagonal(case()[0], [], loss=F.cross_entropy, **keys)


def test_a_label_beyond_the_outputs_is_an_error():
    model, inputs, targets = case()
    with pytest.raises(UserError, match="targets that do not fit the network's outputs"):
        fisher.fisher_diagonal(model, [(inputs, targets + 4)], loss=F.cross_entropy)


def test_nan_is_kept_for_the_trace_to_name():
    model, inputs, targets = case()
    inputs[3, 0, 0, 0] = float("nan")
    found = fisher.fisher_diagonal(model, [(inputs, targets)], loss=F.cross_entropy)
    with pytest.raises(UserError, match="trace is nan"):
        unit_trace(found, "probe a on task b")


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float16, 0.1), (torch.bfloat16, 0.2)],
    ids=["double", "half", "bfloat16"],
)
def test_other_precisions(dtype, tolerance):
    model, inputs, targets = case()
    expected = oracle(model, inputs, targets)
    model = copy.deepcopy(model).to(dtype)
    found = fisher.fisher_diagonal(model, [(inputs.to(dtype), targets)], loss=F.cross_entropy)
    agree(found, expected, tolerance)


def test_what_is_found_is_laid_out_as_a_file_gives_it():
    """Sums follow the layout, and a distance is one whether a diagonal was read or computed."""
    model, inputs, targets = case()
    model.to(memory_format=torch.channels_last)
    assert not all(p.is_contiguous() for p in model.parameters())
    found = fisher.fisher_diagonal(model, [(inputs, targets)], loss=F.cross_entropy)
    assert all(value.is_contiguous() for value in found.values())


def test_inputs_of_any_layout():
    model, inputs, targets = case()
    wide = torch.zeros(23, 1, 8, 16)
    wide[..., ::2] = inputs
    check(model, wide[..., ::2], targets)
    check(model, inputs.transpose(2, 3).contiguous().transpose(2, 3), targets)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_degenerate_trace_names_probe_and_task(value):
    with pytest.raises(UserError, match=r"probe a on task b: .*trace"):
        unit_trace({"w": torch.full((3,), value)}, "probe a on task b")


MEMORY = """
import sys
import torch
import torch.nn.functional as F
from evidence.fisher_speed import peak_of, reset_peak
from ftd import fisher
from ftd.fisher.engine import CPU_BUDGET
from ftd.models import networks
from ftd.tasks.targets.classes import Classes

torch.set_num_threads(1)
cpu = torch.device("cpu")
model = networks.build("densenet121", image_shape=(3, 32, 32), target=Classes(10), seed=0).eval()
batch = [(torch.randn(32, 3, 32, 32), torch.arange(32) % 10)]
if sys.argv[1] == "ordinary":  # forward and backward to the images
    model.requires_grad_(False)
    def run():
        F.cross_entropy(model(batch[0][0].clone().requires_grad_()), batch[0][1]).backward()
else:
    def run():
        fisher.fisher_diagonal(model, batch, loss=F.cross_entropy)
run()
before = reset_peak(cpu)
run()
size = sum(p.numel() for p in model.parameters())
print((peak_of(cpu) - before) * 2**20, size * 4, CPU_BUDGET)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's /proc")
def test_memory_beyond_an_ordinary_pass_is_bounded():
    def run(what):
        command = [sys.executable, "-c", MEMORY, what]
        exact = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | exact
        )
        return (float(value) for value in done.stdout.split())

    ordinary, size, budget = run("ordinary")
    ours, _, _ = run("ours")
    # float64 sums and float32 sums of one batch, and a few buffers of the budget; 32 gradients of
    # single samples alone would be 32 times the parameters
    assert ours - ordinary < 4 * size + 16 * budget, (ours, ordinary, size)
