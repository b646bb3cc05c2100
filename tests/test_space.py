"""Spaces and genotypes: counting, drawing, restricting; the networks that genotypes build."""

import math
import random
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ftd.config.search_keys import DARTS_OPERATIONS, SpaceSettings
from ftd.errors import UserError
from ftd.models import cells, operations
from ftd.models.genotype import Genotype, Skeleton, edges_changed
from ftd.models.macs import forward_macs
from ftd.parts import OPERATIONS, Operation
from ftd.search.space import Space, restrict
from ftd.tasks.targets.classes import Classes

SMALL = Space(
    ("none", "skip_connect", "sep_conv_3x3"),
    (Skeleton.usual(3, 1, 2), Skeleton.usual(3, 2, 2)),
)
DARTS_LIKE = Space(("none", "skip_connect"), (Skeleton(3, 2, 2, (1,), feeds=2, fan_in=2),))
ONE_CELL = Space(("a", "b", "c"), (Skeleton(1, 2, 1, ()),))
EVERYTHING = {space: list(space) for space in (SMALL, DARTS_LIKE, ONE_CELL)}


# Space ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "size"),
    [
        (SMALL, 3**2 + 3**6),
        (DARTS_LIKE, (2**2 * 3 * 2**2) ** 2),  # the second node chooses 2 of 3 inputs
        (ONE_CELL, 3**3),
    ],
)
def test_size_counts_distinct_genotypes(space, size):
    everything = EVERYTHING[space]
    assert space.size == size == len(everything) == len(set(everything))
    assert all(genotype in space for genotype in everything)
    assert space.size_log10 == pytest.approx(math.log10(size))


@pytest.mark.parametrize("space", EVERYTHING)
def test_neighbours_differ_in_one_edge_or_in_the_skeleton_alone(space):
    def is_near(one, other):
        if one.skeleton == other.skeleton:
            return edges_changed(one, other) == 1
        return one.nodes == other.nodes

    for genotype in EVERYTHING[space][::37]:
        wanted = [one for one in EVERYTHING[space] if is_near(one, genotype)]
        found = space.neighbours(genotype)
        assert set(found) == set(wanted) and len(found) == len(wanted)


def test_a_cell_on_another_skeleton_is_a_neighbour_and_none_is_outside_the_space():
    wide = Skeleton.usual(3, 1, 4)
    space = Space(SMALL.operations, (SMALL.skeletons[0], wide))
    genotype = next(iter(space))
    near = space.neighbours(genotype)
    assert [one.nodes for one in near if one.skeleton == wide] == [genotype.nodes]
    assert len(near) == 2 * 2 + 1  # two edges, each two other operations
    ball = restrict(space, [genotype], radius=1)
    other = near[0]
    assert set(ball.neighbours(other)) == {one for one in ball if edges_changed(one, other) == 1}


def test_sizes_of_large_spaces():
    assert Space.full(SpaceSettings()).size == 10**12  # six edges in each of two cells
    darts = SpaceSettings(operations=list(DARTS_OPERATIONS[:8]), nodes=[4], feeds=2, fan_in=2)
    pairs = math.prod(math.comb(inputs, 2) * 8**2 for inputs in (2, 3, 4, 5))
    assert Space.full(darts).size == pairs**2


def uniform(drawn: dict, draws: int) -> None:
    """Pearson's test that all were drawn equally often, at one in a thousand."""
    from scipy.stats import chi2

    expected = draws / len(drawn)
    found = sum((count - expected) ** 2 / expected for count in drawn.values())
    assert found < chi2.ppf(0.999, len(drawn) - 1)


def near(space: Space, *numbers: int, radius: int = 1) -> Space:
    return restrict(space, [EVERYTHING[space][n] for n in numbers], "neighbourhood", radius)


@pytest.mark.parametrize(
    "space",
    [
        Space(SMALL.operations, SMALL.skeletons[:1]),
        DARTS_LIKE,
        near(SMALL, 400, radius=2),
        near(SMALL, 400, 401, radius=1),  # overlap
        near(DARTS_LIKE, 7, radius=1),
    ],
    ids=["dense", "fan-in", "neighbourhood", "two", "inputs"],
)
def test_drawing_is_uniform(space):
    rng = random.Random(0)
    drawn = dict.fromkeys(space, 0)
    for _ in range(30 * len(drawn)):
        drawn[space.draw(rng)] += 1
    uniform(drawn, 30 * len(drawn))


