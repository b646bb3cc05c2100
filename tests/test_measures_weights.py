"""Measures of weights and of Fisher information: each against a computation of another kind."""

import copy
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from test_measure import BIAS, WEIGHT, Digits, diagonal, nonzero, plain_squares, trained

from ftd.config.sections import Fisher
from ftd.errors import UserError
from ftd.fisher.kronecker import layers_of
from ftd.measures import FisherTask, Seen
from ftd.measures.affinity import TaskAffinity, matched_classes
from ftd.measures.displacement import BY_FISHER, PLAIN, cosine, moved
from ftd.measures.fisher_parts import BODY, LAYERS, Own, of_body, of_layers
from ftd.measures.fisher_refit import Refit
from ftd.measures.fisher_task import FisherTaskDistance, on_own_task
from ftd.measures.fitted_head import STEPS, with_fitted_head
from ftd.measures.logistic import fit, with_head
from ftd.measures.passes import seen_by
from ftd.measures.task2vec import Task2Vec, by_filter, distance, embedding
from ftd.models import networks
from ftd.parts import NETWORKS, Network
from ftd.tasks.targets.classes import Classes
from ftd.tasks.targets.dense import Dense
from ftd.tasks.targets.regression import Regression

PAD = Classes(3).pad
few = settings(deadline=None, max_examples=20)


class Side(SimpleNamespace):
    """A task with its probe, as a measure sees it."""

    def seen(self, target):
        layer = self.weights.head.linear
        return seen_by(self.weights, layer, target.data.batches("fisher", 64), self.what)


def side(name, data, **keys):
    model, how = trained(data), Fisher(**keys)
    start = networks.build("small-cnn", image_shape=(1, 8, 8), target=data.target, seed=1).eval()
    return Side(
        **{"name": name, "what": f"probe {name}", "data": data, "brought": False},
        **{"weights": model, "start": start, "fisher_settings": how},
        embedding=embedding(start, data, name),
        fisher=on_own_task(model, data, how, f"probe {name}"),
    )


