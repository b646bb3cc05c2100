"""TE-NAS: its two measures against other ways to compute them, and what it prunes by them."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, jacrev
from torch.utils.flop_counter import FlopCounterMode

from ftd.config.search_keys import DARTS_OPERATIONS, SearchSettings
from ftd.errors import UserError
from ftd.models.genotype import Skeleton
from ftd.runtime.seeds import seed_of
from ftd.search.ledger import Ledger
from ftd.search.space import Space, restrict
from ftd.search.supernet import Supernet
from ftd.search.te_nas import TeNas, measuring, pruning
from ftd.store import resume
from ftd.store.resume import Resume
from ftd.tasks import slices
from ftd.tasks.data import TaskData
from ftd.tasks.targets.classes import Classes

OPERATIONS = ("none", "skip_connect", "avg_pool_3x3", "sep_conv_3x3", "conv_7x1_1x7")
REAL = OPERATIONS[1:]
SPACE = Space(OPERATIONS, (Skeleton.usual(3, 2, 2),))
FAST = SearchSettings(own=TeNas(ntk_images=4, region_samples=60, repeats=1, prune=1))


@pytest.fixture(scope="module")
def data(make_slice, digits):
    task = slices.read_slice(make_slice("zero", {"other": "rest", "zero": [0]}))
    return TaskData(task, digits / "digits.safetensors", {"train": 60})  # no other part


@pytest.fixture
def draw(data):
    return measuring.drawing(SPACE.skeletons[0], SPACE, data, FAST.own)(3)


@pytest.fixture
def path():
    return pruning.Pruning(SPACE, SPACE.skeletons[0], 1).path


def timeless(result):
    rows = [{key: row[key] for key in row if key != "seconds"} for row in result.trace]
    return result.genotype, result.macs, rows, result.facts


# Neural tangent kernel --------------------------------------------------------------------------


class Tiny(nn.Module):
    """Convolutions of all kinds, and a linear layer; takes a path, as a supernet does."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 4, 5, stride=2, padding=4, dilation=2, groups=4, bias=False),
            nn.Conv2d(4, 6, 1),
            nn.Tanh(),
            nn.Conv2d(6, 4, (1, 3), stride=(1, 2), padding=(0, 1), groups=2),
            nn.Conv2d(4, 2, 1, stride=2),
            nn.Flatten(),
            nn.Linear(4, 3),
        )

    def forward(self, images, path):
        return self.layers(images)


def condition_by_jacobian(net, images, path):
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def summed(parameters):
        return functional_call(net, parameters, (images, path)).sum(1)

    rows = [value.flatten(1) for value in jacrev(summed)(parameters).values()]
    return torch.linalg.cond(torch.cat(rows, dim=1).double()).item() ** 2


def test_ntk_condition_is_that_of_the_jacobian():
    torch.manual_seed(0)
    net, images = Tiny(), torch.randn(5, 2, 7, 6)
    expected = condition_by_jacobian(net, images, None)
    assert 1 < expected < 1e5
    assert measuring.ntk_condition(net, images, None) == pytest.approx(expected, rel=1e-4)


def test_a_singular_kernel_has_no_finite_condition(draw):
    torch.manual_seed(0)
    image = torch.randn(1, 2, 7, 6)
    assert measuring.ntk_condition(Tiny(), image.repeat(3, 1, 1, 1), None) == math.inf
    nothing = {kind: [(("none", 0),)] * 2 for kind in ("normal", "reduction")}
    assert measuring.ntk_condition(draw.net, draw.images, nothing) == math.inf


def test_parameters_of_other_layers_are_refused():
    with pytest.raises(ValueError, match="Conv2d and Linear"):
        measuring.ntk_condition(nn.BatchNorm2d(2), torch.randn(3, 2, 4, 4), None)


@pytest.mark.parametrize("edge", [("normal", 1, 1), ("reduction", 0, 0)])
@pytest.mark.parametrize("pixels", [measuring.PIXELS, 2 * 4 * 64, 1])
def test_conditions_are_those_of_the_supernet_without_each_operation(
    draw, path, edge, pixels, monkeypatch
):
    monkeypatch.setattr(measuring, "PIXELS", pixels)
    (found,), _ = measuring.measure([draw], path, edge, Ledger())
    expected = [
        condition_by_jacobian(draw.net, draw.images, measuring.without(path, edge, name))
        for name in REAL
    ]
    assert len(set(expected)) == len(REAL)
    assert found == pytest.approx(expected, rel=1e-3)
    (whole,), _ = measuring.measure([draw], path, None, Ledger())
    expected = condition_by_jacobian(draw.net, draw.images, path)
    assert whole == pytest.approx([expected], rel=1e-3)


