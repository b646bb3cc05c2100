"""Measures of what a network sees of a task: each against a computation of another kind."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier

from ftd.errors import UserError
from ftd.measures import Seen
from ftd.measures.baselines import CLASSES, SOURCE_ACCURACY
from ftd.measures.cka import LABELS, Features, cka
from ftd.measures.hscore import HSCORE, HSCORE_SHRUNK, hscore, hscore_shrunk
from ftd.measures.knn import KNN, knn
from ftd.measures.leep import LEEP, leep
from ftd.measures.linear_probe import LINEAR_PROBE, PENALTIES, folds, left_out, linear_probe
from ftd.measures.logme import LOGME, logme
from ftd.measures.nce import NCE, nce
from ftd.measures.of_seen import one_hot
from ftd.measures.spectrum import spectrum

seeds = st.integers(0, 2**32 - 1)
few = settings(deadline=None, max_examples=15)
OF_OUTPUTS = {"leep": leep, "nce": nce}
OF_FEATURES = {
    **{"logme": logme, "hscore": hscore, "hscore-shrunk": hscore_shrunk},
    "cka-labels": lambda x, y: cka(x, one_hot(y)),
    **{"linear-probe": linear_probe, "knn": knn},
}
WIDTHS = pytest.mark.parametrize("width", [6, 60], ids=["narrow", "wide"])


def made(seed=0, count=40, width=6, labels=3, noise=1.0):
    """Features whose means differ by label, and labels of unequal frequency that all occur."""
    draw = np.random.default_rng(seed)
    y = np.concatenate([np.arange(labels), draw.integers(0, labels, count - labels) ** 2 % labels])
    means = draw.normal(size=(labels, width))
    x = 0.5 + means[y] + noise * draw.normal(size=(count, width))
    return torch.from_numpy(x).float(), torch.from_numpy(y)


def outputs_of(seed, count=40, outputs=4):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, outputs)) * 3).float()


# Of outputs -------------------------------------------------------------------------------------


def test_leep_is_its_definition():
    outputs, (_, y) = outputs_of(1), made()
    shares = torch.softmax(outputs.double(), 1).tolist()
    labels, n = y.tolist(), len(y)
    total = 0.0
    for theta, label in zip(shares, labels, strict=True):
        expected = 0.0
        for z, share in enumerate(theta):
            of_z = sum(other[z] for other in shares) / n
            both = sum(o[z] for o, k in zip(shares, labels, strict=True) if k == label) / n
            expected += both / of_z * share
        total += math.log(expected)
    assert leep(outputs, y) == pytest.approx(total / n, rel=1e-12)


def test_leep_of_sure_outputs_is_the_conditional_entropy():
    outputs, (_, y) = outputs_of(2), made()
    assert leep(outputs * 1e6, y) == pytest.approx(nce(outputs, y), abs=1e-9)


def test_leep_of_outputs_that_know_nothing_is_the_labels_entropy():
    _, y = made()
    shares = torch.bincount(y).double() / len(y)
    expected = float((shares * shares.log()).sum())
    assert leep(torch.zeros(len(y), 5), y) == pytest.approx(expected)
    assert nce(torch.zeros(len(y), 5), y) == pytest.approx(expected)


def test_leep_where_no_image_has_a_share_in_an_output():
    outputs = torch.tensor([[0.0, 0.0, -1e5]] * 4)
    assert leep(outputs, torch.tensor([0, 1, 0, 1])) == pytest.approx(math.log(0.5))


def test_nce_is_the_conditional_entropy():
    outputs, (_, y) = outputs_of(3), made()
    joint = np.histogram2d(y.numpy(), outputs.argmax(1).numpy(), bins=[range(4), range(5)])[0]
    joint /= joint.sum()
    entropy = [-(p[p > 0] * np.log(p[p > 0])).sum() for p in (joint.ravel(), joint.sum(0))]
    assert nce(outputs, y) == pytest.approx(entropy[1] - entropy[0])  # H(Z) − H(Y, Z)


@pytest.mark.parametrize("name", OF_OUTPUTS)
@few
@given(seeds)
def test_of_outputs_range_and_names_of_labels(name, seed):
    number = OF_OUTPUTS[name]
    outputs, (_, y) = outputs_of(seed), made(seed)
    found = number(outputs, y)
    assert -math.inf < found <= 1e-12
    assert number(outputs[:, [2, 0, 3, 1]], y) == pytest.approx(found, abs=1e-9)
    assert number(outputs, torch.tensor([5, 9, 2])[y]) == pytest.approx(found, abs=1e-9)
    assert number(outputs, torch.full_like(y, 7)) == pytest.approx(0, abs=1e-12)


# Of features ------------------------------------------------------------------------------------


def evidence(x, y, alpha, beta):
    """log p(y | X, α, β), the weights integrated out."""
    covariance = np.eye(len(y)) / beta + x @ x.T / alpha
    return multivariate_normal.logpdf(y, np.zeros(len(y)), covariance)


@WIDTHS
def test_logme_is_the_largest_evidence(width):
    x, y = made(4, width=width, noise=3.0)
    total = 0.0
    for label in range(3):
        own = (y == label).double().numpy()
        best = optimize.minimize(
            lambda logs, own=own: -evidence(x.double().numpy(), own, *np.exp(logs)),
            np.zeros(2),
            method="Nelder-Mead",
            options={"xatol": 1e-6, "fatol": 1e-10, "maxiter": 2000},
        )
        total -= best.fun / len(y)
    assert logme(x, y) == pytest.approx(total / 3, abs=1e-7)


def test_logme_is_what_the_fixed_point_climbs_to():
    """You et al. 2021, algorithm 1, with matrices as they stand there."""
    x, y = made(5, count=60)
    features, total = x.double().numpy(), 0.0
    for label in range(3):
        own, alpha, beta = (y == label).double().numpy(), 1.0, 1.0
        for _ in range(2000):
            inverse = np.linalg.inv(alpha * np.eye(6) + beta * features.T @ features)
            mean = beta * inverse @ features.T @ own
            gamma = 6 - alpha * np.trace(inverse)
            alpha = gamma / (mean @ mean)
            beta = (len(own) - gamma) / ((features @ mean - own) ** 2).sum()
        total += evidence(features, own, alpha, beta) / len(own)
    assert logme(x, y) == pytest.approx(total / 3, abs=1e-9)


def test_logme_of_features_that_fit_exactly_or_say_nothing():
    _, y = made()
    own = one_hot(y)
    exact = logme(own.float(), y)
    assert exact > logme(own.float() + 0.1 * torch.randn(own.shape), y) and math.isfinite(exact)
    by_hand = [-0.5 * (math.log(2 * math.pi * share) + 1) for share in own.mean(0).tolist()]
    assert logme(torch.zeros(40, 5), y) == pytest.approx(np.mean(by_hand))


def between(x, y):
    """Covariance of the labels' mean features."""
    means = torch.stack([x[y == label].mean(0) for label in y])
    return np.cov(means.numpy(), rowvar=False, ddof=0)


