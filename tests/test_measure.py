"""Measures: what one declares, and the Fisher task distance: its formula and its properties."""

import copy
import dataclasses
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from ftd import parts
from ftd.config.sections import Fisher
from ftd.errors import UserError
from ftd.fisher import engine, kronecker
from ftd.fisher.spots import Spots
from ftd.measures import FISHER, NEEDS, Combination, FisherTask, Measure, fisher_task
from ftd.measures.fisher_task import on_common_ground, on_own_task, on_task, squared_distance
from ftd.measures.passes import batch_size
from ftd.models import networks
from ftd.tasks.targets.alignment import matched_order
from ftd.tasks.targets.classes import Classes

values = arrays(np.int64, 12, elements=st.integers(0, 10**9)).map(lambda a: a / 1000)
nonzero = values.filter(lambda a: a.sum() > 0)
PAD = Classes(3).pad
WEIGHT, BIAS = "head.linear.weight", "head.linear.bias"


def distance_between(a, b, what):
    return squared_distance(*on_common_ground(a, b, PAD, what))


def diagonal(array: np.ndarray, outputs: int = 3) -> dict[str, torch.Tensor]:
    """Twelve numbers as a body of 12 − 2·outputs weights and a head of ``outputs`` rows."""
    body = torch.from_numpy(array[: 12 - 2 * outputs])
    rest = torch.from_numpy(array[12 - 2 * outputs :])
    return {"body": body, BIAS: rest[:outputs], WEIGHT: rest[outputs:, None]}


# The formula ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(nonzero, nonzero)
def test_formula_and_range(a, b):
    found = distance_between(diagonal(a), diagonal(b), "x")
    expected = 0.5 * np.sum((np.sqrt(a / a.sum()) - np.sqrt(b / b.sum())) ** 2)
    assert found == pytest.approx(expected, abs=1e-12)
    assert 0 <= found <= 1


@settings(deadline=None)
@given(nonzero, st.floats(1e-6, 1e6))
def test_identity_and_scale(a, scale):
    assert distance_between(diagonal(a), diagonal(a * scale), "x") == pytest.approx(0, abs=1e-12)


def test_disjoint_supports_are_at_distance_one():
    a, b = np.zeros(12), np.zeros(12)
    a[:3], b[3:6] = 1, 7
    assert distance_between(diagonal(a), diagonal(b), "x") == pytest.approx(1)


@settings(deadline=None, max_examples=25)
@given(nonzero)
def test_equals_the_matrix_formula(a):
    """d² = ½ Tr(A + B − 2 (A^½ B A^½)^½) with SciPy's matrix roots."""
    from scipy.linalg import sqrtm

    a = a + 1  # SciPy's root wants regular matrices
    b = np.roll(a, 1)
    first, second = np.diag(a / a.sum()), np.diag(b / b.sum())
    root = sqrtm(first)
    full = 0.5 * np.trace(first + second - 2 * sqrtm(root @ second @ root)).real
    assert distance_between(diagonal(a), diagonal(b), "x") == pytest.approx(full, abs=1e-6)


def test_a_smaller_head_is_padded_with_zeros():
    small = {"body": torch.ones(4), WEIGHT: torch.ones(2, 3), BIAS: torch.ones(2)}
    large = {"body": torch.ones(4), WEIGHT: torch.ones(5, 3), BIAS: torch.ones(5)}
    expected = 0.5 * (
        12 * (12**-0.5 - 24**-0.5) ** 2 + 12 * (1 / 24)
    )  # common entries, and those that only the larger head has
    for a, b in ((small, large), (large, small)):
        assert distance_between(a, b, "x") == pytest.approx(expected)


@settings(deadline=None)
@given(nonzero)
def test_padding_a_head_with_zero_rows_changes_nothing(a):
    two, three = diagonal(a, 2), diagonal(a, 2)
    three[BIAS] = torch.cat([three[BIAS], torch.zeros(1).double()])
    three[WEIGHT] = torch.cat([three[WEIGHT], torch.zeros(1, 1).double()])
    assert distance_between(two, three, "x") == pytest.approx(0, abs=1e-12)


# Networks on tasks ------------------------------------------------------------------------------


class Digits:
    """The 8×8 digits' ``fisher`` part under a target, in an order of one's own."""

    device = torch.device("cpu")
    task = SimpleNamespace(image_shape=(1, 8, 8), facts={"target": {"kind": "classes"}})

    def __init__(self, images, labels, outputs):
        self.images, self.targets, self.target = images, labels, Classes(outputs)

    def batches(self, part, size, generator=None):
        assert part == "fisher"
        count = len(self.targets)
        order = torch.arange(count)
        if generator is not None:
            order = torch.randperm(count, generator=generator)
        for rows in order.split(size):
            yield self.images[rows], self.targets[rows]

    def count(self, part):
        return len(self.targets)

    def labels(self, part):
        return self.targets


