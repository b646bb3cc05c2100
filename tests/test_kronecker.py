"""Kronecker-factored information against plain loops, and its distance against dense matrices."""

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.linalg import block_diag, sqrtm
from torch import nn

from ftd import fisher
from ftd.fisher import kronecker
from ftd.measures.fisher_task import on_common_ground, squared_distance
from ftd.tasks.targets.alignment import InOrderOf
from ftd.tasks.targets.classes import Classes

PAD = Classes(3).pad
HEAD = ("head.linear.weight", "head.linear.bias", "head.linear:B")


def head(outputs):
    return nn.Sequential(OrderedDict(linear=nn.Linear(8, outputs)))


def network(seed):
    torch.manual_seed(seed)
    model = nn.Sequential()
    model.body = nn.Sequential(
        nn.Conv2d(1, 2, 2, stride=2, padding=1), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten()
    )
    model.head = head(3)
    return model.double().eval()


def information(model, inputs, targets, batch=5):
    batches = list(zip(inputs.split(batch), targets.split(batch), strict=True))
    return kronecker.information(model, batches, loss=F.cross_entropy)


@pytest.fixture
def data():
    torch.manual_seed(9)
    return torch.randn(11, 1, 3, 3).double(), torch.arange(11) % 3


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_factors_are_what_they_stand_for(data):
    model, (inputs, targets) = network(0), data
    found = information(model, inputs, targets)
    diagonal = fisher.fisher_diagonal(model, [data], loss=F.cross_entropy)
    for name, value in diagonal.items():
        torch.testing.assert_close(found[name], value)
    gradients = {}
    for layer in (model.body[0], model.head.linear):
        layer.register_full_backward_hook(lambda m, _, g: gradients.__setitem__(m, g[0]))
    a = dict.fromkeys((model.body[0], model.head.linear), 0.0)
    b = dict(a)
    for x, y in zip(inputs, targets, strict=True):
        features = model.body(x[None])
        F.cross_entropy(model.head(features), y[None]).backward()
        padded = F.pad(x, (1, 1, 1, 1))[0]
        windows = [padded[i : i + 2, j : j + 2].flatten() for i in (0, 2) for j in (0, 2)]
        for layer, rows in ((model.body[0], torch.stack(windows)), (model.head.linear, features)):
            rows = torch.cat([rows, torch.ones(len(rows), 1)], 1).detach()
            g = gradients[layer].reshape(1, gradients[layer].shape[1], -1)[0].T
            a[layer] = a[layer] + rows.T @ rows / 11
            b[layer] = b[layer] + g.T @ g / 11
    for name, layer in (("body.0", model.body[0]), ("head.linear", model.head.linear)):
        torch.testing.assert_close(found[f"{name}:A"], a[layer])
        torch.testing.assert_close(found[f"{name}:B"], b[layer])
    assert not [name for name in found if name.startswith("body.1:")]  # the norm is diagonal


def dense(found):
    """The block-diagonal matrix that an information of unit trace stands for."""
    blocks = []
    for layer in ("body.0", "head.linear"):
        block = np.kron(found[f"{layer}:A"].numpy(), found[f"{layer}:B"].numpy())
        trace = float(found[f"{layer}.weight"].sum() + found[f"{layer}.bias"].sum())
        blocks.append(block * trace / np.trace(block))
    norm = torch.cat([found["body.1.weight"], found["body.1.bias"]]).numpy()
    return block_diag(*blocks, np.diag(norm))


def test_distance_is_the_dense_formula(data):
    first, second = (information(network(seed), *data) for seed in (1, 2))
    first, second = on_common_ground(first, second, PAD, "x")
    one, two = dense(first), dense(second)
    assert np.trace(one) == pytest.approx(1)
    # SciPy's root wants regular matrices; a tiny multiple of the identity changes little
    small = 1e-13 * np.eye(len(one))
    root = sqrtm(one + small)
    full = 0.5 * np.trace(one + two - 2 * sqrtm(root @ (two + small) @ root)).real
    assert squared_distance(first, second) == pytest.approx(full, abs=1e-5)
    assert squared_distance(first, first) == pytest.approx(0, abs=1e-7)
    assert 0 < squared_distance(first, second) < 1


def test_diagonal_factors_give_the_diagonal_distance():
    def made(values):
        block = torch.outer(values[0], values[1])
        return {
            "head.linear.weight": block.T[:, :2], "head.linear.bias": block.T[:, 2],
            "head.linear:A": torch.diag(values[0]), "head.linear:B": torch.diag(values[1]),
        }  # fmt: skip

    torch.manual_seed(0)
    first, second = (made([torch.rand(3).double(), torch.rand(4).double()]) for _ in range(2))
    first, second = on_common_ground(first, second, PAD, "x")
    diagonals = [kronecker.diagonal_of(found) for found in (first, second)]
    assert squared_distance(first, second) == pytest.approx(squared_distance(*diagonals))


def test_heads_of_different_sizes_and_orders(data):
    first, (inputs, targets) = network(1), data
    second = network(2)
    second.head = head(5).double().eval()
    one, two = (information(model, inputs, targets) for model in (first, second))
    padded, other = on_common_ground(one, two, PAD, "x")
    assert padded["head.linear:B"].shape == (5, 5) and (padded["head.linear:B"][3:] == 0).all()
    assert 0 < squared_distance(padded, other) <= 1
    order = [2, 0, 1]
    turned = copy.deepcopy(first)
    for value in turned.head.parameters():
        value.data = value.data[order]
    alignment = InOrderOf([1, 2, 0], HEAD)  # the output that stands for each label
    found = kronecker.information(alignment.adapt(turned), [data], loss=F.cross_entropy)
    found = {name.removeprefix("network."): value for name, value in found.items()}
    found = alignment.reorder(found)
    for name, value in one.items():
        torch.testing.assert_close(found[name], value)