@WIDTHS
def test_hscore_is_its_definition(width):
    x, y = made(6, width=width)
    x = x.double()
    inverse = np.linalg.pinv(np.cov(x.numpy(), rowvar=False, ddof=0), rcond=1e-9)
    assert hscore(x, y) == pytest.approx(np.trace(inverse @ between(x, y)), rel=1e-6)
    if width > 40:
        assert hscore(x, y) == pytest.approx(2)  # any labels are told apart


@WIDTHS
def test_shrunk_hscore_is_its_definition(width):
    x, y = made(7, width=width)
    covariance, share = ledoit_wolf(x.double().numpy())
    expected = np.trace(np.linalg.inv(covariance) @ between(x.double(), y)) * (1 - share)
    assert 0 < share < 1
    assert hscore_shrunk(x, y) == pytest.approx(expected, rel=1e-6)


@WIDTHS
@pytest.mark.parametrize("other", [3, 80])
def test_cka_is_the_alignment_of_kernels(width, other):
    """‖K‖ of matrices [N, N] centred from both sides (Cortes et al. 2012)."""
    x, y = (made(seed, width=columns)[0].double() for seed, columns in ((8, width), (9, other)))
    centre = torch.eye(40).double() - 1 / 40
    first, second = (centre @ of @ of.T @ centre for of in (x, y))
    expected = (first * second).sum() / (first.norm() * second.norm())
    assert cka(x, y) == pytest.approx(float(expected), rel=1e-9)
    assert cka(x, x) == pytest.approx(1)


@WIDTHS
def test_linear_probe_is_ridge_regression_fitted_anew(width):
    x, y = made(10, width=width, noise=2.0)
    of = spectrum(x)
    fold, targets, best = folds(y), one_hot(y), (np.inf, None)
    for penalty in PENALTIES:
        own, said = penalty * float(of.squares.mean()), torch.empty_like(targets)
        for number in range(5):
            rest = fold != number
            model = Ridge(alpha=own).fit(x.double()[rest].numpy(), targets[rest].numpy())
            said[~rest] = torch.from_numpy(model.predict(x.double()[~rest].numpy()))
        torch.testing.assert_close(left_out(of, targets, fold, own), said, atol=1e-6, rtol=0)
        right = (said.argmax(1) == y).double().mean()
        best = min(best, (float((said - targets).square().sum()), float(right)))
    assert linear_probe(x, y) == pytest.approx(best[1])
    assert 1 / 3 < best[1] < 1