def test_batch_norms_in_training_mode_would_make_the_kernel_singular(data, path):
    """Why ``FixedStatistics`` is: the outputs' sum over the images would have no gradient."""
    net = Supernet(SPACE.skeletons[0], OPERATIONS, image_shape=(1, 8, 8), target=Classes(2), seed=0)
    images, _ = next(data.batches("train", 4))
    logits = net(images, path)
    assert logits.std() > 0.1
    torch.testing.assert_close(logits.mean(0), net.head.linear.bias.detach(), atol=1e-5, rtol=0)


def test_fixed_statistics_are_those_of_the_batch_norm():
    torch.manual_seed(0)
    x = 3 + 2 * torch.randn(6, 2, 4, 5)
    norm = nn.BatchNorm2d(2, affine=False)
    expected = torch.cat([norm(x[:3]), norm(x[3:])])
    torch.testing.assert_close(measuring.FixedStatistics(3, norm.eps)(x), expected)


# Linear regions ---------------------------------------------------------------------------------


class Hidden(nn.Module):
    def __init__(self, weight, bias, relu):
        super().__init__()
        self.weight, self.bias, self.relu = weight, bias, relu

    def forward(self, images, path):
        return self.relu(images.flatten(1) @ self.weight.T + self.bias)


@pytest.mark.parametrize("relu", [F.relu, torch.relu, torch.Tensor.relu_, nn.ReLU(inplace=True)])
def test_regions_of_a_line_are_the_intervals_between_its_kinks(relu):
    net = Hidden(torch.ones(3, 1), -torch.tensor([0.0, 1.0, 2.0]), relu)
    at = torch.tensor([-3.0, -0.5, 0.5, 0.7, 1.5, 2.5, 9.0]).view(-1, 1, 1, 1)
    assert measuring.linear_regions(net, at, None) == 4
    assert measuring.linear_regions(net, at[:4], None) == 2


def test_regions_of_a_plane_by_brute_force():
    torch.manual_seed(0)
    weight, bias, images = torch.randn(9, 2), torch.randn(9), torch.randn(500, 2, 1, 1)
    patterns = {
        tuple(sum(w * x for w, x in zip(row, image, strict=True)) + b > 0 for row, b in lines)
        for image in images.flatten(1).tolist()
        for lines in [list(zip(weight.tolist(), bias.tolist(), strict=True))]
    }
    assert 20 < len(patterns) <= 1 + 9 + 9 * 8 // 2  # the most that nine lines can make
    assert measuring.linear_regions(Hidden(weight, bias, F.relu), images, None) == len(patterns)


def test_all_relus_of_a_supernet_are_seen(draw, path):
    with measuring._Activations() as seen:
        draw.thin(draw.points, path)
    # Cells of 1 and 2 channels, on maps of 9 and 4 pixels.
    units = 3 * 9 + 2 * 9  # before the cells
    units += 3 * (2 + 1) * 9  # three edges: sep_conv has two ReLUs, conv_7x1 one
    before, after = 2 * 9, 2 * 4
    units += 2 * (3 * before + after) + 3 * after  # two that halve: so has skip_connect one
    assert sum(value.shape[1] for value in seen.outputs) == units


