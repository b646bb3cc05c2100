"""The public face: a distance of two networks in memory, and the names that the package shows."""

import copy
import dataclasses
import math
import os
import subprocess
import sys
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ftd
from ftd import parts
from ftd.config.sections import Fisher
from ftd.errors import UserError
from ftd.measures import FISHER, FisherTask, Measure
from ftd.measures.fisher_task import FisherTaskDistance, on_own_task
from ftd.tasks.targets.classes import Classes


def network(outputs, seed=0):
    """A probe as the workflow builds them: images [B, 1, 6, 6] → logits."""
    torch.manual_seed(0)
    body = nn.Sequential(
        *(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 8, 3), nn.ReLU()),
    )
    head = Classes(outputs).head((8, 1, 1), (6, 6))
    model = nn.Sequential(OrderedDict(body=body, head=head))
    torch.manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value), alpha=0.3)
    return model.eval()


def plain(outputs, seed=0, width=6):
    """A network as a user would build it."""
    torch.manual_seed(seed)
    return nn.Sequential(
        OrderedDict(
            first=nn.Linear(5, width), norm=nn.LayerNorm(width), act=nn.Tanh(),
            out=nn.Linear(width, outputs),
        )
    ).eval()  # fmt: skip


IMAGES = torch.randn(60, 1, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3
BATCHES = list(zip(IMAGES.split(25), LABELS.split(25), strict=True))
VECTORS = IMAGES.flatten(1)[:, :5].contiguous()
PAIRS = [
    (x.clone(), y) for x, y in zip(VECTORS.split(25), LABELS.split(25), strict=True)
]  # where in memory a batch begins may change a last digit


def by_the_measure(source, target, align, **settings):
    """The shares of d² that the workflow's measure gives on the same batches."""

    def batches(part, size, generator=None):
        assert part == "fisher"
        if generator is None:
            return BATCHES
        order = torch.randperm(60, generator=generator)
        return [(IMAGES[rows], LABELS[rows]) for rows in order.split(25)]

    outputs = target.head.linear.out_features
    data = SimpleNamespace(
        device=torch.device("cpu"), target=Classes(outputs), batches=batches,
        task=SimpleNamespace(image_shape=(1, 6, 6)),
    )  # fmt: skip
    fisher = Fisher(**settings)
    side = {"what": "", "fisher_settings": fisher, "brought": False}
    # As a file gives it back: by name.
    f_bb = dict(sorted(on_own_task(copy.deepcopy(target), data, fisher, "").items()))
    measure = FisherTaskDistance()
    own = SimpleNamespace(name="b", data=data, fisher=f_bb, **side)
    prepared = measure.prepare(own, FisherTask(align=align))
    source = SimpleNamespace(name="a", weights=copy.deepcopy(source), **side)
    return measure.compare(source, prepared), list(batches("fisher", 25, _shuffled(fisher)))


def _shuffled(fisher):
    return torch.Generator().manual_seed(0) if fisher.microbatch > 1 else None


SETTINGS = [
    {},
    {"estimator": "sampled"},
    {"estimator": "expected"},
    {"microbatch": 4},
    {"microbatch": 4, "estimator": "sampled"},
]


@pytest.mark.parametrize("keys", SETTINGS, ids=str)
@pytest.mark.parametrize("align", ["index", "matching"])
@pytest.mark.parametrize("outputs", [2, 3, 5])
def test_numbers_equal_the_workflow_s_to_the_last_digit(outputs, align, keys):
    source, target = network(outputs, 1), network(3, 2)
    shares, batches = by_the_measure(source, target, align, **keys)
    found = ftd.distance(source, target, batches, loss=F.cross_entropy, align=align, **keys)
    assert found.by_layer == shares and list(found.by_layer) == list(shares)
    assert found.squared == FISHER.total(shares.values()) > 0
    assert found.value == math.sqrt(found.squared)
    named = ftd.distance(
        source, target, batches, loss=F.cross_entropy, align=align, head="head.linear", **keys
    )
    assert named == found


def formula(source, target, drop=(), order=None):
    """½ Σ (√F₁ − √F₂)² on ``PAIRS`` by plain autograd, float64."""

    def information(model, order):
        model = copy.deepcopy(model).double()
        total = dict.fromkeys(dict(model.named_parameters()), 0.0)
        for x, y in zip(VECTORS.double(), LABELS, strict=True):
            model.zero_grad()
            logits = model(x[None])
            F.cross_entropy(logits[:, order] if order else logits, y[None]).backward()
            for name, value in model.named_parameters():
                total[name] = total[name] + value.grad**2
        if order:
            total |= {name: total[name][order] for name in ("out.weight", "out.bias")}
        kept = torch.cat([v.flatten() for name, v in total.items() if name not in drop])
        return (kept / kept.sum()).sqrt()

    return 0.5 * float((information(source, order) - information(target, None)).square().sum())


OUT = ("out.weight", "out.bias")


def test_of_any_two_networks():
    source, target = plain(3, 1), plain(3, 2)
    found = ftd.distance(source, target, PAIRS, loss=F.cross_entropy)
    assert found.squared == pytest.approx(formula(source, target), rel=1e-5)
    assert list(found.by_layer) == ["first", "norm", "out"]
    assert ftd.distance(target, target, PAIRS, loss=F.cross_entropy).value == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.value = 0


@pytest.mark.parametrize("outputs", [3, 4])
def test_without_alignment_the_output_layer_stays_out(outputs):
    source, target = plain(outputs, 1), plain(3, 2)
    found = ftd.distance(source, target, PAIRS, loss=F.cross_entropy, align=None)
    assert list(found.by_layer) == ["first", "norm"]
    assert found.squared == pytest.approx(formula(source, target, OUT), rel=1e-5)


def test_matching_undoes_a_permutation_of_outputs():
    source, target = plain(3, 1), plain(3, 2)
    turned = copy.deepcopy(source)
    for value in turned.out.parameters():
        value.data = value.data[[2, 0, 1]]
    same = {"loss": F.cross_entropy, "align": "matching"}
    first, second = (ftd.distance(model, target, PAIRS, **same) for model in (source, turned))
    assert second.squared == pytest.approx(first.squared, rel=1e-6)
    assert first.squared == pytest.approx(
        min(formula(source, target, order=order) for order in _orders(source)), rel=1e-5
    )


def _orders(model):
    """The order of greatest agreement, by trying all."""
    from itertools import permutations

    with torch.no_grad():
        shares = model(VECTORS).double().softmax(1)
    agreement = [shares[label == LABELS].mean(0) for label in range(3)]
    totals = {o: sum(float(agreement[i][o[i]]) for i in range(3)) for o in permutations(range(3))}
    return [list(max(totals, key=totals.get))]


# Batches ----------------------------------------------------------------------------------------


def pairs_dict():
    return [{"image": x, "label": y} for x, y in PAIRS]


LOADERS = {
    "a list of lists": (lambda: [list(pair) for pair in PAIRS], None),
    "a generator": (lambda: (pair for pair in PAIRS), None),
    "a data loader": (lambda: DataLoader(TensorDataset(VECTORS, LABELS), 25), None),
    "dicts": (pairs_dict, lambda batch: (batch["image"], batch["label"])),
    "a generator of dicts": (lambda: iter(pairs_dict()), lambda b: (b["image"], b["label"])),
    "three elements": (lambda: [(0, *pair) for pair in PAIRS], lambda batch: batch[1:]),
}


@pytest.mark.parametrize(("loader", "adapt"), LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("align", ["index", "matching"])
def test_loaders_of_any_kind(loader, adapt, align):
    source, target = plain(2, 1), plain(3, 2)
    same = {"loss": F.cross_entropy, "align": align}
    expected = ftd.distance(source, target, PAIRS, **same)
    assert ftd.distance(source, target, loader(), adapt=adapt, **same) == expected


def test_both_networks_see_the_same_shuffled_batches():
    target = plain(3, 2)
    loader = DataLoader(TensorDataset(VECTORS, LABELS), 25, shuffle=True)
    found = ftd.distance(target, target, loader, loss=F.cross_entropy, microbatch=4)
    assert found.value == 0


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (pairs_dict(), "batch 0: expected .*, got a dict of 'image', 'label'; give adapt"),
        (
            [PAIRS[0], (VECTORS,)],
            r"batch 1: expected .*, got a tuple of a tensor \[60, 5\] of float32; give",
        ),
        ([(*PAIRS[0], LABELS)], "got a tuple of a tensor"),
        ([VECTORS], r"got a tensor \[60, 5\]"),
        ([(VECTORS, [0] * 60)], "a list of int, int"),
        ([(VECTORS, LABELS[:5])], r"a tensor \[60, 5\] of float32, a tensor \[5\]"),
        ([(VECTORS, torch.tensor(1))], r"a tensor \[\]"),
        ([None], "got NoneType"),
        ([()], "a tuple of nothing"),
        ([], "loader: no batches"),
        (iter([]), "loader: no batches"),
    ],
    ids=range(11),
)
def test_batches_of_another_kind_are_refused(loader, message):
    with pytest.raises(UserError, match=message) as error:
        ftd.distance(plain(3, 1), plain(3, 2), loader, loss=F.cross_entropy)
    assert "\n" not in str(error.value)