def test_folds_have_their_part_of_every_label():
    _, y = made(count=50)
    counts = torch.stack([torch.bincount(y[folds(y) == fold], minlength=3) for fold in range(5)])
    assert counts.sum() == 50 and (counts.amax(0) - counts.amin(0)).max() <= 1


def test_knn_is_the_vote_of_the_others():
    x, y = made(11, noise=2.0)
    right = 0
    for own in range(40):
        rest = np.arange(40) != own
        model = KNeighborsClassifier(5, metric="cosine", algorithm="brute").fit(x[rest], y[rest])
        near, at = model.kneighbors(x[own : own + 1])
        votes = [
            ((y[rest][at[0]] == k).sum(), -near[0][y[rest][at[0]] == k].sum()) for k in (0, 1, 2)
        ]
        most = max(count for count, _ in votes)
        tied = [k for k, (count, _) in enumerate(votes) if count == most]
        near_sum = {
            k: sum(1 - d for d, a in zip(near[0], at[0], strict=True) if y[rest][a] == k)
            for k in tied
        }
        right += max(tied, key=near_sum.get) == int(y[own])
    assert knn(x, y) == pytest.approx(right / 40)
    assert 1 / 3 < knn(x, y) < 1


def test_knn_of_few_images_that_are_not_alike():
    """An image is no neighbour of its own, however far the others are."""
    x = torch.eye(4) - 0.25
    assert knn(x, torch.tensor([0, 0, 1, 1])) == 0  # one of its own label, two of the other
    assert knn(x, torch.tensor([0, 0, 0, 1])) == 0.75


def test_knn_s_votes_that_are_equal_are_decided_by_similarity():
    x = torch.tensor([[1.0, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1]])
    y = torch.tensor([0, 0, 0, 1, 1])  # of four neighbours, two have each label: of the first three
    assert knn(x, y) == pytest.approx(3 / 5)  # the last two have one of their own among four
    assert knn(x, torch.tensor([1, 1, 1, 0, 0])) == pytest.approx(3 / 5)


@WIDTHS
@pytest.mark.parametrize("name", OF_FEATURES)
@settings(deadline=None, max_examples=5)
@given(seed=seeds)
def test_of_features_range_and_what_does_not_matter(name, width, seed):
    number, (x, y) = OF_FEATURES[name], made(seed, width=width)
    found = number(x, y)
    highest = {"logme": math.inf, "hscore": 2.0, "hscore-shrunk": 2.0}.get(name, 1.0)
    lowest = -math.inf if name == "logme" else 0.0
    assert lowest - 1e-9 <= found <= highest + 1e-9 and math.isfinite(found)
    assert number(x * 8, y) == pytest.approx(found, abs=1e-6)
    names = torch.tensor([5, 9, 2])[y]
    assert number(x, names) == pytest.approx(found, abs=1e-9)
    turned = torch.linalg.qr(
        torch.from_numpy(np.random.default_rng(seed).normal(size=(width,) * 2))
    )
    rotated = (x.double() @ turned.Q).float()
    assert number(rotated, y) == pytest.approx(
        found, abs=0.026 if name in ("knn", "linear-probe") else 1e-4
    )


@pytest.mark.parametrize("name", OF_FEATURES)
def test_better_features_are_nearer(name):
    x, y = made(12, count=90, noise=4.0)
    number = OF_FEATURES[name]
    assert number(torch.cat([2 * one_hot(y).float(), x * 0.01], 1), y) > number(x, y) + 0.05


@pytest.mark.parametrize("name", sorted({*OF_FEATURES} - {"hscore", "hscore-shrunk"}))
def test_one_label_alone_has_no_number(name):
    x, _ = made()
    with pytest.raises(UserError, match=r"one label|no CKA"):
        OF_FEATURES[name](x, torch.ones(40).long())


@pytest.mark.parametrize("name", OF_FEATURES)
@pytest.mark.parametrize("value", [0.0, 0.1, 3e7])
def test_constant_features(name, value):
    x, y = torch.full((40, 50), value), made()[1]
    if name == "cka-labels":
        with pytest.raises(UserError, match="the same for all images"):
            OF_FEATURES[name](x, y)
        return
    found = OF_FEATURES[name](x, y)
    assert math.isfinite(found)
    if name.startswith("hscore"):
        assert found == 0