def test_a_sample_is_distinct_and_leaves_out_what_it_is_told():
    space, rng = Space(SMALL.operations, SMALL.skeletons[:1]), random.Random(0)
    first = next(iter(space))
    drawn = space.sample(20, rng, without=[first])
    assert len(drawn) == len(set(drawn)) == 8 and first not in drawn
    assert len(set(SMALL.sample(30, rng))) == 30


@settings(deadline=None)
@given(st.sampled_from(list(EVERYTHING)), st.randoms(use_true_random=False))
def test_genotypes_are_plain_data(space, rng):
    genotype = space.draw(rng)
    assert genotype in space
    assert Genotype.from_json(genotype.to_json()) == genotype


@pytest.mark.parametrize("spoil", ["skeleton", "node", "input", "order", "nothing"])
def test_bad_genotypes_are_refused(spoil):
    value = EVERYTHING[SMALL][100].to_json()
    if spoil == "skeleton":
        del value["skeleton"]["nodes"]
    elif spoil == "node":
        value["normal"].pop()
    elif spoil == "input":
        value["normal"][1][1][1] = 7
    elif spoil == "order":
        value["normal"][1].reverse()
    else:
        value = {}
    with pytest.raises(UserError, match="no genotype"):
        Genotype.from_json(value)


def test_restriction_to_operations_keeps_what_the_genotypes_use():
    genotype = next(g for g in EVERYTHING[SMALL] if len(g.operations) == 2)
    restricted = restrict(SMALL, [genotype], "operations")
    assert set(restricted.operations) == genotype.operations
    assert restricted.skeletons == (genotype.skeleton,)
    assert genotype in restricted and restricted.size < SMALL.size
    one, other = (g for g in EVERYTHING[SMALL][:: len(EVERYTHING[SMALL]) - 1])
    union = restrict(SMALL, [one, other], "operations")
    assert set(union.operations) == one.operations | other.operations
    assert set(union.skeletons) == {one.skeleton, other.skeleton}
    for space in (restricted, union):
        members = {
            g
            for g in EVERYTHING[SMALL]
            if g.operations <= set(space.operations) and g.skeleton in space.skeletons
        }
        assert space.size == len(members) and set(space) == members
    assert restrict(SMALL, []) == SMALL
    with pytest.raises(UserError, match="outside the space"):
        restrict(ONE_CELL, [genotype])


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from([SMALL, DARTS_LIKE]),
    st.lists(st.integers(0, 143), min_size=1, max_size=3, unique=True),
    st.integers(1, 3),
)
def test_a_neighbourhood_is_what_differs_in_few_edges(space, numbers, radius):
    centres = [EVERYTHING[space][n] for n in numbers]
    found = near(space, *numbers, radius=radius)
    expected = {
        genotype
        for genotype in EVERYTHING[space]
        for centre in centres
        if genotype.skeleton == centre.skeleton and edges_changed(genotype, centre) <= radius
    }
    assert set(found) == expected and found.size == len(expected)
    assert all((genotype in found) == (genotype in expected) for genotype in EVERYTHING[space])
    assert set(found.sample(len(expected), random.Random(0))) == expected


# Networks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", [op for op in DARTS_OPERATIONS if op != "none"])
def test_operations_keep_channels_and_halve_maps(name, stride):
    for side in (8, 7, 3):
        out = operations.operation(name, 4, stride)(torch.randn(2, 4, side, side))
        assert out.shape == (2, 4, -(-side // stride), -(-side // stride))


def test_parameter_counts_of_the_darts_operations():
    def count(name, stride=1, c=16):
        return sum(p.numel() for p in operations.operation(name, c, stride).parameters())

    assert count("sep_conv_3x3") == 2 * (16 * 9 + 16 * 16 + 2 * 16)
    assert count("dil_conv_5x5") == 16 * 25 + 16 * 16 + 2 * 16
    assert count("conv_7x1_1x7") == 2 * 7 * 16 * 16 + 2 * 16
    assert count("skip_connect") == 0 and count("skip_connect", 2) == 16 * 16 + 2 * 16
    assert count("max_pool_3x3") == 0


def test_a_cell_computes_its_graph():
    cell = ((("skip_connect", 0),), (("avg_pool_3x3", 0), ("skip_connect", 1)))
    module = cells.CellModule(cell, (5,), 4, reduction=False).eval()
    x = torch.randn(2, 5, 6, 6)
    state = module.preprocess[0](x)
    pooled = nn.AvgPool2d(3, 1, 1, count_include_pad=False)(state)
    expected = torch.cat([state, pooled + state], dim=1)
    torch.testing.assert_close(module(x), expected)


def test_a_node_without_operations_is_zero():
    cell = ((("none", 0),), (("none", 0), ("skip_connect", 1)))
    for reduction, side in ((False, 7), (True, 4)):
        out = cells.CellModule(cell, (3,), 4, reduction=reduction)(torch.randn(2, 3, 7, 7))
        assert out.shape == (2, 8, side, side) and not out.any()


def test_macs_of_known_layers():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 36, 5))
    assert forward_macs(model, (3, 6, 6)) == 36 * 8 * 3 * 9 + 8 * 36 * 5
    assert model.training


