"""Heads of dense targets: their shapes, their common start, and what is compared of them."""

import copy
import math
from collections import OrderedDict

import pytest
import torch
from torch import nn

import ftd
from ftd.errors import UserError
from ftd.measures.fisher_task import aligned_information, contributions
from ftd.models import networks
from ftd.tasks.targets.binary_maps import BinaryMaps
from ftd.tasks.targets.classes import Classes
from ftd.tasks.targets.decoder import decoder
from ftd.tasks.targets.dense import Dense
from ftd.tasks.targets.pixel_classes import PixelClasses
from ftd.tasks.targets.regression import Regression
from ftd.tasks.targets.unit_vectors import UnitVectors

DEPTH = Dense(Regression(1, [0.0], [1.0]))
EDGES = Dense(BinaryMaps())
NORMALS = Dense(UnitVectors())
LABELS = Dense(PixelClasses(5))
TARGETS = {"regression": DEPTH, "binary": EDGES, "vectors": NORMALS, "classes": LABELS}


@pytest.mark.parametrize("size", [8, 20, 37, 64, 96])
@pytest.mark.parametrize("network", ["small-cnn", "resnet18-x0.25"])
def test_outputs_are_maps_of_the_images_size(network, size):
    for target in (DEPTH, LABELS):
        model = networks.build(network, image_shape=(3, size, size), target=target, seed=0)
        assert model.eval()(torch.zeros(2, 3, size, size)).shape == (2, target.outputs, size, size)


@pytest.mark.parametrize(
    ("features", "size", "layers"),
    [
        ((128, 4, 4), (32, 32), {"up0": 64, "up1": 32, "up2": 16}),
        ((100, 5, 7), (13, 29), {"up0": 50, "up1": 25}),
        ((32, 22, 22), (90, 90), {"up0": 16, "up1": 16}),  # the last by a little more than two
        ((6, 8, 8), (8, 8), {"up0": 16}),
        ((20, 9, 9), (5, 6), {"up0": 16}),
    ],
)
def test_decoders_halve_their_channels_up_to_the_size(features, size, layers):
    head = decoder(features, size, 3)
    assert head(torch.randn(2, *features)).shape == (2, 3, *size)
    steps = [(name, step) for name, step in head.named_children() if name != "out"]
    widths = {name: step.conv.out_channels for name, step in steps}
    assert widths == layers
    assert {name.rpartition(".")[0] for name, _ in head.named_parameters()} == {
        *(f"{name}.{part}" for name in layers for part in ("conv", "norm")),
        "out",
    }


def test_features_without_places_take_the_released_probe_s_second_half():
    head = NORMALS.head((40,), (6, 9))
    assert head(torch.randn(2, 40)).shape == (2, 3, 6, 9)
    assert {name: tuple(v.shape) for name, v in head.named_parameters()} == {
        **{"hidden.weight": (512, 40), "hidden.bias": (512,)},
        **{"out.weight": (3 * 54, 512), "out.bias": (3 * 54,)},
    }
    x = torch.randn(2, 40)
    flat = head.out(head.hidden(x).clamp_min(0))
    torch.testing.assert_close(head(x), flat.view(2, 3, 6, 9))


def started(target: Dense, features, seed=3, size=(16, 16)) -> dict[str, torch.Tensor]:
    head = target.head(features, size)
    with torch.no_grad():
        for value in head.parameters():
            value.fill_(7)
    target.start(head, seed)
    return dict(head.named_parameters())


@pytest.mark.parametrize("features", [(32, 4, 4), (10,)], ids=["maps", "vectors"])
def test_heads_of_one_seed_agree_in_what_they_share(features):
    depth, edges, normals, other = (
        started(target, features, seed)
        for target, seed in ((DEPTH, 3), (EDGES, 3), (NORMALS, 3), (DEPTH, 4))
    )
    for name, value in depth.items():
        assert torch.equal(value, edges[name])
        assert torch.equal(value, normals[name][: len(value)])
        if "norm" not in name:
            assert not torch.equal(value, other[name])
    rows = normals["out.weight"].chunk(3)
    assert not torch.equal(rows[0], rows[1]) and not torch.equal(rows[1], rows[2])


