"""Searchers: what they find, count and resume; each on its own; the stages search and train."""

import random
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import experiment_of
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import ftd
from ftd import store
from ftd.config.search_keys import DARTS_OPERATIONS, SearchSettings, SpaceSettings
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.models import cells
from ftd.models.genotype import Skeleton, edges_changed
from ftd.models.macs import forward_macs
from ftd.parts import OPERATIONS, SEARCHERS, Operation, resolve
from ftd.runtime.seeds import seed_of
from ftd.search import candidates, supernet, trials
from ftd.search.darts import bilevel
from ftd.search.enas import Enas, controller
from ftd.search.fuse import generations
from ftd.search.ledger import Learned, Ledger, SearchResult, Start, trace_table
from ftd.search.sequential import proposing
from ftd.search.space import Space
from ftd.stages import search as search_stage
from ftd.stages import task as task_stage
from ftd.stages import training as training_stage
from ftd.stages.checking import Library
from ftd.store import resume
from ftd.store.resume import Resume
from ftd.tasks.data import TaskData
from ftd.tasks.slices import read_slice
from ftd.tasks.targets.classes import Classes

FAST = SearchSettings(space=SpaceSettings(nodes=[1], channels=[4]), samples=60)
OWN = {
    "fuse": {"alternations": 2, "alpha_epochs": 3, "max_generations": 2},
    "fuse_paper": {"alternations": 1, "max_generations": 1, "weight_epochs": 1, "alpha_epochs": 2},
    "random": {"candidates": 4},
    "evolution": {"candidates": 5, "epochs": 1, "population": 3, "tournament": 2},
    "sequential": {"candidates": 4, "epochs": 1},
    "darts": {"epochs": 3},
    "pc_darts": {"epochs": 3, "warm_up": 1},
    "enas": {"epochs": 3, "controller_steps": 2, "controller_samples": 2, "candidates": 3},
    "te_nas": {"ntk_images": 3, "region_samples": 30, "repeats": 1},
}
DISTINCT = ["fuse-full", "random", "evolution", "surrogate", "darts-1st", "darts-2nd"]
DISTINCT += ["pc-darts-1st", "pc-darts-2nd", "enas", "te-nas"]


def settings_of(method, common=FAST, own=OWN, **changes):
    kind = SEARCHERS.get(method)
    return common.model_copy(update={"own": kind.settings(**own[kind.section] | changes)})


@pytest.fixture
def task(make_slice):
    return make_slice("zero", {"other": "rest", "zero": [0]})


@pytest.fixture
def data(task, digits):
    parts = {"train": 60, "val": 40}  # a search that asks for another part fails
    return TaskData(read_slice(task), digits / "digits.safetensors", parts)


def run(method, data, seed=0, space=None, settings=None, **more):
    settings = settings or settings_of(method)
    space = space or Space.full(settings.space)
    kind = SEARCHERS.get(method)
    return resolve(kind.search)(space, data, settings, seed, **kind.options, **more)


def timeless(result):
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in result.trace]
    return result.genotype, result.macs, rows


# All methods ------------------------------------------------------------------------------------


def test_every_method_has_its_searcher():
    assert set(DISTINCT) < set(SEARCHERS.names())
    for name in SEARCHERS.names():
        kind = SEARCHERS.get(name)
        assert callable(resolve(kind.search))
        from_learned = name.startswith("ftd-nas") or name in ("fuse-nearest", "fuse-paper")
        assert (kind.source is not None) is from_learned
        assert (kind.takes == "candidates") is (kind.section == "sequential")
        assert kind.section in (*OWN, "zero_cost")  # that one has tests of its own
        assert set(kind.unused) <= set(SearchSettings.model_fields)


def test_registering_the_methods_imports_nothing_heavy():
    code = "import sys, ftd.models, ftd.search; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("order", ["1st", "2nd"])
def test_darts_does_not_depend_on_what_only_pc_darts_has(order):
    plain, partial = SEARCHERS.get(f"darts-{order}"), SEARCHERS.get(f"pc-darts-{order}")
    assert plain.section != partial.section
    own = set(partial.settings.model_fields) - set(plain.settings.model_fields)
    assert own == {"warm_up", "partial"}
    assert plain.settings(epochs=1).epochs == 1  # no warm-up that it would have to outlast
    with pytest.raises(ValueError, match="warm_up 15 leaves no epoch of 2 for alpha"):
        partial.settings(epochs=2)


class Blind(nn.Module):
    """An operation that lets nothing through."""

    def forward(self, x):
        return 0 * x


class Mirror(nn.Module):
    """The planted one: multiplies what lies left and right."""

    def forward(self, x):
        return x * x.flip(3)