def published(normal: str, reduction: str) -> Genotype:
    """A genotype from "operation input, …", two to a node, as the papers' code lists them."""
    nodes = []
    for text in (normal, reduction):
        edges = [(op, int(source)) for op, source in (e.split() for e in text.split(", "))]
        nodes += [tuple(sorted(edges[i : i + 2], key=lambda e: e[1])) for i in range(0, 8, 2)]
    return Genotype.of(Skeleton.usual(20, 4, 36, feeds=2, fan_in=2), nodes)


@pytest.mark.parametrize(
    ("genotype", "millions"),
    [
        (
            published(  # DARTS_V2, Liu et al. 2019
                "sep_conv_3x3 0, sep_conv_3x3 1, sep_conv_3x3 0, sep_conv_3x3 1, "
                "sep_conv_3x3 1, skip_connect 0, skip_connect 0, dil_conv_3x3 2",
                "max_pool_3x3 0, max_pool_3x3 1, skip_connect 2, max_pool_3x3 1, "
                "max_pool_3x3 0, skip_connect 2, skip_connect 2, max_pool_3x3 1",
            ),
            3.3,
        ),
        (
            published(  # PC-DARTS on CIFAR-10, Xu et al. 2020
                "sep_conv_3x3 1, skip_connect 0, sep_conv_3x3 0, dil_conv_3x3 1, "
                "sep_conv_5x5 0, sep_conv_3x3 1, avg_pool_3x3 0, dil_conv_3x3 1",
                "sep_conv_5x5 1, max_pool_3x3 0, sep_conv_5x5 1, sep_conv_5x5 2, "
                "sep_conv_3x3 0, sep_conv_3x3 3, sep_conv_3x3 1, sep_conv_3x3 2",
            ),
            3.6,
        ),
    ],
    ids=["DARTS_V2", "PC-DARTS"],
)
def test_published_genotypes_have_their_published_size(genotype, millions):
    model = cells.build(genotype, image_shape=(3, 32, 32), target=Classes(10), seed=0).eval()
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.02)
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_an_unknown_operation_is_named():
    with pytest.raises(UserError, match="'sep_conv_9x9'; did you mean 'sep_conv_"):
        operations.operation("sep_conv_9x9", 4, 1)


def test_darts_operations_are_those_that_a_space_takes_by_default():
    assert OPERATIONS.names()[:10] == list(DARTS_OPERATIONS) == SpaceSettings().operations


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda c, stride: nn.Conv2d(c, c, 3, 1, 1),
            "of a map (1, 4, 7, 7); expected (1, 4, 4, 4)",
        ),
        (lambda c, stride: nn.Conv2d(c, 1, 3, stride, 1), "it makes (1, 1, 4, 4) of a map"),
        (lambda c, stride: nn.Conv2d(2 * c, c, 3, stride, 1), "for 4 channels and stride 2 (Runt"),
        (lambda c: nn.Identity(), "cannot be built for 4 channels and stride 2 (TypeError: "),
    ],
)
def test_an_operation_of_ones_own_that_does_not_fit_is_named(build, message, monkeypatch):
    monkeypatch.setitem(OPERATIONS._entries, "mine", Operation(build))
    with pytest.raises(UserError, match="^operation mine: .*" + re.escape(message)):
        operations.operation("mine", 4, 2)


def test_an_operation_of_ones_own_stands_in_a_cell(monkeypatch):
    def build(c, stride):
        return nn.Sequential(nn.AvgPool2d(3, stride, 1), nn.BatchNorm2d(c), nn.Dropout(0.5))

    monkeypatch.setitem(OPERATIONS._entries, "mine", Operation(build))
    torch.manual_seed(0)
    operations.operation("mine", 4, 1)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert drawn == torch.rand(1)  # looking at it draws nothing
    genotype = Genotype.of(Skeleton(3, 1, 4, (1,)), [(("mine", 0),), (("mine", 0),)])
    model = cells.build(genotype, image_shape=(1, 7, 5), target=Classes(2), seed=0)
    norm = model.cells[1].edges["0_0"][1]
    assert model.training and norm.training and not norm.num_batches_tracked
    assert model(torch.randn(2, 1, 7, 5)).shape == (2, 2)