@pytest.fixture(scope="module")
def sides():
    """Digit 0 or not, which of the ten, and which of the ten in another order."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy(found.images[:200]).float()[:, None] / 16
    images, labels = (images - images.mean()) / images.std(), torch.from_numpy(found.target[:200])
    tasks = {"zero": ((labels == 0).long(), 2), "ten": (labels.long(), 10)}
    return {name: side(name, Digits(images, *of)) for name, of in tasks.items()}


def number(measure, source, target, **keys):
    found = measure.compare(source, measure.prepare(target, FisherTask(**keys)))
    return sum(found.values())


def singles(data):
    return list(zip(data.images.split(1), data.targets.split(1), strict=True))


def units(squares, names):
    """A flat vector of unit trace."""
    flat = np.concatenate([squares[name].detach().double().numpy().ravel() for name in names])
    return flat / flat.sum()


def half_squares(one, other):
    return 0.5 * ((np.sqrt(one) - np.sqrt(other)) ** 2).sum()


def body_names(model):
    return [name for name, _ in model.named_parameters() if name.startswith("body")]


# Parts of the network ---------------------------------------------------------------------------


def test_fisher_body_is_the_formula_over_the_body(sides):
    zero, ten = sides["zero"], sides["ten"]
    pair = [plain_squares(copy.deepcopy(of.weights), singles(ten.data), 10) for of in (zero, ten)]
    flat = [units(squares, body_names(ten.weights)) for squares in pair]
    expected = half_squares(*flat)
    assert number(BODY, zero, ten) == pytest.approx(expected, rel=1e-4)
    assert number(BODY, ten, ten) == pytest.approx(0, abs=1e-9)
    assert number(BODY, zero, ten, align="matching") != pytest.approx(expected, rel=1e-4)
    whole = number(FisherTaskDistance(), zero, ten)
    assert 0 < expected < 1 and whole != pytest.approx(expected, rel=1e-2)


def test_fisher_layers_is_the_mean_over_layers(sides):
    zero, ten = sides["zero"], sides["ten"]
    pair = [plain_squares(copy.deepcopy(of.weights), singles(ten.data), 10) for of in (zero, ten)]
    for name in (WEIGHT, BIAS):
        rows = pair[0][name]
        pair[0][name] = torch.cat([rows, rows.new_zeros(8, *rows.shape[1:])])
    expected = {
        layer: half_squares(*[units(of, [f"{layer}.weight", f"{layer}.bias"]) for of in pair]) / 3
        for layer in layers_of(ten.fisher)
    }
    found = LAYERS.compare(zero, LAYERS.prepare(ten, FisherTask()))
    assert found == pytest.approx(expected, rel=1e-4) and list(found) == list(expected)
    assert number(LAYERS, ten, ten) == pytest.approx(0, abs=1e-9)


def test_fisher_own_is_the_formula_of_both_own(sides):
    zero, ten = sides["zero"], sides["ten"]
    flat = [units(of.fisher, body_names(ten.weights)) for of in (zero, ten)]
    expected = half_squares(*flat)
    assert number(Own(), zero, ten) == pytest.approx(expected, rel=1e-9)
    assert number(Own(), ten, zero) == pytest.approx(expected, rel=1e-9)
    assert 0 < expected < 1


@few
@given(nonzero, nonzero)
def test_layers_and_body_keep_to_their_range(a, b):
    pair = diagonal(a + np.eye(12)[0], 2), diagonal(b + np.eye(12)[0], 3)
    for numbers in (of_body, of_layers):
        same = numbers(pair[0], pair[0], PAD, "x")
        assert sum(same.values()) == pytest.approx(0, abs=1e-9)
    layers = of_layers(*(diagonal(x + np.eye(12)[0], 3) for x in (a, b)), PAD, "x")
    assert 0 <= sum(layers.values()) <= 1 + 1e-9


def test_a_layer_without_trace():
    def of(body, head):
        return {"body.0.weight": torch.tensor(body), WEIGHT: torch.tensor(head)[:, None]}

    first, second = of([1.0, 1.0], [2.0, 0.0]), of([0.0, 0.0], [0.0, 5.0])
    assert of_layers(first, second, PAD, "x") == {"body.0": 0.5, "head.linear": 0.5}
    assert of_layers(second, second, PAD, "x") == {"body.0": 0.0, "head.linear": 0.0}
    with pytest.raises(UserError, match=r"^x: the Fisher information's trace is 0"):
        of_body(first, second, PAD, "x")


@pytest.mark.parametrize("measure", [BODY, LAYERS, Refit(), TaskAffinity(), Own()])
def test_with_kronecker_factors(sides, measure):
    how = {"structure": "kronecker"}
    pair = []
    for of in sides.values():
        other = Side(**vars(of))
        other.fisher_settings = Fisher(**how)
        other.fisher = on_own_task(of.weights, of.data, Fisher(**how), "x")
        pair.append(other)
    found = number(measure, *pair)
    assert 0 < found < 1 and found != pytest.approx(number(measure, *sides.values()), rel=1e-3)


# A head fitted anew -----------------------------------------------------------------------------


def test_logistic_regression_is_scikit_learn_s():
    draw = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = 100 * (draw.normal(size=(3, 5))[y] + draw.normal(size=(60, 5))).astype(np.float32)
    weights, biases = fit(torch.from_numpy(x), torch.from_numpy(y), 3)
    scale = np.sqrt((x.astype(np.float64) ** 2).mean())
    model = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(x / scale, y)
    np.testing.assert_allclose(weights * scale, model.coef_, atol=1e-3)
    ours, theirs = (b - b.mean() for b in (biases.numpy(), model.intercept_))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_a_label_that_does_not_occur_and_features_of_zero():
    x, y = torch.zeros(8, 4), torch.tensor([0, 2] * 4)
    weights, biases = fit(x, y, 3)
    assert weights.shape == (3, 4) and (weights == 0).all() and biases.isfinite().all()
    shares = biases.softmax(0)
    assert shares[1] < 1e-3 and shares[0] == pytest.approx(0.5, abs=1e-3)


def test_fisher_refit_is_the_formula_with_the_fitted_head(sides):
    zero, ten = sides["zero"], sides["ten"]
    before = copy.deepcopy(zero.weights.state_dict())
    model = with_head(zero.weights, zero.seen(ten), 10)
    assert model.head.linear.out_features == 10 and not model.training
    right = model(ten.data.images).argmax(1) == ten.data.targets
    assert right.double().mean() > 0.9
    pair = [plain_squares(copy.deepcopy(of), singles(ten.data), 10) for of in (model, ten.weights)]
    expected = half_squares(*[units(squares, body_names(model)) for squares in pair])
    assert number(Refit(), zero, ten) == pytest.approx(expected, rel=1e-4)
    for name, value in zero.weights.state_dict().items():
        assert value.equal(before[name])


@pytest.mark.parametrize("network", ["small-cnn", "small-pooled"])
def test_a_head_on_a_dense_source_is_that_of_one_of_classes(network, sides, registered):
    """Of one body, the network of maps and that of classes are told apart by nothing."""
    registered(NETWORKS, "small-pooled", Network(NETWORKS.get("small-cnn").build, pooled=True))
    ten = sides["ten"]
    same = {"image_shape": (1, 8, 8), "seed": 0}
    depth = Dense(Regression(1, [0.0], [1.0]))
    ours, dense = (
        networks.build(network, target=target, **same).eval() for target in (Classes(2), depth)
    )
    seen = Side(weights=ours, what="ours").seen(ten)
    wanted, found = with_head(ours, seen, 10).state_dict(), with_fitted_head(dense, ten.data)
    assert found.head.linear.in_features == (32 if network == "small-pooled" else 128)
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-5)


def test_a_plugin_s_accuracy_is_no_logistic_regression(sides):
    """Its own loss fits its head, whatever it calls its score and its layers."""
    ten, zero = sides["ten"], sides["zero"]
    asked = []

    class Own(Classes):
        def loss(self, outputs, targets):
            asked.append(len(outputs))
            return outputs.square().sum(1).mean() + super().loss(outputs, targets)

    data = copy.copy(ten.data)
    data.target = Own(10)
    data.task = SimpleNamespace(image_shape=(1, 8, 8), facts={"target": {"kind": "own"}})
    measure, target = Refit(), Side(**vars(ten) | {"data": data})
    measure.compare(zero, measure.prepare(target, FisherTask()))
    assert len(asked) == STEPS  # Fisher information leaves the loss as it found it


# Task affinity ----------------------------------------------------------------------------------


def test_classes_are_matched_by_the_least_total_distance():
    draw = np.random.default_rng(1)
    own, other = (
        Seen(torch.from_numpy(draw.normal(size=(40, 3))), torch.zeros(40, outputs), labels)
        for outputs, labels in ((4, torch.arange(40) % 4), (3, torch.arange(40) % 3))
    )
    centres = [
        [of.features[of.labels == k].mean(0) for k in range(n)] for of, n in ((own, 4), (other, 3))
    ]
    cost = np.array([[float((a - b).norm()) for a in centres[0]] for b in centres[1]])
    best = min(itertools.permutations(range(4), 3), key=lambda at: cost[range(3), list(at)].sum())
    rest = [*({0, 1, 2, 3} - {*best})]
    assert matched_classes(own, other, 3) == [*best, *rest]
    back = matched_classes(other, own, 4)
    assert back == [best.index(output) if output in best else None for output in range(4)]


def test_a_label_without_images_has_no_partner():
    own = Seen(torch.eye(3), torch.zeros(3, 4), torch.tensor([0, 1, 3]))
    other = Seen(torch.eye(3)[:2], torch.zeros(2, 4), torch.tensor([2, 0]))
    assert matched_classes(own, other, 3) == [1, None, 0, 2, 3]


@pytest.mark.parametrize("names", [("zero", "ten"), ("ten", "zero")])
def test_task_affinity_is_the_formula_of_one_network_on_two_tasks(sides, names):
    source, target = (sides[name] for name in names)
    labels = target.data.target.outputs
    order = matched_classes(source.seen(source), source.seen(target), labels)
    model = networks.build("small-cnn", image_shape=(1, 8, 8), target=Classes(len(order)), seed=0)
    state = copy.deepcopy(source.weights.state_dict())
    outputs = source.weights.head.linear.out_features
    own = plain_squares(copy.deepcopy(source.weights), singles(source.data), outputs)
    for values in (state, own):
        for name in (WEIGHT, BIAS):
            padded = torch.cat([values[name], values[name].new_zeros(1, *values[name].shape[1:])])
            values[name] = padded[[-1 if output is None else output for output in order]]
    model.load_state_dict(state)
    other = plain_squares(model, singles(target.data), len(order))
    for label, output in enumerate(order):  # rows that are none have no gradient
        for name in (WEIGHT, BIAS) if output is None else ():
            other[name][label] = 0
    expected = half_squares(*[units(of, [*state]) for of in (own, other)])
    assert number(TaskAffinity(), source, target) == pytest.approx(expected, rel=1e-4)
    assert 0 < expected < 1
    assert number(TaskAffinity(), source, source) == pytest.approx(0, abs=1e-9)


def test_task_affinity_does_not_see_the_order_of_labels(sides):
    zero, ten = sides["zero"], sides["ten"]
    order = torch.from_numpy(np.random.default_rng(2).permutation(10))
    again = Side(**vars(ten))
    again.data = Digits(ten.data.images, order[ten.data.targets], 10)
    found = number(TaskAffinity(), zero, again)
    assert found == pytest.approx(number(TaskAffinity(), zero, ten), rel=1e-5)


# Displacement -----------------------------------------------------------------------------------


def flat_move(of):
    pairs = zip(of.weights.body.parameters(), of.start.body.parameters(), strict=True)
    return np.concatenate([(a.double() - b.double()).detach().numpy().ravel() for a, b in pairs])


def test_displacement_is_the_cosine_of_both_moves(sides):
    zero, ten = sides["zero"], sides["ten"]
    first, second = flat_move(zero), flat_move(ten)
    expected = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert number(PLAIN, zero, ten) == pytest.approx(expected, rel=1e-9)
    metric = sum(units(of.fisher, body_names(of.weights)) for of in (zero, ten))
    first, second = (np.sqrt(metric) * move for move in (first, second))
    weighted = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert number(BY_FISHER, zero, ten) == pytest.approx(weighted, rel=1e-9)
    assert weighted != pytest.approx(expected, rel=1e-3)
    for measure in (PLAIN, BY_FISHER):
        assert number(measure, ten, ten) == pytest.approx(1)
        assert number(measure, ten, zero) == pytest.approx(number(measure, zero, ten))


@pytest.mark.parametrize("measure", [PLAIN, BY_FISHER])
def test_a_network_that_did_not_move_is_named(sides, measure):
    still = Side(**vars(sides["zero"]))
    still.weights = still.start
    for pair in ((still, sides["ten"]), (sides["ten"], still)):
        with pytest.raises(UserError, match=r"^distance from .*, probe .*: .* where it started"):
            number(measure, *pair)


@few
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_the_cosine_s_range_and_scale(seed, scale):
    draw = torch.Generator().manual_seed(seed)
    one, other, metric = (
        {
            "a": torch.randn(4, generator=draw).double(),
            "b": torch.randn(2, 2, generator=draw).double(),
        }
        for _ in range(3)
    )
    metric = {name: value.square() for name, value in metric.items()}
    for weights in (None, metric):
        found = cosine(one, other, weights)
        assert -1 - 1e-9 <= found <= 1 + 1e-9
        longer = {name: -scale * value for name, value in one.items()}
        assert cosine(longer, other, weights) == pytest.approx(-found)
        assert cosine(one, longer, weights) == pytest.approx(-1)


def test_buffers_and_heads_do_not_move(sides):
    ten = sides["ten"]
    assert moved(ten.weights, ten.start).keys() == {*body_names(ten.weights)}
    normed = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
    assert moved(normed, copy.deepcopy(normed)).keys() == {"0.weight", "0.bias"}


# Task2Vec ---------------------------------------------------------------------------------------


def test_an_embedding_is_the_mean_by_filter_of_the_fitted_start(sides):
    ten = sides["ten"]
    layer = ten.start.head.linear
    seen = seen_by(ten.start, layer, ten.data.batches("fisher", 64), "x")
    model = with_head(ten.start, seen, 10).double()
    shares = model(ten.data.images.double()).softmax(1).detach()
    total = dict.fromkeys(("body.0.weight", "body.3.weight"), 0.0)
    for label in range(10):
        for image, share in zip(ten.data.images.double(), shares[:, label], strict=True):
            model.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(image[None]), torch.tensor([label]))
            loss.backward()
            for name in total:
                total[name] = total[name] + share * model.get_parameter(name).grad ** 2 / 200
    expected = torch.cat([value.mean((1, 2, 3)) for value in total.values()])
    found = embedding(ten.start, ten.data, "x")
    assert found.shape == (48,) and found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-9)


def test_task2vec_is_the_cosine_of_shares(sides):
    zero, ten = sides["zero"], sides["ten"]
    one, other = (embedding(of.start, of.data, "x").numpy() for of in (zero, ten))
    kept = one + other > 0
    one, other = one[kept] / (one + other)[kept], other[kept] / (one + other)[kept]
    expected = 1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    assert number(Task2Vec(), zero, ten) == pytest.approx(expected, rel=1e-9)
    assert number(Task2Vec(), ten, zero) == pytest.approx(expected, rel=1e-9)
    assert number(Task2Vec(), ten, ten) == pytest.approx(0, abs=1e-9)
    assert 0 < expected < 1


@few
@given(nonzero, nonzero, st.floats(1e-3, 1e3))
def test_task2vec_s_range_symmetry_and_scale(a, b, scale):
    one, other = torch.from_numpy(a), torch.from_numpy(b)
    found = distance(one, other)
    assert -1e-9 <= found <= 1 + 1e-9 and found == pytest.approx(distance(other, one))
    assert distance(one * scale, other * scale) == pytest.approx(found)
    assert distance(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0])) == 1


def test_filters_leave_out_biases_and_heads(sides):
    information = {
        "body.a.weight": torch.arange(12.0).reshape(2, 3, 2, 1),
        "body.a.bias": torch.ones(2),
    }
    information |= {"body.n.weight": torch.ones(2), WEIGHT: torch.ones(3, 3)}
    assert by_filter(information).tolist() == [2.5, 8.5]


def test_a_start_without_a_head_of_classes_is_named(sides):
    other = copy.deepcopy(sides["ten"].start)
    other.head = torch.nn.Flatten()
    with pytest.raises(UserError, match=r"^x: the network's head has no layer 'linear'"):
        embedding(other, sides["ten"].data, "x")