# Networks ---------------------------------------------------------------------------------------


class Parallel(nn.Module):
    """Two layers that give the outputs together."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x):
        return self.one(x) + self.other(x)


def tailed(*tail):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 3), *tail).eval()


class Token(nn.Module):
    """A parameter of the whole network beside its layers, as vision transformers have."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 5))
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head((x + self.token).tanh())


FOUND = {
    "the last of equal width": (tailed, "2"),
    "before a softmax": (lambda: tailed(nn.LogSoftmax(1)), "2"),
    "beside a network's own parameter": (Token, "head"),
    "with a weight norm": (
        lambda: nn.Sequential(
            nn.Linear(5, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
        ),
        "1",
    ),
}


@pytest.mark.parametrize(("make", "layer"), FOUND.values(), ids=FOUND)
def test_the_output_layer_is_found(make, layer):
    source, target = make().eval(), make().eval()
    same = {"loss": F.cross_entropy}
    for align in (None, "matching"):
        found = ftd.distance(source, target, PAIRS, align=align, **same)
        assert found == ftd.distance(source, target, PAIRS, align=align, head=layer, **same)
        below = [name for name in found.by_layer if name.startswith(layer)]
        assert bool(below) is (align == "matching") and len(found.by_layer) > len(below)


UNCLEAR = {
    "two together": Parallel,
    "a norm at the end": lambda: tailed(nn.BatchNorm1d(3)),
    "no outputs": lambda: nn.Sequential(nn.Linear(5, 4), nn.Flatten(0)),
    "another length": lambda: nn.Sequential(nn.Linear(5, 6), nn.GLU()),
}


@pytest.mark.parametrize("make", UNCLEAR.values(), ids=UNCLEAR)
def test_an_output_layer_that_is_not_clear_is_asked_for(make):
    model = make().eval()
    with pytest.raises(UserError, match=r"not clear; name it with head=, such as head='fc'"):
        ftd.distance(model, model, PAIRS, loss=F.cross_entropy, align=None)
    assert not any(layer._forward_hooks for layer in model.modules())


def test_a_named_output_layer():
    source, target = Parallel().eval(), Parallel().eval()
    found = ftd.distance(source, target, PAIRS, loss=F.cross_entropy, align=None, head="other")
    assert list(found.by_layer) == ["one"]
    with pytest.raises(UserError, match=r"no layer 'othr' with parameters; did you mean 'other'"):
        ftd.distance(source, target, PAIRS, loss=F.cross_entropy, head="othr")


DISAGREE = {
    "two layers": (
        *(plain(3, width=6), plain(3, width=7), None),
        r"have first.weight \[6, 5\] and \[7, 5\]; first.bias \[6\] and \[7\]; norm.weight .*; …$",
    ),
    "another than the one named": (
        *(plain(2), plain(3), "first"),
        r"target have out.weight \[2, 6\] and \[3, 6\]; out.bias",
    ),
    "more layers": (
        *(plain(3), nn.Sequential(*plain(3)).eval(), None),
        r"only the source has first.weight, first.bias, norm.weight, …$",
    ),
    "fewer": (
        *(nn.Sequential(OrderedDict(first=nn.Linear(5, 6))).eval(), plain(3), None),
        r"only the target has norm.weight, norm.bias, out.weight, …$",
    ),
}


@pytest.mark.parametrize(("source", "target", "head", "message"), DISAGREE.values(), ids=DISAGREE)
def test_networks_that_disagree_elsewhere_are_refused(source, target, head, message):
    with pytest.raises(UserError, match=message):
        ftd.distance(source, target, PAIRS, loss=F.cross_entropy, head=head)


class Upwards(nn.Module):
    """An output layer whose weights do not have the outputs first."""

    def __init__(self, outputs):
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3)
        self.out = nn.ConvTranspose2d(2, outputs, 2, bias=False)

    def forward(self, x):
        return self.out(self.first(x).tanh())