class ToyData:
    """Images whose label is whether both halves are equally bright.

    Nothing but their product tells: means over the image see each half alone.
    """

    def __init__(self):
        self.device = torch.device("cpu")
        self.task, self.target = SimpleNamespace(image_shape=(1, 4, 8)), Classes(2)
        generator = torch.Generator().manual_seed(0)
        self.parts = {}
        for part, count in (("train", 96), ("val", 64)):
            left, right = torch.arange(count) % 2, torch.arange(count) // 2 % 2
            images = 0.1 * torch.randn(count, 1, 4, 8, generator=generator)
            images[..., :3] += 2.0 * left[:, None, None, None] - 1
            images[..., 5:] += 2.0 * right[:, None, None, None] - 1
            self.parts[part] = images, (left == right).long()

    def count(self, part):
        return len(self.parts[part][1])

    def batches(self, part, size, generator=None):
        count = self.count(part)
        order = torch.randperm(count, generator=generator) if generator else torch.arange(count)
        for rows in order.split(size):
            yield tuple(values[rows] for values in self.parts[part])


TOY = Space(DARTS_OPERATIONS, (Skeleton(1, 1, 4, ()),))
LONGER = SearchSettings(batch_size=16, learning_rate=0.02)
LONGER_OWN = {
    "fuse": {"max_generations": 15, "patience": 15, "alternations": 1, "weight_epochs": 2},
    "random": {"candidates": 10},
    "evolution": {"candidates": 16, "epochs": 6},
    "sequential": {"candidates": 10, "epochs": 6},
    "darts": {"epochs": 10, "batch_size": 16, "alpha_learning_rate": 0.1},
    "pc_darts": {
        **{"epochs": 10, "warm_up": 2, "batch_size": 16, "partial": 2},
        **{"learning_rate": 0.025, "alpha_learning_rate": 0.1},
    },
    "enas": {
        **{"epochs": 8, "batch_size": 16, "controller_steps": 20, "controller_samples": 1},
        "controller_learning_rate": 0.01,
    },
}


@pytest.mark.parametrize("method", [name for name in DISTINCT if name != "te-nas"])
def test_a_planted_best_operation_is_found(method, monkeypatch):
    planted = "dil_conv_3x3"  # one of ten operations on the only edge
    toy = lambda name, c, stride: Mirror() if name == planted else Blind()  # noqa: E731
    monkeypatch.setattr(cells, "operation", toy)
    monkeypatch.setattr(supernet, "operation", toy)
    data = ToyData()
    rules = settings_of(method, LONGER, LONGER_OWN)
    found = [
        run(method, data, seed, TOY, rules).genotype.operations == {planted} for seed in range(5)
    ]
    assert sum(found) >= 4


def test_equal_seeds_are_equal_searches(data):
    for method in DISTINCT:
        assert timeless(run(method, data)) == timeless(run(method, data)), method


@pytest.mark.parametrize("killed_at", [1, 2])
@pytest.mark.parametrize("method", DISTINCT)
def test_a_killed_search_goes_on(method, killed_at, data, tmp_path, monkeypatch):
    """FUSE's first state is amid a generation, its second between two."""
    whole = run(method, data)
    monkeypatch.setattr(resume, "KEEP_EVERY", 0.0)
    keep, kept = Resume.keep, []
    spend, spent = Ledger.spend, []

    def dying(self, *state):
        keep(self, *state)
        kept.append(1)
        if len(kept) == killed_at:
            raise KeyboardInterrupt

    def counted(self, macs):
        spent.append(macs)
        spend(self, macs)

    monkeypatch.setattr(Resume, "keep", dying)
    monkeypatch.setattr(Ledger, "spend", counted)
    state = Resume(tmp_path / "state", {"of": "this"})
    with pytest.raises(KeyboardInterrupt):
        run(method, data, ledger=Ledger(resume=state))
    before = sum(spent)
    again = run(method, data, ledger=Ledger(resume=state))
    assert timeless(again) == timeless(whole)
    assert before > 0 and sum(spent) == whole.macs  # nothing was evaluated twice
    other = Resume(tmp_path / "state", {"of": "another"})
    assert timeless(run(method, data, seed=1, ledger=Ledger(resume=other))) != timeless(whole)


class Counter(TorchDispatchMode):
    """Floating-point operations of all that runs, backward passes included."""

    flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket not in flop_registry:  # inference mode leaves conv2d whole
            with self:
                out = func.decompose(*args, **(kwargs or {}))
            if out is not NotImplemented:
                return out
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        self.flops += count(*args, **(kwargs or {}), out_val=out) if count else 0
        return out


@pytest.mark.parametrize("method", DISTINCT)
def test_multiply_accumulates_are_those_evaluated(method, data):
    # No depthwise convolutions: PyTorch's counter takes their backward pass for a full one's.
    operations = ("avg_pool_3x3", "conv_7x1_1x7")
    space = Space(operations, (Skeleton.usual(3, 2, 8),))
    with Counter() as counter:
        result = run(method, data, space=space)
    measured = counter.flops / 2
    # The first convolution has no gradient of its input; ENAS' controller is not counted.
    assert 0.95 * measured < result.macs < 1.1 * measured
    assert result.trace[-1]["macs"] == result.macs
    assert [row["step"] for row in result.trace] == list(range(len(result.trace)))