@pytest.fixture(scope="module")
def ten():
    """The ten digits, 300 of them."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy(found.images[:300]).float()[:, None] / 16
    images = (images - images.mean()) / images.std()
    return Digits(images, torch.from_numpy(found.target[:300]).long(), 10)


@pytest.fixture(scope="module")
def models(ten):
    """Probes of one start: digit 0 or not, 6 or not, and which of the ten."""
    zero = Digits(ten.images, (ten.targets == 0).long(), 2)
    six = Digits(ten.images, (ten.targets == 6).long(), 2)
    return {"zero": trained(zero), "six": trained(six), "ten": trained(ten)}


def trained(data):
    model = networks.build("small-cnn", image_shape=(1, 8, 8), target=data.target, seed=1)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        for images, labels in data.batches("fisher", 32, generator):
            optimiser.zero_grad()
            data.target.loss(model(images), labels).backward()
            optimiser.step()
    return model.eval()


def side(name, model, data=None, fisher=None, brought=False, **settings):
    return SimpleNamespace(
        **{"name": name, "what": f"probe {name}, network small-cnn, trial 0", "weights": model},
        **{"data": data, "fisher": fisher, "fisher_settings": Fisher(**settings)},
        brought=brought,
    )


def compared(models, source, data, align="index", **keys):
    """The shares of d²[source, ten] as the workflow takes them."""
    f_bb = on_own_task(models["ten"], data, Fisher(**keys), "probe ten")
    measure = fisher_task.FisherTaskDistance()
    target = side("ten", None, data, f_bb, **keys)
    prepared = measure.prepare(target, FisherTask(align=align))
    return measure.compare(side(source, models[source]), prepared)


def plain_squares(model, batches, outputs):
    """Mean squared gradients by ordinary autograd, logits and rows padded with zeros."""
    model = model.double()
    total = dict.fromkeys(dict(model.named_parameters()), 0.0)
    for x, y in batches:
        model.zero_grad()
        logits = model(x.double())
        F.cross_entropy(F.pad(logits, (0, outputs - logits.shape[1])), y).backward()
        for name, value in model.named_parameters():
            total[name] = total[name] + value.grad**2 / len(batches)
    return total


def plain_distance(first, second):
    """½ Σ (√F₁ − √F₂)² by layer, the head padded; of values of unit trace."""

    def unit(values):
        rows = dict(values)
        for name in (WEIGHT, BIAS):
            missing = 10 - len(rows[name])
            rows[name] = torch.cat(
                [rows[name], rows[name].new_zeros(missing, *rows[name].shape[1:])]
            )
        trace = sum(value.sum() for value in rows.values())
        return {name: (value / trace).sqrt() for name, value in rows.items()}

    a, b = unit(first), unit(second)
    shares = {}
    for name in a:
        layer = name.rpartition(".")[0]
        shares[layer] = shares.get(layer, 0.0) + 0.5 * float((a[name] - b[name]).square().sum())
    return shares


@pytest.mark.parametrize("source", ["zero", "six"])
def test_the_measure_is_the_formula_on_the_target_s_ground(models, ten, source):
    found = compared(models, source, ten)
    singles = list(zip(ten.images.split(1), ten.targets.split(1), strict=True))
    first, second = (
        plain_squares(copy.deepcopy(models[name]), singles, 10) for name in (source, "ten")
    )
    assert list(found) == ["body.0", "body.3", "head.linear"]
    assert found == pytest.approx(plain_distance(first, second), rel=1e-4)
    assert 0 < FISHER.total(found.values()) < 1


def test_the_released_code_s_distance(models, ten):
    """Its Fisher: squares of mini-batches' gradients, averaged over each first dimension."""
    keys = {"microbatch": 10, "pool_first_dimension": True}
    found = compared(models, "zero", ten, **keys)
    batches = list(ten.batches("fisher", 10, torch.Generator().manual_seed(0)))
    pooled = []
    for name in ("zero", "ten"):
        squares = plain_squares(copy.deepcopy(models[name]), batches, 10)
        pooled.append({k: v.mean(0, keepdim=True).expand_as(v) for k, v in squares.items()})
    assert found == pytest.approx(plain_distance(*pooled), rel=1e-4)
    exact = compared(models, "zero", ten, microbatch=10)
    assert FISHER.total(found.values()) < FISHER.total(exact.values())