def test_anchors_are_different_windows_of_the_images():
    images = torch.arange(40 * 3 * 5 * 6.0).view(40, 3, 5, 6)
    images[::2] = images[0]  # half of them equal
    anchors = measuring.anchors_of(images, torch.Generator().manual_seed(0))
    assert 20 < len(anchors) <= measuring.ANCHORS and anchors.shape[1:] == (1, 3, 3)
    offsets = torch.arange(3)[:, None] * 6 + torch.arange(3)
    corners = anchors[:, 0, 0, 0]
    assert torch.equal(anchors[:, 0], corners[:, None, None] + offsets)
    assert len(corners.unique()) == len(anchors)
    assert set((corners // 30 % 3).tolist()) == {0, 1, 2}
    constant = measuring.anchors_of(torch.ones(9, 1, 4, 3), torch.Generator())
    assert torch.equal(constant, torch.ones(1, 1, 3, 3))


def test_points_lie_evenly_on_the_closed_line():
    anchors = torch.tensor([0.0, 3.0, -3.0]).view(3, 1, 1, 1)
    points = measuring.points_between(anchors, 9).flatten()
    torch.testing.assert_close(points, torch.tensor([0.0, 1, 2, 3, 1, -1, -3, -2, -1]))
    assert torch.equal(measuring.points_between(anchors, 3), anchors)
    assert len(measuring.points_between(anchors[:1], 5)) == 5


def test_an_unrolled_convolution_is_the_convolution():
    torch.manual_seed(0)
    for convolution in (nn.Conv2d(2, 4, 7, 2, 3, bias=False), nn.Conv2d(2, 2, 3, 1, 2, 2, 2)):
        convolution.bias = None
        x = torch.randn(5, 2, 3, 3)
        unrolled = measuring.Unrolled(convolution)
        for _ in range(2):
            torch.testing.assert_close(unrolled(x), convolution(x))


def test_regions_depend_on_what_is_pruned_and_do_not_saturate(data):
    settings = TeNas(ntk_images=2, region_samples=900)
    draw = measuring.drawing(SPACE.skeletons[0], SPACE, data, settings)(0)
    path = {kind: [(("none", 0),)] * 2 for kind in ("normal", "reduction")}
    none = measuring.linear_regions(draw.thin, draw.points, path)
    whole = pruning.Pruning(SPACE, SPACE.skeletons[0], 1).path
    most = measuring.linear_regions(draw.thin, draw.points, whole)
    assert none < most < 0.95 * len(draw.points) and len(draw.points) == 900
    edges = [("normal", 0, 0), ("reduction", 1, 1)]
    _, found = zip(*(measuring.measure([draw], whole, e, Ledger()) for e in edges), strict=True)
    assert len({count for (row,) in found for count in row}) > 4


def test_changes_are_relative_rounded_and_averaged():
    inf = math.inf
    whole, parts = [10.0, 200.0], [[5.0, 10.004, 30.0, inf], [100.0, 200.0, 200.0, 200.0]]
    assert measuring.changes(whole, parts) == [0.5, 0.0, -1.0, -inf]
    assert measuring.changes([3.0], [[2.0]]) == [0.333]
    assert measuring.changes([inf, inf], [[inf, 7.0], [inf, inf]]) == [0.0, 0.5]


# Pruning ----------------------------------------------------------------------------------------


def stub(monkeypatch, kappa, regions, macs=0):
    """Measure by functions (edge, operation) → value; returns the calls' edges."""
    edges = []

    def measure(draws, path, edge, ledger):
        edges.append(edge)
        ledger.spend(macs)
        names = [None] if edge is None else measuring.names_on(path, edge)
        return [[[value(edge, name) for name in names]] for value in (kappa, regions)]

    monkeypatch.setattr(pruning, "measure", measure)
    return edges


def chosen(genotype):
    return {op for node in genotype.nodes for op, _ in node}


def test_what_goes_leaves_a_small_condition_and_many_regions(data, monkeypatch):
    last = OPERATIONS.index("sep_conv_3x3")

    def kappa(edge, name):  # the worse without it, the nearer it is to sep_conv
        return 9.0 - abs(OPERATIONS.index(name) - last) if name else 10.0

    def regions(edge, name):
        return 10 - kappa(edge, name) if name else 5

    stub(monkeypatch, kappa, lambda edge, name: 7)
    assert chosen(pruning.search(SPACE, data, FAST, 0).genotype) == {"sep_conv_3x3"}
    stub(monkeypatch, lambda edge, name: 7, regions)
    assert chosen(pruning.search(SPACE, data, FAST, 0).genotype) == {"sep_conv_3x3"}


def test_importance_is_the_sum_of_ranks_in_the_whole_network():
    space = Space(("none", "skip_connect", "sep_conv_3x3", "avg_pool_3x3"), (THREE,))
    pruned = pruning.Pruning(space, THREE, 1)
    edges = [("normal", 0, 0), ("reduction", 0, 0)]
    assert pruned.edges == pruned.contested() == edges  # and none is none of their operations
    # Ranks by Δκ, the largest first: .9 → 0, .5 → 1, .2 → 2, -inf → 3; ΔR: -.9, .1, .2, .3.
    first = [0.5, 0.9, 0.2], [-0.9, 0.3, 0.1]
    pruned.prune(edges, [first, ([-math.inf, 0.5, 0.9], [0.3, -0.9, 0.2])])
    assert pruned.importance[edges[0]] == [[3, 0], [3, 2]]  # of 1, 3, 3
    assert pruned.importance[edges[1]] == [[6, 3], [2, 0]]  # of 6, 1, 2
    assert pruned.operations[edges[0]] == ["sep_conv_3x3", "avg_pool_3x3"]
    assert pruned.operations[edges[1]] == ["skip_connect", "avg_pool_3x3"]
    assert (pruned.left, pruned.rounds) == (4, 1)
    assert pruned.genotype().nodes == ((("avg_pool_3x3", 0),), (("skip_connect", 0),))
    # Equal sums: the smaller κ goes, though it comes later.
    pruned.prune(edges, [([0.1, 0.2], [0.5, 0.6]), ([0.3, 0.3], [0.4, 0.4])])
    assert pruned.operations[edges[0]] == ["sep_conv_3x3"]
    assert pruned.operations[edges[1]] == ["avg_pool_3x3"]
    assert pruned.contested() == []


THREE = Skeleton(3, 1, 2, (1,))


@pytest.mark.parametrize("at_once, rounds", [(1, [9, 8, 7, 6, 5, 4, 3, 2, 1]), (3, [9, 6, 3, 1])])
def test_several_operations_go_in_a_round(at_once, rounds):
    pruned = pruning.Pruning(Space(tuple(DARTS_OPERATIONS), (THREE,)), THREE, at_once)
    left = [len(pruned.operations[pruned.edges[0]])]
    while edges := pruned.contested():
        values = [float(number) for number in range(left[-1])]
        pruned.prune(edges, [(values, values)] * len(edges))
        left.append(len(pruned.operations[pruned.edges[0]]))
    assert left == rounds


@pytest.mark.parametrize("feeds", [1, 2])
def test_a_node_loses_its_least_important_edges(data, monkeypatch, feeds):
    skeleton = Skeleton.usual(3, 3, 2, feeds=feeds, fan_in=2)
    space = Space(OPERATIONS[:3], (skeleton,))
    stub(monkeypatch, lambda edge, name: 10 + edge[2] % 3 if edge else 9, lambda edge, name: 7)
    result = pruning.search(space, data, FAST, 0)
    assert result.genotype in space
    sources = [tuple(source for _, source in node) for node in result.genotype.normal]
    # Of inputs 0, 1, 2, 3 with importance 0, 1, 2, 0; of equal ones the first goes.
    assert sources == {1: [(0,), (0, 1), (1, 2)], 2: [(0, 1), (1, 2), (1, 2)]}[feeds]
    # One round of operations, and one for each node of both kinds that has more than two inputs.
    assert result.facts == {"rounds": 1 + 2 * feeds}


def test_two_edges_of_a_node_are_kept_where_none_can_take_the_others(data, monkeypatch):
    skeleton = Skeleton.usual(3, 3, 2)
    stub(monkeypatch, lambda edge, name: 10 + edge[2] if edge else 9, lambda edge, name: 7)
    genotype = pruning.search(Space(OPERATIONS[:2], (skeleton,)), data, FAST, 0).genotype
    skip = "skip_connect"
    assert genotype.normal[2] == (("none", 0), (skip, 1), (skip, 2))
    genotype = pruning.search(Space(OPERATIONS[1:2], (skeleton,)), data, FAST, 0).genotype
    assert genotype.normal[2] == ((skip, 0), (skip, 1), (skip, 2))


def test_spaces_of_all_kinds_are_searched(data):
    for skeleton in (
        Skeleton.usual(3, 2, 2, feeds=2, fan_in=2),
        Skeleton.usual(4, 2, 2, feeds=2),
        Skeleton(2, 1, 2, ()),
    ):
        space = Space(("none", "max_pool_3x3", "dil_conv_3x3"), (skeleton,))
        result = pruning.search(space, data, FAST, 0)
        assert result.genotype in space and result.facts["rounds"] >= 1
        assert all(row["kappa"] > 1 and row["regions"] > 1 for row in result.trace)


def test_a_space_of_one_operation_needs_no_round(data):
    space = Space(("skip_connect",), SPACE.skeletons)
    result = pruning.search(space, data, FAST, 0)
    assert result.genotype in space
    assert (result.macs, result.trace, result.facts) == (0, [], {"rounds": 0})


def test_a_neighbourhood_is_refused(data):
    genotype = next(iter(SPACE))
    with pytest.raises(UserError, match="not a neighbourhood"):
        pruning.search(restrict(SPACE, [genotype], "neighbourhood"), data, FAST, 0)


def test_trace_and_equal_seeds(data):
    first = pruning.search(SPACE, data, FAST, 0)
    assert timeless(pruning.search(SPACE, data, FAST, 0)) == timeless(first)
    other = pruning.search(SPACE, data, FAST, 1)
    assert [row["kappa"] for row in other.trace] != [row["kappa"] for row in first.trace]
    assert first.genotype in SPACE and first.facts == {"rounds": 3}
    edges = 2 * 3
    assert [row["left"] for row in first.trace] == [3 * edges, 2 * edges, edges]
    assert {row["phase"] for row in first.trace} == {"prune"}
    assert first.trace[-1]["macs"] == first.macs
    draw = measuring.drawing(SPACE.skeletons[0], SPACE, data, FAST.own)(seed_of(0, 0, 0))
    path = pruning.Pruning(SPACE, SPACE.skeletons[0], 1).path
    kappa = measuring.ntk_condition(draw.net, draw.images, path)
    assert first.trace[0]["kappa"] == pytest.approx(kappa)
    assert first.trace[0]["regions"] == measuring.linear_regions(draw.thin, draw.points, path)


def test_values_are_by_draw(data, path):
    make = measuring.drawing(SPACE.skeletons[0], SPACE, data, FAST.own)
    draws = [make(seed) for seed in (1, 2)]
    edge = ("normal", 0, 0)
    both = measuring.measure(draws, path, edge, Ledger())
    single = [measuring.measure([draw], path, edge, Ledger()) for draw in draws]
    assert single[0] != single[1]
    assert both == tuple([*one, *two] for one, two in zip(*single, strict=True))


def test_macs_are_what_is_evaluated(draw, path):
    for edge in (("normal", 1, 0), None):
        ledger = Ledger()
        with FlopCounterMode(display=False) as counter:
            measuring.measure([draw], path, edge, ledger)
        assert ledger.macs == pytest.approx(counter.get_total_flops() / 2, rel=0.02)
    fewer = measuring.without(path, ("normal", 1, 0), "conv_7x1_1x7")
    less = Ledger()
    measuring.measure([draw], fewer, None, less)
    assert less.macs < ledger.macs


# Interruptions ----------------------------------------------------------------------------------


def test_a_killed_search_resumes(data, tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "KEEP_EVERY", 0)
    whole = pruning.search(SPACE, data, FAST, 0)
    measure, calls = measuring.measure, []

    def dying(*arguments):
        calls.append(1)
        if len(calls) == 10:  # the supernet and six edges are a round
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(pruning, "measure", dying)
    state = tmp_path / "te_nas.resume"
    with pytest.raises(KeyboardInterrupt):
        pruning.search(SPACE, data, FAST, 0, ledger=Ledger(resume=Resume(state, {})))
    again = pruning.search(SPACE, data, FAST, 0, ledger=Ledger(resume=Resume(state, {})))
    assert len(calls) == 10 + 2 * 7  # the first round is not done again
    assert timeless(again) == timeless(whole)


def test_an_infinite_condition_is_kept(data, tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "KEEP_EVERY", 0)
    stub(monkeypatch, lambda edge, name: math.inf, lambda edge, name: 7)
    ledger = Ledger(resume=Resume(tmp_path / "te_nas.resume", {}))
    result = pruning.search(SPACE, data, FAST, 0, ledger=ledger)
    assert [row["kappa"] for row in result.trace] == [None] * 3
    assert result.genotype in SPACE


def test_the_cap_ends_a_search_with_what_is_known(data, monkeypatch):
    def kappa(edge, name):
        return {"skip_connect": 1.0, "conv_7x1_1x7": 9.0}.get(name, 2.0)

    def capped(macs):
        edges = stub(monkeypatch, kappa, lambda edge, name: 7, macs=10)
        result = pruning.search(SPACE, data, FAST, 0, ledger=Ledger(max_macs=macs))
        return result, len(edges)

    result, measured = capped(1)  # before a whole round: the first that is not none
    assert measured == 1 and result.macs == 10 and result.facts == {"rounds": 0}
    assert chosen(result.genotype) == {"skip_connect"}
    result, measured = capped(85)  # in the second round: by the first
    assert measured == 7 + 2 and result.facts == {"rounds": 1}
    assert chosen(result.genotype) == {"conv_7x1_1x7"}