def test_hscore_of_one_label_is_nothing():
    x, _ = made()
    for number in (hscore, hscore_shrunk):
        assert number(x, torch.ones(40).long()) == pytest.approx(0, abs=1e-12)


def test_as_few_images_as_labels():
    x, y = torch.eye(2), torch.arange(2)
    for name, number in OF_FEATURES.items():
        assert math.isfinite(number(x, y)), name


@WIDTHS
def test_spectrum_is_the_singular_value_decomposition(width):
    x, _ = made(13, width=width)
    x = x.double()
    found, matrix = spectrum(x), x - x.mean(0)
    _, values, right = torch.linalg.svd(matrix, full_matrices=False)
    rank = min(width, 39)
    assert len(found.squares) == rank and found.width == width
    torch.testing.assert_close(found.squares.flip(0), values[:rank].square())
    own = found.left.T @ found.left
    torch.testing.assert_close(own, torch.eye(rank).double(), atol=1e-7, rtol=0)
    torch.testing.assert_close(found.left @ (found.left.T @ matrix), matrix)
    torch.testing.assert_close(found.mean, x.mean(0).square().sum())
    across = (values * (right @ x.mean(0)))[:rank].abs()  # but for signs of vectors
    torch.testing.assert_close(found.across.abs().flip(0), across)


# As measures ------------------------------------------------------------------------------------


def side(name, see):
    return SimpleNamespace(name=name, what=f"probe {name}", seen=see)


SEEN = Seen(made(14)[0], outputs_of(14), made(14)[1])
NUMBERS = {
    "leep": (LEEP, lambda: leep(SEEN.outputs, SEEN.labels)),
    "nce": (NCE, lambda: nce(SEEN.outputs, SEEN.labels)),
    "logme": (LOGME, lambda: logme(SEEN.features, SEEN.labels)),
    "hscore": (HSCORE, lambda: hscore(SEEN.features, SEEN.labels)),
    "hscore-shrunk": (HSCORE_SHRUNK, lambda: hscore_shrunk(SEEN.features, SEEN.labels)),
    "cka-labels": (LABELS, lambda: cka(SEEN.features, one_hot(SEEN.labels))),
    "linear-probe": (LINEAR_PROBE, lambda: linear_probe(SEEN.features, SEEN.labels)),
    "knn": (KNN, lambda: knn(SEEN.features, SEEN.labels)),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_measure_is_its_function_of_what_the_source_sees(name):
    measure, expected = NUMBERS[name]
    target = side("b", None)
    asked = []
    source = side("a", lambda of: asked.append(of) or SEEN)
    assert measure.compare(source, measure.prepare(target, None)) == {"whole": expected()}
    assert asked == [target]
    assert len({id(one) for one, _ in NUMBERS.values()}) == len(NUMBERS)


@pytest.mark.parametrize("name", ["logme", "cka-labels", "linear-probe", "knn"])
def test_a_pair_without_a_number_is_named(name):
    alone = Seen(SEEN.features, SEEN.outputs, torch.zeros(40).long())
    measure = NUMBERS[name][0]
    with pytest.raises(UserError, match=r"^probe a on b: (the 40 images have one label|features)"):
        measure.compare(side("a", lambda of: alone), side("b", None))


def test_cka_of_features_is_of_both_networks_on_the_target():
    own = Seen(made(15, width=9)[0], SEEN.outputs, SEEN.labels)
    target = side("b", lambda of: own)
    measure = Features()
    prepared = measure.prepare(target, None)
    found = measure.compare(side("a", lambda of: SEEN), prepared)
    assert found == {"whole": cka(SEEN.features, own.features)}
    assert measure.compare(target, prepared)["whole"] == pytest.approx(1)
    same = Seen(torch.ones(40, 3), SEEN.outputs, SEEN.labels)
    with pytest.raises(UserError, match=r"^probe a on b: features or labels are the same"):
        measure.compare(side("a", lambda of: same), prepared)


def test_baselines_are_facts_of_the_source():
    source = SimpleNamespace(
        what="probe a", facts={"labels": ["other", "cat", "dog"], "val_accuracy": 0.75}
    )
    assert CLASSES.compare(source, CLASSES.prepare(None, None)) == {"whole": 3.0}
    assert SOURCE_ACCURACY.compare(source, None) == {"whole": 0.75}
    source.facts = {"val_accuracy": None}
    for measure, fact in ((CLASSES, "labels"), (SOURCE_ACCURACY, "val_accuracy")):
        with pytest.raises(UserError, match=f"^probe a: its facts have no {fact}"):
            measure.compare(source, None)