@pytest.mark.parametrize("estimator", ["empirical", "expected"])
@pytest.mark.parametrize("structure", ["diagonal", "kronecker"])
def test_a_task_is_at_no_distance_from_itself(models, ten, structure, estimator):
    found = compared(models, "ten", ten, structure=structure, estimator=estimator)
    assert FISHER.total(found.values()) == pytest.approx(0, abs=1e-7)


def test_a_diverged_network_is_named(models, ten):
    broken = copy.deepcopy(models["zero"])
    broken.body[0].weight.data.fill_(float("inf"))
    for align in ("index", "matching"):
        with pytest.raises(UserError, match=r"from zero to ten, probe zero, .*(finite|nan)"):
            compared(models | {"zero": broken}, "zero", ten, align)
    with pytest.raises(UserError, match=r"probe ten on its own task: .*trace is"):
        on_own_task(broken, ten, Fisher(), "probe ten")


@pytest.mark.parametrize("structure", ["diagonal", "kronecker"])
@pytest.mark.parametrize(("target", "source"), [(False, False), (False, True), (True, False)])
def test_a_pair_is_checked_where_a_user_brings_code(
    models, ten, monkeypatch, target, source, structure
):
    keys = {"structure": structure}
    f_bb = on_own_task(models["ten"], ten, Fisher(**keys), "probe ten")
    checked = []
    monkeypatch.setattr(engine, "Spots", lambda *of: checked.append(of) or Spots(*of))
    measure = fisher_task.FisherTaskDistance()
    own = side("ten", None, ten, f_bb, brought=target, **keys)
    prepared = measure.prepare(own, FisherTask())
    found = measure.compare(side("zero", models["zero"], brought=source), prepared)
    assert bool(checked) == (target or source)
    assert found == compared(models, "zero", ten, **keys)


@pytest.mark.parametrize("align", ["index", "matching"])
def test_a_network_with_another_kind_of_head_is_named(models, ten, align):
    other = copy.deepcopy(models["zero"])
    other.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(2))
    other(ten.images[:2])
    with pytest.raises(UserError, match=r"from zero to ten, probe zero, .* no layer 'linear'"):
        compared(models | {"zero": other}, "zero", ten, align)


@pytest.mark.parametrize("change", [{"more": torch.ones(2)}, {"body": torch.ones(3)}], ids=str)
def test_networks_of_different_layers_are_named(change):
    one = diagonal(np.arange(12.0))
    for pair in ((one, one | change), (one | change, one)):
        with pytest.raises(UserError, match=rf"^x: the two networks' '{min(change)}' differ"):
            distance_between(*pair, "x")


def test_micro_batches_mix_the_classes_of_sorted_files(models, ten):
    rows = ten.targets.argsort(stable=True)
    by_class = Digits(ten.images[rows], ten.targets[rows], 10)
    traces = []
    for data in (ten, by_class):
        found = on_task(models["ten"], data, Fisher(microbatch=20))
        traces.append(sum(float(value.sum()) for value in found.values()))
    assert traces[1] == pytest.approx(traces[0], rel=0.5)  # of one class only: many times as much


@pytest.mark.parametrize(("size", "images"), [(8, 256), (32, 256), (224, 5), (1000, 1)])
def test_batches_of_large_images_are_small(size, images):
    data = SimpleNamespace(
        device=torch.device("cpu"), task=SimpleNamespace(image_shape=(3, size, size))
    )
    assert batch_size(data) == images


def test_kronecker_factors_on_a_task(models, ten):
    found = on_task(models["zero"], ten, Fisher(structure="kronecker"))
    plain = on_task(models["zero"], ten, Fisher())
    assert found["head.linear:A"].shape == (129, 129) and found["body.3:B"].shape == (32, 32)
    assert found["head.linear:B"].shape == (10, 10)
    for name, value in plain.items():
        torch.testing.assert_close(found[name], value)
    assert kronecker.layers_of(found) == ["body.0", "body.3", "head.linear"]


# Label spaces -----------------------------------------------------------------------------------


def permuted(model, order):
    """A probe whose output *l* is the old output ``order[l]``."""
    twin = networks.build("small-cnn", image_shape=(1, 8, 8), target=Classes(len(order)), seed=0)
    weights = model.state_dict()
    for name in (WEIGHT, BIAS):
        weights[name] = weights[name][order]
    twin.load_state_dict(weights)
    return twin.eval()