MAPS = [(IMAGES, torch.arange(60 * 25).view(60, 5, 5) % 3)]


def test_output_layers_without_rows_are_refused():
    source, target = Upwards(4).eval(), Upwards(3).eval()
    with pytest.raises(UserError, match=r"output layer 'out': expected parameters with a row for"):
        ftd.distance(source, target, MAPS, loss=F.cross_entropy)
    found = ftd.distance(source, target, MAPS, loss=F.cross_entropy, align=None)
    assert list(found.by_layer) == ["first"]


@pytest.mark.parametrize("outputs", [2, 3, 4])
def test_dense_outputs(outputs):
    """Maps of logits: aligned along their channels."""

    def dense(outputs, seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 4, 2), nn.Tanh(), nn.Conv2d(4, outputs, 1)).eval()

    source, target = dense(outputs, 1), dense(3, 2)
    found = ftd.distance(source, target, MAPS, loss=F.cross_entropy)
    informations = []
    for model in (source, target):
        model = copy.deepcopy(model).double()
        total = dict.fromkeys(dict(model.named_parameters()), 0.0)
        for x, y in zip(*MAPS[0], strict=True):
            model.zero_grad()
            logits = model(x[None].double())
            missing = (0, 0, 0, 0, 0, max(0, 3 - logits.shape[1]))
            F.cross_entropy(F.pad(logits, missing), y[None]).backward()
            for name, value in model.named_parameters():
                total[name] = total[name] + value.grad**2
        for name in ("2.weight", "2.bias"):
            own = total[name]
            total[name] = torch.cat([own, own.new_zeros(4 - len(own), *own.shape[1:])])
        values = torch.cat([value.flatten() for value in total.values()])
        informations.append((values / values.sum()).sqrt())
    expected = 0.5 * float((informations[0] - informations[1]).square().sum())
    assert found.squared == pytest.approx(expected, rel=1e-5)