def test_a_start_has_pytorch_s_distribution():
    found = started(DEPTH, (256, 4, 4)) | {"out": started(LABELS, (300,))["out.weight"]}
    assert all((value == 1).all() for name, value in found.items() if "norm.weight" in name)
    assert all((value == 0).all() for name, value in found.items() if "norm.bias" in name)
    fans = {"up0.conv.weight": 256 * 9, "up1.conv.weight": 128 * 9, "out": 512}
    for name, inputs in fans.items():  # uniform within ±1/√inputs
        bound = inputs**-0.5
        assert 0.99 * bound < found[name].abs().max() <= bound
        assert float(found[name].detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert 0.9 * 2304**-0.5 < found["up0.conv.bias"].abs().max() <= 2304**-0.5


def test_bodies_of_one_trial_start_equal_whatever_the_head():
    targets = (Classes(3), DEPTH, NORMALS, LABELS)
    same = {"image_shape": (3, 16, 16), "seed": 5}
    models = [networks.build("small-cnn", target=target, **same) for target in targets]
    first = models[0].body.state_dict()
    for model in models[1:]:
        for name, value in model.body.state_dict().items():
            assert torch.equal(value, first[name])


# What is compared -------------------------------------------------------------------------------


def entries(target) -> dict[str, torch.Tensor]:
    """A network's parameters, and a Kronecker factor of its head."""
    model = networks.build("small-cnn", image_shape=(3, 8, 8), target=target, seed=0)
    last = "head.linear" if isinstance(target, Classes) else "head.out"
    return dict(model.named_parameters()) | {f"{last}:A": torch.eye(2), "body.0:A": torch.eye(2)}


@pytest.mark.parametrize(
    ("first", "second"),
    [(DEPTH, NORMALS), (DEPTH, DEPTH), (Classes(2), LABELS), (EDGES, Classes(3))],
)
def test_heads_are_not_compared_where_one_is_a_decoder(first, second):
    given = entries(first), entries(second)
    for target in (first, second):
        for padded, before in zip(target.pad(*given), given, strict=True):
            assert padded.keys() == {name for name in before if name.startswith("body.")}
            assert all(value is before[name] for name, value in padded.items())
    of_classes = Classes(3).pad(entries(Classes(2)), entries(Classes(3)))
    assert {len(side["head.linear.weight"]) for side in of_classes} == {3}


def small(target: Dense, seed: int = 0) -> nn.Module:
    """An encoder and its decoder, in double precision: images [B, 3, 8, 8]."""
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4, padding=1), nn.ReLU())
    head = target.head((4, 2, 2), (8, 8))
    target.start(head, seed)
    return nn.Sequential(OrderedDict(body=body, head=head)).double().eval()


def batch(target: Dense, count: int = 5):
    """Images and targets; of the first nothing was measured, of the others not all."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, 8, 8, generator=generator, dtype=torch.float64)
    absent = torch.rand(count, 1, 8, 8, generator=generator) < 0.3
    absent[0] = True
    if target is LABELS:
        labels = torch.randint(5, (count, 8, 8), generator=generator)
        return images, torch.where(absent[:, 0], -1, labels)
    values = torch.randn(count, target.outputs, 8, 8, generator=generator, dtype=torch.float64)
    values = (values > 0).double() if target is EDGES else values / values.norm(dim=1)[:, None]
    return images, torch.where(absent, math.nan, values)


@pytest.mark.parametrize("kind", TARGETS)
def test_the_fisher_diagonal_is_that_of_a_loop_over_samples(kind):
    target = TARGETS[kind]
    model, (images, targets) = small(target), batch(target)
    found = ftd.fisher_diagonal(
        model, zip(images.split(3), targets.split(3), strict=True), loss=target.loss
    )
    model = copy.deepcopy(model)
    names, parameters = zip(*model.named_parameters(), strict=True)
    expected = dict.fromkeys(names, 0.0)
    for x, y in zip(images, targets, strict=True):
        gradients = torch.autograd.grad(target.loss(model(x[None]), y[None]), parameters)
        for name, gradient in zip(names, gradients, strict=True):
            expected[name] = expected[name] + gradient**2 / len(images)
    assert list(found) == list(names)
    for name, value in expected.items():
        assert value.any()
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5 * float(value.max()))


def test_the_distance_of_two_dense_tasks_is_that_of_their_bodies():
    """One network's information on its task and another's, both with the head of the target."""
    images, targets = batch(NORMALS)
    sides = []
    for seed in (0, 1):
        model = small(NORMALS, seed)
        found = aligned_information(
            model, [(images, targets)], NORMALS.align(model, (), "matching"),
            loss=NORMALS.loss, labels_of=NORMALS.labels_of, estimator="sampled",
        )  # fmt: skip
        assert list(found) == [name for name, _ in model.named_parameters()]
        sides.append(found)
    layers = contributions(*sides, NORMALS.pad, "x")
    assert list(layers) == ["body.0"] and layers["body.0"] > 0
    assert contributions(sides[0], sides[0], NORMALS.pad, "x") == {"body.0": 0}


@pytest.mark.parametrize(("own", "other"), [(NORMALS, DEPTH), (DEPTH, NORMALS)])
def test_a_head_of_other_channels_answers_with_its_first_ones_and_zeros(own, other):
    """A network of three maps on a target of one, and the other way round, by plain autograd."""
    images, targets = batch(other)
    model = small(own).eval()
    found = aligned_information(
        model, [(images, targets)], other.align(model, (), "index"),
        loss=other.loss, labels_of=other.labels_of, estimator="empirical",
    )  # fmt: skip
    names, parameters = zip(*model.named_parameters(), strict=True)
    expected = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for x, y in zip(images, targets, strict=True):
        outputs = model(x[None])
        missing = outputs.new_zeros(1, max(0, other.outputs - outputs.shape[1]), *outputs.shape[2:])
        loss = other.loss(torch.cat([outputs, missing], 1)[:, : other.outputs], y[None])
        gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
        for name, gradient in zip(names, gradients, strict=True):
            expected[name] += gradient**2 / len(images)
    for name, value in expected.items():
        scale = max(float(value.max()), 1e-12)
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5 * scale)
    assert expected["body.0.weight"].any()


def test_a_network_of_another_kind_of_target_is_refused_by_the_loss():
    model = small(DEPTH)
    with pytest.raises(UserError, match=r"outputs \[B, 3, H, W\] .* got \[1, 1, 8, 8\]"):
        ftd.fisher_diagonal(model, [batch(NORMALS)], loss=NORMALS.loss)
    with pytest.raises(UserError, match="the network's head has no layer 'linear'"):
        Classes(2).align(model, (), "index")