@pytest.mark.parametrize("estimator", ["empirical", "expected"])
@pytest.mark.parametrize("source", ["zero", "ten"])
@settings(deadline=None, max_examples=5)
@given(data=st.data())
def test_matching_does_not_see_the_order_of_labels(models, ten, source, estimator, data):
    labels = data.draw(st.permutations(range(10)))
    outputs = data.draw(st.permutations(range(models[source].head.linear.out_features)))

    def distance_of(a, b, order):
        """Label *l* of the new task is label ``order[l]`` of the old one."""
        relabelled = Digits(ten.images, torch.from_numpy(np.argsort(order))[ten.targets], 10)
        f_ab = on_task(a, relabelled, Fisher(estimator=estimator), "matching")
        return distance_between(f_ab, on_task(b, relabelled, Fisher(estimator=estimator)), "x")

    plain = distance_of(models[source], models["ten"], list(range(10)))
    changed = distance_of(
        permuted(models[source], outputs), permuted(models["ten"], labels), labels
    )
    assert changed == pytest.approx(plain, rel=1e-4)


def test_matched_order_is_the_best_assignment():
    """Two outputs that swapped labels, one that no image asks for, and a label without one."""
    images = torch.eye(3)[[0, 0, 1, 1]]
    model = nn.Linear(3, 3, bias=False)
    model.weight.data = 5 * torch.eye(3)[[1, 0, 2]]
    batches = [(images, torch.tensor([0, 0, 1, 1]))]
    assert matched_order(model, batches, 2) == [1, 0, 2]
    assert matched_order(model, batches, 4)[:2] == [1, 0]
    assert sorted(matched_order(model, batches, 4), key=str) == [0, 1, 2, None]


@pytest.mark.parametrize(
    ("targets", "shape", "message"),
    [
        (torch.zeros(4), (4, 3), "are int64 \\[B\\], not float32 \\[4\\]"),
        (torch.zeros(4).long(), (4, 5, 3), "outputs \\[B, classes\\], not float32 \\[4, 5, 3\\]"),
        (torch.full((4,), 2), (4, 3), "lie in \\[0, 2\\)"),
    ],
)
def test_what_cannot_be_matched_is_refused(targets, shape, message):
    with pytest.raises(UserError, match=message):
        matched_order(nn.Linear(3, 3), [(torch.zeros(shape), targets)], 2)


# What measures declare --------------------------------------------------------------------------


def test_the_fisher_task_distance_is_registered():
    assert "fisher" in parts.MEASURES.names()
    assert parts.MEASURES.get("fisher") is FISHER
    assert parts.resolve(FISHER.make) is fisher_task.FisherTaskDistance
    assert FISHER.settings().align == "index"


def test_columns_need_no_pandas():
    code = "import sys, ftd.measures.columns; print({'torch', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_registering_imports_no_torch():
    code = "import sys, ftd.measures; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


MADE = {"make": dict, "source": ("facts",), "target": NEEDS, "lowest": -math.inf, "highest": 1.0}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"source": ("weight",)}, "unknown need 'weight'; known: weights, start"),
        ({"target": ("data", "probe")}, "unknown need 'probe'"),
        ({"lowest": 2.0}, "lowest 2.0 and highest 1.0"),
        ({"highest": math.nan}, "highest nan"),
        ({"nearer": "larger"}, "nearer 'larger': expected lower or higher"),
        ({"group": "a b"}, "group 'a b': expected letters"),
    ],
)
def test_a_wrong_declaration_is_refused(keys, message):
    Measure(**MADE)
    with pytest.raises(ValueError, match=message):
        Measure(**MADE | keys)


def test_a_wrong_combination_is_refused():
    Combination(("fisher",), max, 0.0, 1.0)
    with pytest.raises(ValueError, match="of no measures"):
        Combination((), max, 0.0, 1.0)
    with pytest.raises(ValueError, match=r"lowest 1\.0 and highest 0\.0"):
        Combination(("fisher",), max, 1.0, 0.0)
    with pytest.raises(ValueError, match="nearer 'up'"):
        Combination(("fisher",), max, 0.0, 1.0, nearer="up")


def test_parts_sum_to_a_number_of_the_range():
    measure = Measure(**MADE)
    assert measure.total([-3.0, 0.5]) == -2.5 and measure.total([0.6, 0.4 + 1e-9]) == 1
    squared = dataclasses.replace(measure, squared=True, lowest=0.5, highest=2.0)
    assert squared.total([2.0, 1.0]) == 3 and squared.total([0.25 - 1e-9]) == 0.25
    assert squared.total([4.0, 1e-9]) == 4
    for wrong in ([math.nan], [math.inf], [0.6, 0.6]):
        with pytest.raises(UserError, match=r"of leep, probe a on b: .* no number of its range"):
            measure.total(wrong, "of leep, probe a on b")