def test_outputs_that_are_no_tensor():
    class Named(nn.Module):
        def __init__(self, outputs, seed):
            super().__init__()
            self.inner = plain(outputs, seed)

        def forward(self, x):
            return {"logits": self.inner(x)}

    loss = lambda outputs, y: F.cross_entropy(outputs["logits"], y)  # noqa: E731
    source, target = Named(3, 1).eval(), Named(3, 2).eval()
    found = ftd.distance(source, target, PAIRS, loss=loss)
    assert found.squared == pytest.approx(formula(source.inner, target.inner), rel=1e-5)
    with pytest.raises(UserError, match=r"expected outputs \[B, outputs, …\]; give align=None"):
        ftd.distance(Named(2, 1).eval(), target, PAIRS, loss=loss)


@pytest.mark.parametrize("which", [0, 1])
def test_training_mode_is_refused(which):
    models = [plain(3, 1), plain(3, 2)]
    models[which].norm.train()
    with pytest.raises(UserError, match=r"norm is in training mode; call model\.eval\(\) first"):
        ftd.distance(*models, PAIRS, loss=F.cross_entropy)
    assert models[which].norm.training


@pytest.mark.parametrize("align", ["first", "INDEX", False])
def test_an_unknown_alignment_is_refused(align):
    with pytest.raises(UserError, match=r"expected 'index', 'matching' or None"):
        ftd.distance(plain(3), plain(3), PAIRS, loss=F.cross_entropy, align=align)


def test_a_network_that_learned_nothing_has_no_distance():
    source = plain(3)
    for value in source.parameters():
        value.data.zero_()
    loss = lambda outputs, y: 0 * outputs.sum()  # noqa: E731
    with pytest.raises(UserError, match=r"trace is 0\.0"):
        ftd.distance(source, plain(3, 2), PAIRS, loss=loss)