@pytest.mark.parametrize("method", DISTINCT)
def test_the_cap_ends_a_search_resumed_or_not(method, data, tmp_path, monkeypatch):
    whole = run(method, data)
    cap = whole.macs // 3
    monkeypatch.setattr(resume, "KEEP_EVERY", 0.0)
    state = Resume(tmp_path / "state", {})
    short = run(method, data, ledger=Ledger(max_macs=cap, resume=state))
    assert cap <= short.macs < whole.macs
    assert short.genotype in Space.full(FAST.space)
    again = run(method, data, ledger=Ledger(max_macs=cap, resume=state))  # killed at its end
    assert timeless(again) == timeless(short)


class Looking(Ledger):
    """Notes what was spent when a search asked whether its cap is reached."""

    def __init__(self, *arguments, **keys):
        super().__init__(*arguments, **keys)
        self.looks = [0]

    @property
    def exhausted(self):
        self.looks.append(self.macs)
        return super().exhausted


@pytest.mark.parametrize("method", sorted(SEARCHERS.names()))
def test_every_method_ends_at_its_first_look_after_its_cap(method, data):
    common = FAST.model_copy(update={"space": SpaceSettings(nodes=[1], channels=[4], fan_in=1)})
    zero_cost = {"candidates": 6, "images": 8}
    settings = settings_of(method, common, OWN | {"zero_cost": zero_cost})
    whole = Looking()
    spent = run(method, data, settings=settings, ledger=whole).macs
    cap = max(1, spent // 3)
    capped = Looking(max_macs=cap)
    short = run(method, data, settings=settings, ledger=capped)
    assert len(whole.looks) > 3 or method == "te-nas"
    first = next((macs for macs in capped.looks if macs >= cap), short.macs)
    # After it, ENAS scores what its controller samples, on all of val.
    tail = spent - whole.looks[-1] if method == "enas" else 0
    assert short.macs <= first + tail
    gaps = [after - before for before, after in zip(whole.looks, whole.looks[1:], strict=False)]
    assert first < cap + max(gaps, default=0) + 1


@pytest.mark.parametrize("method", ["fuse-full", "random", "darts-1st", "darts-2nd"])
def test_a_search_that_diverges_says_so(method, data):
    own = {} if method == "random" else {"learning_rate": 1e36}
    common = {"learning_rate": 1e36, "batch_size": 10}
    settings = settings_of(method, FAST.model_copy(update=common), **own)
    with pytest.raises(UserError, match=r"^mine: .*lower its learning_rate"):
        run(method, data, settings=settings, ledger=Ledger("mine"))


@pytest.mark.parametrize("method", DISTINCT)
def test_cells_of_two_feeds_and_chosen_inputs(method, data):
    skeleton = Skeleton(3, 2, 4, (1,), feeds=2, fan_in=1)
    space = Space(("skip_connect", "sep_conv_3x3"), (skeleton,))
    assert run(method, data, space=space).genotype in space


def test_a_trace_keeps_what_only_some_rows_have(data):
    rows = run("enas", data).trace
    table = trace_table(rows)
    assert table["candidate"].to_pylist()[-1] == rows[-1]["candidate"] is not None
    assert table["epoch"].to_pylist()[:3] == [0, 1, 2]
    empty = trace_table([])
    assert empty.num_rows == 0 and empty.column_names[:4] == ["step", "phase", "loss", "score"]


def test_second_order_is_taken_in_single_precision(data, monkeypatch):
    """Half precision would round the finite difference away."""
    seen, inside = [], []
    loss, original = Classes.loss, bilevel.unrolled_gradient

    def watched(self, outputs, targets):
        seen.append(outputs.dtype)
        return loss(self, outputs, targets)

    def spied(*arguments):
        before = len(seen)
        found = original(*arguments)
        inside.extend(seen[before:])
        return found

    monkeypatch.setattr(Classes, "loss", watched)
    monkeypatch.setattr(bilevel, "unrolled_gradient", spied)
    monkeypatch.setattr(bilevel, "mixed", lambda device: torch.autocast("cpu", torch.bfloat16))
    run("darts-2nd", data)
    assert len(inside) > 0 and set(inside) == {torch.float32}
    assert set(seen) == {torch.float32, torch.bfloat16}  # the weights' own steps are mixed


# FUSE -------------------------------------------------------------------------------------------


def of_largest_weight(row):
    """The winner of a generation's last row."""
    return max(range(3), key=lambda c: row["alpha"][c])


def test_fuse_trace_and_accounting(data):
    once = settings_of("fuse-full", max_generations=1, alternations=1)
    result = run("fuse-full", data, settings=once)
    assert [row["phase"] for row in result.trace] == ["weights", *["alpha"] * 3, "winner"]
    assert all(sum(row["alpha"]) == pytest.approx(1) for row in result.trace)
    assert result.trace[0]["alpha"] == pytest.approx([1 / 3] * 3)
    assert len(set(result.trace[0]["candidates"])) == 3
    candidates = Space.full(FAST.space).sample(3, random.Random(seed_of("candidates", 0, 0)))
    forward = sum(
        forward_macs(cells.build(g, image_shape=(1, 8, 8), target=Classes(2), seed=0), (1, 8, 8))
        for g in candidates
    )
    assert result.macs == forward * (60 * 3 + 40)
    last = result.trace[-1]
    winner = of_largest_weight(last)
    assert result.genotype.name == last["candidates"][winner]
    assert last["score"] == last["scores"][winner]
    assert {one.genotype: one.score for one in result.candidates} == dict(
        zip(candidates, last["scores"], strict=True)
    )


def test_the_incumbent_stays_and_others_are_new(data):
    patient = settings_of("fuse-full", patience=9, max_generations=3)
    result = run("fuse-full", data, settings=patient)
    for before, after in ((0, 1), (1, 2)):
        last = [row for row in result.trace if row["generation"] == before][-1]
        winner = last["candidates"][of_largest_weight(last)]
        first = next(row for row in result.trace if row["generation"] == after)
        assert first["candidates"][0] == winner and len(set(first["candidates"])) == 3


def test_patience_ends_the_search(data):
    result = run(
        "fuse-full", data, settings=settings_of("fuse-full", patience=1, max_generations=50)
    )
    assert result.facts["survived"] == 1 and result.facts["generations"] < 50


def test_a_space_no_larger_than_the_candidates_needs_one_generation(data):
    one = Space(("skip_connect",), (Skeleton.usual(3, 1, 2),))
    result = run("fuse-full", data, space=one, settings=settings_of("fuse-full", max_generations=5))
    assert result.facts["generations"] == 1 and [result.genotype] == list(one)


def test_alpha_learns_which_candidate_is_right():
    targets = torch.arange(90) % 3
    right = 5.0 * nn.functional.one_hot(targets, 3)
    logits = torch.stack([torch.randn(90, 3), right, torch.randn(90, 3)])
    alpha = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([alpha], 0.1)
    generator = torch.Generator().manual_seed(0)
    losses = [
        generations._alpha_epoch(alpha, logits, targets, Classes(3), 64, generator, optimizer)
        for _ in range(20)
    ]
    assert losses[-1] < losses[0] and alpha.softmax(0)[1] > 0.7
    expected = sum(w * c for w, c in zip(alpha.softmax(0), logits, strict=True))
    torch.testing.assert_close(generations.fused(alpha, logits), expected)


def test_alpha_does_not_judge_by_running_statistics_that_lag_behind(data):
    """Logits are the batches' own: running statistics of whatever value change nothing."""
    genotype = Space.full(FAST.space).draw(random.Random(3))
    models = generations._models([genotype], data, 0)
    generator = torch.Generator().manual_seed(0)
    expected, targets = generations._val_outputs(models, data, generator)
    images, labels = next(data.batches("val", 40, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(expected[0], models[0].train()(images))
    assert torch.equal(targets, labels)
    for part in models.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.fill_(7.0)
            part.running_var.fill_(0.01)
    again, _ = generations._val_outputs(models, data, generator.manual_seed(0))
    assert torch.equal(expected, again)


class Dense:
    """Marks every pixel of the image: one logit a pixel."""

    outputs = 1

    def head(self, features, size, *, pooled=True):
        self.told = features, size
        return nn.Sequential(nn.Conv2d(features[0], 1, 1), nn.Upsample(size))

    def loss(self, outputs, targets):
        return nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], targets)

    def scores(self, outputs, targets):
        return ((outputs[:, 0] > 0) == (targets > 0.5)).float().mean((1, 2))


class DenseData(ToyData):
    """The toy images, to be marked where they are bright."""

    def __init__(self):
        super().__init__()
        self.target = Dense()
        self.parts = {
            part: (images, (images[:, 0] > 0).float()) for part, (images, _) in self.parts.items()
        }


@pytest.mark.parametrize("method", DISTINCT)
def test_outputs_of_any_shape_are_searched(method):
    data = DenseData()
    space = Space(("skip_connect", "sep_conv_3x3", "none"), (Skeleton(3, 1, 4, (1,)),))
    result = run(method, data, space=space)
    assert result.genotype in space
    cells.build(result.genotype, image_shape=(1, 5, 7), target=data.target, seed=0)
    assert data.target.told == ((8, 3, 4), (5, 7))
    assert all(0 <= row["score"] <= 1 for row in result.trace if row["score"] is not None)


def test_te_nas_says_for_which_layers_it_knows_no_kernel(monkeypatch):
    normed = Operation(lambda c, stride: nn.Sequential(nn.AvgPool2d(stride), nn.GroupNorm(1, c)))
    monkeypatch.setitem(OPERATIONS._entries, "normed", normed)
    space = Space(("normed", "skip_connect"), (Skeleton(3, 1, 4, ()),))
    with pytest.raises(
        UserError, match=r"Conv2d and Linear only, not for cells\.0.*another method"
    ):
        run("te-nas", ToyData(), space=space)


# Supernet, DARTS, ENAS --------------------------------------------------------------------------


def net_of(space, partial=1):
    skeleton = supernet.skeleton_of(space)
    return supernet.Supernet(
        skeleton,
        space.operations,
        image_shape=(1, 8, 8),
        target=Classes(2),
        seed=0,
        partial=partial,
    )


SPACES = [
    Space(("none", "skip_connect", "sep_conv_3x3"), (Skeleton.usual(3, 2, 4),)),
    Space(("max_pool_3x3", "none"), (Skeleton(2, 2, 4, (0,), feeds=2, fan_in=1),)),
]


@pytest.mark.parametrize("space", SPACES, ids=["dense", "darts"])
def test_a_path_is_the_weighted_supernet_at_ones_and_zeros(space):
    net, images = net_of(space), torch.randn(3, 1, 8, 8)
    macs_of = net.path_macs((1, 8, 8))
    for seed in range(5):
        genotype = space.draw(random.Random(seed))
        weights = {kind: torch.zeros_like(value) for kind, value in net.uniform().items()}
        edges = supernet.edges_of(net.skeleton)
        for (kind, node), chosen in zip(net.skeleton.slots, genotype.nodes, strict=True):
            for op, source in chosen:
                weights[kind][edges.index((node, source)), space.operations.index(op)] = 1.0
        torch.testing.assert_close(net(images, net.path(genotype)), net(images, weights))
        counted = forward_macs(net, (1, 8, 8), lambda x, g=genotype: net(x, net.path(g)))
        assert macs_of(net.path(genotype)) == counted


def test_partial_channels_pass_and_mix_the_others():
    edge = supernet.Edge(("skip_connect", "none"), 8, 1, partial=4)
    x = torch.randn(2, 8, 5, 5)
    out = edge(x, torch.tensor([0.5, 0.5]))
    assert sorted(out[0, :, 0, 0].tolist()) == sorted(
        [*(0.5 * x[0, :2, 0, 0]).tolist(), *x[0, 2:, 0, 0].tolist()]
    )
    torch.testing.assert_close(out[:, 0], 0.5 * x[:, 0])
    torch.testing.assert_close(out[:, 1], x[:, 2])  # shuffled: the next edge mixes another part
    halved = supernet.Edge(("avg_pool_3x3",), 8, 2, partial=2)(x, torch.ones(1))
    assert halved.shape == (2, 8, 3, 3)
    with pytest.raises(UserError, match=r"8 channels .* search.pc_darts.partial = 3"):
        supernet.Edge(("none",), 8, 1, partial=3)


def test_edge_normalisation_weights_the_channels_that_pass_by_too():
    """Xu et al. 2020, equation 4: a node is the sum of β · PC(x) over its edges."""
    skeleton = Skeleton.usual(3, 3, 4)
    relaxation = bilevel.Relaxation(skeleton, 2, 0, edges=True)
    with torch.no_grad():
        relaxation.beta["normal"].copy_(torch.tensor([3.0, 1, -2, 0.5, 2, -1]))
        relaxation.alpha["normal"].normal_(generator=torch.Generator().manual_seed(0))
    alphas = relaxation.alpha["normal"].softmax(1)
    betas = relaxation.beta["normal"][3:].softmax(0)  # of the last node's three edges
    edges = [supernet.Edge(("skip_connect", "avg_pool_3x3"), 8, 1, 4) for _ in betas]
    states = torch.randn(3, 2, 8, 5, 5)
    weights = relaxation()["normal"][3:]
    found = [edge(x, weight) for edge, x, weight in zip(edges, states, weights, strict=True)]
    for beta, edge, x, alpha, out in zip(betas, edges, states, alphas[3:], found, strict=True):
        torch.testing.assert_close(out, beta * edge(x, alpha))
    assert (found[0] - edges[0](states[0], alphas[3])).abs().max() > 0.1


def test_edge_normalisation_shares_a_node_s_weight():
    weights = bilevel.Relaxation(Skeleton.usual(3, 3, 4), 5, 0, edges=True)()
    nodes = torch.tensor([node for node, _ in supernet.edges_of(Skeleton.usual(3, 3, 4))])
    for value in weights.values():
        sums = [float(value.detach()[nodes == node].sum()) for node in range(3)]
        assert sums == pytest.approx([1.0] * 3)


def test_the_derived_genotype_keeps_the_strongest():
    operations = ("none", "a", "b")
    dense = Skeleton(1, 3, 4, ())
    weights = {"normal": torch.tensor([[9.0, 1, 2], [9, 3, 0], [9, 0, 1]] + [[9.0, 0.1, 0.2]] * 3)}
    weights["normal"][4] = torch.tensor([9.0, 5, 0])
    found = supernet.derive(dense, operations, weights)
    assert found.normal == (
        (("b", 0),),
        (("a", 0), ("b", 1)),
        (("b", 0), ("a", 1), ("none", 2)),  # two inputs to a node, as in DARTS
    )
    chosen = supernet.derive(Skeleton(1, 3, 4, (), fan_in=1), operations, weights)
    assert chosen.normal == ((("b", 0),), (("a", 0),), (("a", 1),))
    without = supernet.derive(dense, ("a", "b"), {"normal": weights["normal"][:, 1:]})
    assert "none" not in without.operations


def test_second_order_is_the_gradient_through_a_step():
    torch.manual_seed(0)
    a, b = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    weights = [nn.Parameter(torch.randn(4, 2, dtype=torch.float64))]
    alphas = [nn.Parameter(torch.randn(2, dtype=torch.float64))]
    rate, decay = 0.3, 0.05

    def loss(x, w, alpha):
        return ((x @ w).tanh() * alpha.softmax(0)).sum(1).square().mean() + 0.1 * (w**2).mean()

    stepped = weights[0] - rate * (
        torch.autograd.grad(loss(a, weights[0], alphas[0]), weights[0], create_graph=True)[0]
        + decay * weights[0].detach()
    )
    exact = torch.autograd.grad(loss(b, stepped, alphas[0]), alphas[0])[0]
    before = weights[0].detach().clone()
    value, found = bilevel.unrolled_gradient(
        weights,
        alphas,
        lambda: loss(a, weights[0], alphas[0]),
        lambda: loss(b, weights[0], alphas[0]),
        rate,
        lambda gradients: [gradients[0] + decay * weights[0]],
    )
    torch.testing.assert_close(found[0], exact, rtol=1e-4, atol=1e-9)
    first = torch.autograd.grad(loss(b, stepped.detach(), alphas[0]), alphas[0])[0]
    assert (exact - first).abs().max() > 1e-3  # or the test would say nothing
    assert torch.equal(weights[0], before)
    assert float(value) == pytest.approx(float(loss(b, stepped, alphas[0])))


def test_a_controller_s_probabilities_are_those_of_its_draws():
    space = Space(("a", "b", "c"), (Skeleton(1, 1, 4, (), feeds=2, fan_in=1),))
    torch.manual_seed(0)
    writer = controller.Controller(space)
    with torch.no_grad():
        writer.heads["operation"].weight.mul_(40)
    generator = torch.Generator().manual_seed(0)
    drawn, probability = {}, {}
    with torch.no_grad():
        for _ in range(2000):
            genotype, log_probability, entropy = writer.sample(generator)
            assert genotype in space and entropy >= 0
            drawn[genotype] = drawn.get(genotype, 0) + 1
            probability[genotype] = float(log_probability.exp())
    assert sum(probability.values()) == pytest.approx(1, abs=1e-4) and len(drawn) == 6
    for genotype, count in drawn.items():
        assert count / 2000 == pytest.approx(probability[genotype], abs=0.05)


def test_reinforce_prefers_what_is_rewarded():
    space = Space(("a", "b", "c", "d"), (Skeleton(1, 1, 4, ()),))
    torch.manual_seed(0)
    writer = controller.Controller(space)
    learner = controller.Reinforce(writer, Enas(**LONGER_OWN["enas"]))
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        learner.step(lambda genotype: float("c" in genotype.operations), generator)
    drawn = [writer.sample(generator)[0].operations for _ in range(50)]
    assert drawn.count({"c"}) > 40


# Trials, evolution and the sequential search ------------------------------------------------------


def test_candidates_of_random_search_are_known_by_their_last_score(data):
    result = run("random", data)
    scored = {row["candidate"]: row["score"] for row in result.trace}  # the last of each
    assert {one.genotype.name: one.score for one in result.candidates} == scored
    assert sorted(one.epochs for one in result.candidates) == [1, 1, 3, 3]
    assert result.genotype in [one.genotype for one in result.candidates if one.epochs == 3]


def test_trials_are_not_told_apart_by_running_statistics(data):
    genotype = Space.full(FAST.space).draw(random.Random(3))
    trial = trials.begin(genotype, data, settings_of("random"), 0)
    before = trials.score_of(trial.model, data, torch.Generator().manual_seed(0))
    for part in trial.model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.fill_(7.0)
    assert trials.score_of(trial.model, data, torch.Generator().manual_seed(0)) == before


def test_evolution_changes_one_edge_of_a_young_parent(data):
    own = settings_of("evolution", candidates=9)
    result = run("evolution", data, settings=own)
    tried = [one.genotype for one in result.candidates]
    assert len(tried) == len(set(tried)) == 9
    for number in range(3, 9):
        parents = tried[number - 3 : number]
        assert any(edges_changed(tried[number], parent) == 1 for parent in parents)
    assert result.genotype == max(result.candidates, key=lambda one: one.score).genotype


def learned_from(genotypes, weight=1.0):
    return Learned(weight, tuple(genotypes), tuple(range(1, len(genotypes) + 1)))


def test_a_sequential_search_begins_with_what_learned_tasks_ranked_first(data):
    ranked = Space.full(FAST.space).sample(12, random.Random(5))
    start = Start((learned_from(ranked[:6], 0.9), learned_from(ranked[6:], 0.1)))
    first = run("ftd-nas", data, start=start).candidates[0].genotype
    alone = run("ftd-nas", data, start=Start((learned_from(ranked[6:]),))).candidates[0].genotype
    assert first in ranked[:2] and alone in ranked[6:8]


def test_a_sequential_search_goes_on_among_candidates_and_neighbours_of_the_promising(data):
    ranked = Space.full(FAST.space).sample(3, random.Random(5))
    own = settings_of("ftd-nas", candidates=8)
    tried = [
        one.genotype
        for one in run(
            "ftd-nas", data, settings=own, start=Start((learned_from(ranked),))
        ).candidates
    ]
    assert len(tried) == len(set(tried)) == 8
    for number, genotype in enumerate(tried):
        near = any(edges_changed(genotype, before) == 1 for before in tried[:number])
        assert genotype in ranked or near


def test_first_tasks_try_the_same_architectures(data, make_slice, digits):
    other = make_slice("large", {"small": [0, 1, 2], "large": [7, 8, 9]})
    more = TaskData(read_slice(other), digits / "digits.safetensors", {"train": 60, "val": 40})
    own = settings_of("surrogate", candidates=proposing.FIRST)
    here, there = (run("surrogate", each, settings=own).candidates for each in (data, more))
    assert [one.genotype for one in here] == [one.genotype for one in there]


def test_differing_edges_are_counted_as_one_by_one():
    space = Space.full(SpaceSettings(cells=[3, 5], nodes=[2], fan_in=1, feeds=2))
    some, others = space.sample(9, random.Random(0)), space.sample(7, random.Random(1))
    found = proposing.differing(some, others)
    for row, one in enumerate(some):
        for column, other in enumerate(others):
            wanted = edges_changed(one, other) + (one.skeleton != other.skeleton)
            assert found[row, column] == wanted
    assert proposing.differing(some, []).shape == (9, 0)


def test_what_a_learned_task_s_candidates_say_of_like_ones():
    space = Space.full(SpaceSettings(nodes=[2]))
    ranked = space.sample(10, random.Random(0))
    near = [space.neighbours(ranked[0])[0], space.neighbours(ranked[-1])[0]]
    found = proposing._on_learned([ranked[0], ranked[-1], *near], learned_from(ranked))
    assert found[0] > found[2] > found[3] > found[1]


def test_a_table_of_candidates_ranks_and_counts_them(data):
    result = run("random", data)
    table = candidates.table(result.candidates, data)
    rows = table.to_pandas()
    assert list(rows["rank"]) == [1, 2, 3, 4] and list(rows["epochs"]) == [3, 3, 1, 1]
    assert rows["score"][0] >= rows["score"][1] and not rows["shared"].any()
    learned = candidates.learned(table, 0.5)
    assert learned.genotypes[0] == result.genotype and learned.ranks == (1, 2, 3, 4)
    built = cells.build(result.genotype, image_shape=(1, 8, 8), target=Classes(2), seed=0)
    assert rows["parameters"][0] == sum(p.numel() for p in built.parameters())
    assert rows["macs"][0] == forward_macs(built, (1, 8, 8))
    assert candidates.table([], None).num_rows == 0


# Through the stages -------------------------------------------------------------------------------

METHODS = [*DISTINCT, "ftd-nas", "ftd-nas-random", "fuse-nearest", "fuse-paper", "resnet18-x0.05"]


@pytest.fixture
def searching(digits, tmp_path):
    """A function of keys of ``search`` → the tiny experiment, its tasks sliced."""

    def of(**keys):
        common = {"space": {"nodes": [1], "channels": [4]}, "samples": 60, "methods": METHODS}
        return experiment_of(
            tmp_path, digits.parent, search=common | OWN | keys, train={"epochs": 2}
        )

    for name in of().config.tasks:
        task_stage.run(of(), task=name)
    return of


def searched(experiment, task="zero", method="ftd-nas", donors=()):
    given = dict.fromkeys(donors, 1.0)
    return search_stage.run(experiment, task=task, method=method, seed=0, donors=given)


def place(artifact, experiment, task="zero", method="ftd-nas"):
    return experiment.output(artifact, task=task, method=method, seed=0)


def test_search_is_restricted_to_the_donors_and_the_winner_trains(searching, digits):
    plain = searching()
    first = searched(plain)
    assert first["space_log10"] == pytest.approx(2) and first["donors"] == []
    used = {op for kind in ("normal", "reduction") for op, _ in first["genotype"][kind][0]}
    for method, keys in (("fuse-nearest", {"restriction": "operations"}), ("fuse-paper", {})):
        second = searched(searching(**keys), "six", method, donors=["zero"])
        assert second["donors"] == ["zero"] and set(second["space"]["operations"]) == used
        assert second["donor_genotypes"] == [first["genotype"]]
    genotype = place(LAYOUT.genotype, plain, "six", "fuse-paper")
    assert genotype.exists() and not genotype.with_name("genotype.resume").exists()
    trace = store.read_table(place(LAYOUT.trace, plain, "six", "fuse-paper"))
    assert {"loss", "alpha", "macs", "seconds"} <= set(trace.column_names)
    near = {"restriction": "neighbourhood", "radius": 1}
    third = searched(searching(**near), "six", "fuse-nearest", donors=["zero"])
    assert 10 ** third["space_log10"] == pytest.approx(1 + 2 * 9)
    full = searched(plain, method="random")
    assert full["donors"] == [] and full["space_log10"] == first["space_log10"]
    with pytest.raises(UserError, match="random takes no learned tasks"):
        searched(plain, method="random", donors=["zero"])

    metrics = training_stage.run(plain, task="zero", method="ftd-nas", seed=0)
    model, facts = training_stage.load(place(LAYOUT.weights, plain))
    assert metrics["parameters"] == sum(p.numel() for p in model.parameters())
    assert metrics["search_macs"] == first["search_macs"]
    sliced = read_slice(plain.output(LAYOUT.slice, task="zero"))
    data = TaskData(sliced, digits / "digits.safetensors", {"test": None})
    images, labels = next(data.batches("test", 10_000))
    with torch.no_grad():
        hits = (model(images).argmax(1) == labels).double().mean().item()
    assert hits == pytest.approx(metrics["accuracy"]) and metrics["most_frequent"] == 0.5
    assert facts["labels"] == ["other", "zero"] and facts["mean"]
    shown = ftd.load(place(LAYOUT.weights, plain))
    assert shown.labels == facts["labels"]
    assert (shown.mean, shown.std) == (sliced.facts["mean"], sliced.facts["std"])


def test_a_search_takes_up_its_donors_candidates(searching):
    plain = searching()
    searched(plain)
    table = store.read_table(place(LAYOUT.candidates, plain))
    assert table.num_rows == OWN["sequential"]["candidates"]
    found = searched(plain, "six", donors=["zero"])
    assert found["donor_candidates"] == [store.table_facts(table)["sha256"]]
    assert found["donor_weights"] == [1.0] and found["space_log10"] == pytest.approx(2)
    first = store.read_table(place(LAYOUT.trace, plain, "six")).to_pylist()[0]["candidate"]
    assert first in table.to_pandas()["name"][:2].tolist()
    weights = {"zero": 3.0, "six": 1.0}
    both = search_stage.run(plain, task="three", method="ftd-nas", seed=0, donors=weights)
    assert both["donor_weights"] == [0.75, 0.25]
    with pytest.raises(UserError, match=r"ten/0/candidates\.parquet: no such file; make it by"):
        searched(plain, "three", donors=["ten"])


def test_learned_tasks_may_be_searched_by_another_method(searching):
    other = searching(library="surrogate")
    searched(other, method="surrogate")
    table = store.read_table(place(LAYOUT.candidates, other, method="surrogate"))
    found = searched(other, "six", donors=["zero"])
    assert found["donor_candidates"] == [store.table_facts(table)["sha256"]]
    library, path = Library(other.root, other), place(LAYOUT.genotype, other, "six")
    names = {"method": "ftd-nas", "task": "six", "seed": "0"}
    assert list(search_stage._check_genotype(path, names, library)) == []
    with pytest.raises(UserError, match=r"search/ftd-nas/zero/0/candidates\.parquet: no such file"):
        searched(searching(), "six", donors=["zero"])


def test_a_search_starts_from_what_the_selection_says(searching):
    plain = searching()
    chosen = {"six": {"nearest": ["zero"], "farthest": [], "heaviest": ["zero"], "weights": None}}
    store.write_json(plain.output(LAYOUT.selection), chosen, {"stage": "selection"})
    searched(plain)
    for method in ("ftd-nas", "ftd-nas-random", "fuse-nearest"):  # of one that arrived before
        found = search_stage.run(plain, task="six", method=method, seed=0)
        assert found["donors"] == ["zero"], method
    assert search_stage.run(plain, task="six", method="random", seed=0)["donors"] == []
    with pytest.raises(UserError, match="the selection has no task 'three'; run the stage sel"):
        search_stage.run(plain, task="three", method="ftd-nas", seed=0)


def test_only_what_follows_from_the_selection_reads_it(searching):
    plain = searching()
    assert search_stage.run(plain, task="six", method="random", seed=0)["donors"] == []
    with pytest.raises(UserError, match=r"selection\.json: no such file"):
        search_stage.run(plain, task="six", method="ftd-nas", seed=0)


@pytest.mark.parametrize("result", [None, "genotype", SearchResult("genotype", [], 0, 0.0)])
def test_a_method_that_gives_no_result_is_named(result, searching, registered):
    gives = replace(SEARCHERS.get("random"), search=lambda *_, **__: result)
    registered(SEARCHERS, "random", gives)
    with pytest.raises(UserError, match=r"search zero, method random, seed 0: .*ledger\.result"):
        searched(searching(), method="random")


def test_a_hand_designed_network_is_trained_in_the_same_way(searching):
    plain, network = searching(), "resnet18-x0.05"
    found = searched(plain, method=network)
    assert found["search_macs"] == 0 and found["genotype"] is None
    metrics = training_stage.run(plain, task="zero", method=network, seed=0)
    model, _ = training_stage.load(place(LAYOUT.weights, plain, method=network))
    assert metrics["parameters"] == sum(p.numel() for p in model.parameters())
    assert metrics["method"] == network and metrics["search_macs"] == 0
    with pytest.raises(UserError, match="no method 'fuse' in this experiment; did you mean 'fuse-"):
        searched(plain, method="fuse")
    with pytest.raises(UserError, match="unknown method 'fuse'; did you mean 'fuse-full'"):
        searching(methods=["fuse"])


@pytest.mark.parametrize("method", DISTINCT)
def test_search_never_loads_the_test_part(method, searching, monkeypatch):
    loaded, whole = [], TaskData
    monkeypatch.setattr(
        "ftd.tasks.data.TaskData",
        lambda task, images, parts, **more: (
            loaded.append(parts) or whole(task, images, parts, **more)
        ),
    )
    searched(searching(), method=method)
    assert [set(parts) for parts in loaded] == [{"train", "val"}]