@pytest.mark.parametrize("align", ["index", "matching", None])
def test_models_are_left_as_found(align):
    source, target = plain(3, 1), plain(3, 2)
    source.first.weight.requires_grad_(False)
    target.out.bias.grad = torch.ones(3)
    before = [copy.deepcopy(model.state_dict()) for model in (source, target)]
    random = torch.get_rng_state()
    ftd.distance(source, target, PAIRS, loss=F.cross_entropy, align=align)
    for model, state in zip((source, target), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert not any(layer._forward_hooks for layer in model.modules())
        assert not any(layer.training for layer in model.modules())
    assert not source.first.weight.requires_grad and source.out.weight.requires_grad
    assert torch.equal(target.out.bias.grad, torch.ones(3)) and target.first.bias.grad is None
    assert torch.equal(torch.get_rng_state(), random)


# Other measures -----------------------------------------------------------------------------------


class Sure:
    """Of both sides' passes."""

    def prepare(self, target, settings):
        assert isinstance(settings, ftd.Section)
        return target

    def compare(self, source, target):
        seen = source.seen(target)
        assert source.seen(target) is seen and seen.labels.tolist() == LABELS.tolist()
        return {"whole": float(seen.features.sum() + seen.outputs.sum())}


class Both(Sure):
    def compare(self, source, target):
        own = target.seen(target)
        return {"whole": float((source.seen(target).features - own.features).sum())}


class Greedy(Sure):
    def compare(self, source, target):
        return {"whole": float(target.fisher)}


@pytest.fixture
def sure(registered):
    keys = {"source": ("weights",), "target": ("data",), "group": "seen"}
    for name, make in (("sure", Sure), ("both", Both), ("greedy", Greedy)):
        measure = Measure(make, **keys, lowest=-1e4, highest=1e4, nearer="higher")
        registered(parts.MEASURES, name, measure)
    narrow = Measure(Sure, **keys, lowest=0, highest=1e-9)
    registered(parts.MEASURES, "narrow", narrow)
    registered(parts.MEASURES, "mean", ftd.Combination(("sure",), max, 0, 1))


def test_another_measure_of_networks_in_memory(sure):
    source, target = plain(4, 1), plain(3, 2)
    before = copy.deepcopy(source.state_dict())
    with torch.no_grad():
        features, own = (m.act(m.norm(m.first(VECTORS))) for m in (source, target))
        expected = float(features.sum() + source.out(features).sum())
    found = ftd.distance(source, None, PAIRS, measure="sure")
    assert found.value == pytest.approx(expected, rel=1e-5)
    assert found.squared is None and found.by_layer == {}
    assert ftd.distance(source, None, PAIRS, measure="sure", head="out") == found
    both = ftd.distance(source, target, PAIRS, measure="both").value
    assert both == pytest.approx(float((features - own).sum()), rel=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in source.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in source.modules())
    assert all(value.requires_grad for value in source.parameters())


@pytest.mark.parametrize(
    ("measure", "target", "message"),
    [
        ("leap", None, "unknown measure 'leap'"),
        (
            "mean",
            None,
            "measure 'mean' needs what only a workflow has; of networks in .*fisher.*sure",
        ),
        ("both", None, "looks at the target's network too; give one"),
        ("greedy", plain(3), "needs fisher of the target, which only a workflow has"),
        ("narrow", None, "measure narrow: .* is no number of its range"),
        ("sure", plain(3).train(), "training mode"),
        ("fisher", None, "measure 'fisher': expected the target's network, and a loss"),
        ("fisher", plain(3), "measure 'fisher': expected the target's network, and a loss"),
    ],
)
def test_measures_that_networks_in_memory_have_not(sure, measure, target, message):
    with pytest.raises(UserError, match=message):
        ftd.distance(plain(3, 1), target, PAIRS, measure=measure)


def test_samples_without_labels_have_no_such_measure(sure):
    with pytest.raises(UserError, match=r"the source's network: expected labels of classes"):
        ftd.distance(plain(3, 1), None, [(VECTORS, LABELS.float())], measure="sure")


# The package ------------------------------------------------------------------------------------


def run(code):
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_costs_nothing():
    heavy = {"torch", "numpy", "pydantic", "pyarrow", "scipy", "tqdm", "safetensors"}
    shown = "'distance' in dir(ftd) and 'distance' not in vars(ftd)"
    assert run(f"import sys, ftd; print({heavy!r} & set(sys.modules), {shown})") == "set() True"


def test_public_names():
    assert set(ftd.__all__) <= set(dir(ftd))
    assert all(getattr(ftd, name).__doc__ for name in ftd.__all__)
    assert ftd.__version__
    with pytest.raises(AttributeError, match="no attribute 'distances'"):
        ftd.distances  # noqa: B018


WITHOUT = """
import sys

class Missing:
    names = {names!r}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"no module named {{name!r}}")

sys.meta_path.insert(0, Missing())
import ftd, torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
source, target = (nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, n)).eval() for n in (4, 3))
loader = [(torch.randn(9, 4), torch.arange(9) % 3)]
for align in ("index", "matching", None):
    assert 0 < ftd.distance(source, target, loader, loss=F.cross_entropy, align=align).value < 1
assert ftd.fisher_diagonal(source, loader, loss=F.cross_entropy)
print(sorted(Missing.names & set(sys.modules)))
"""


def test_a_distance_needs_none_of_the_workflow_s_packages():
    names = {
        *("snakemake", "matplotlib", "pandas", "torchvision", "sklearn", "PIL", "pygments"),
    }
    assert run(WITHOUT.format(names=names)) == "[]"


@pytest.mark.parametrize("inputs", [VECTORS.double(), VECTORS[:, :3], VECTORS.to(torch.uint8)])
def test_inputs_that_a_network_cannot_take_are_named(inputs):
    with pytest.raises(UserError, match=r"batch 0: the network fails on a tensor \[2, .*Error: "):
        ftd.distance(plain(3, 1), plain(3, 2), [(inputs, LABELS)], loss=F.cross_entropy)
