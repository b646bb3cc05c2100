"""Likelihoods, scores and draws of dense targets, against SciPy, closed forms and cases by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ive, log_softmax

from ftd.errors import UserError
from ftd.tasks.slices import _MEMBERS
from ftd.tasks.targets.binary_maps import BinaryMaps
from ftd.tasks.targets.classes import Classes
from ftd.tasks.targets.dense import DRAWS, Dense, measured
from ftd.tasks.targets.pixel_classes import PixelClasses
from ftd.tasks.targets.regression import METRICS, Regression
from ftd.tasks.targets.unit_vectors import UnitVectors

KINDS = {
    "regression": lambda: Regression(2, [3.0, 1.0], [0.5, 2.0]),
    "delta1": lambda: Regression(1, [3.0], [1.0], "delta1"),
    "psnr": lambda: Regression(3, [0.4, 0.5, 0.6], [0.2, 0.2, 0.3], "psnr"),
    "vectors": UnitVectors,
    "binary": lambda: BinaryMaps(2),
    "classes": lambda: PixelClasses(4),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
nan = math.nan


def unit(vectors: torch.Tensor) -> torch.Tensor:
    return vectors / vectors.norm(dim=1, keepdim=True)


def case(kind: str, samples: int = 3, size=(4, 5), seed: int = 0, dtype=torch.float64):
    """A target, outputs and targets of which about a third is not measured."""
    generator = torch.Generator().manual_seed(seed)
    target = Dense(KINDS[kind]())
    outputs = torch.randn(samples, target.outputs, *size, generator=generator, dtype=dtype)
    absent = torch.rand(samples, 1, *size, generator=generator) < 1 / 3
    if kind == "classes":
        labels = torch.randint(4, (samples, *size), generator=generator)
        return target, outputs, torch.where(absent[:, 0], -1, labels)
    values = torch.randn(outputs.shape, generator=generator, dtype=dtype)
    if kind == "vectors":
        values = unit(values)
    elif kind == "binary":
        values = (values > 0.3).to(dtype)
    if kind != "vectors":  # single channels too
        absent = absent | (torch.rand(outputs.shape, generator=generator) < 0.1)
    return target, outputs, torch.where(absent, nan, values)


def densities(kind: str, outputs: np.ndarray, targets: np.ndarray) -> float:
    """Σ log p of a sample's measured pixels, by SciPy, without ½ log 2π and log 4π of each."""
    total = 0.0
    for place in np.ndindex(*outputs.shape[1:]):
        at = (slice(None), *place)
        o, t = outputs[at], targets[place] if kind == "classes" else targets[at]
        if kind == "classes":
            total += log_softmax(o)[t] if t >= 0 else 0
        elif kind == "vectors":
            length = np.linalg.norm(o)
            law = stats.vonmises_fisher(o / length, length)
            total += law.logpdf(t) + math.log(4 * math.pi) if not np.isnan(t).any() else 0
        else:
            o, t = o[~np.isnan(t)], t[~np.isnan(t)]
            if kind == "binary":
                rarer = np.where(o > 0, 1 - t, t)  # whose probability keeps its digits
                total += stats.bernoulli.logpmf(rarer, 1 / (1 + np.exp(np.abs(o)))).sum()
            else:
                total += (stats.norm(o).logpdf(t) + math.log(2 * math.pi) / 2).sum()
    return total


def gradient(target: Dense, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Of every sample's own loss, in the outputs' shape."""
    outputs = outputs.clone().requires_grad_(True)
    (target.loss(outputs, targets) * len(outputs)).backward()
    return outputs.grad


# Losses -----------------------------------------------------------------------------------------


@every_kind
def test_losses_are_negative_log_likelihoods_summed_over_what_was_measured(kind):
    target, outputs, targets = case(kind)
    outputs = outputs * torch.tensor([0.01, 1.0, 30.0])[:, None, None, None]
    each = [densities(kind, o.numpy(), t.numpy()) for o, t in zip(outputs, targets, strict=True)]
    assert float(target.loss(outputs, targets)) == pytest.approx(-np.mean(each), rel=1e-10)
    alone = [target.loss(o[None], t[None]) for o, t in zip(outputs, targets, strict=True)]
    np.testing.assert_allclose(torch.stack(alone), np.negative(each), rtol=1e-10)
    half, single = outputs.bfloat16(), targets if kind == "classes" else targets.float()
    assert target.loss(half, single).dtype == torch.float32
    assert torch.equal(target.loss(half, single), target.loss(half.float(), single))


@every_kind
def test_losses_of_single_samples_are_taken_together(kind):
    """What Fisher information's batched pass needs of them."""
    target, outputs, targets = case(kind)
    together = torch.func.vmap(target.loss)(outputs[:, None], targets[:, None])
    alone = [target.loss(o[None], t[None]) for o, t in zip(outputs, targets, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-12, atol=0)


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-8, 1.0, 1e4, 1e15])
def test_gradients_are_finite_and_zero_where_nothing_was_measured(kind, dtype, scale):
    target, outputs, targets = case(kind, dtype=dtype)
    found = gradient(target, outputs * scale, targets)
    valid = measured(targets)
    if kind == "classes":
        valid = valid[:, None].expand(outputs.shape)
    assert found.isfinite().all() and (found[~valid] == 0).all()
    assert found[valid].any()


@settings(deadline=None, max_examples=60)
@given(st.floats(1e-9, 1e8), st.integers(0, 100))
def test_the_gradient_of_unit_vectors_is_that_of_bessel_functions(k, seed):
    """∂/∂o = A(k) o/k − y, with A(k) = I_{3/2}(k) / I_{1/2}(k) the mean cosine."""
    mean, y = unit(torch.randn(2, 3, 1, 1, generator=torch.Generator().manual_seed(seed)).double())
    expected = ive(1.5, k) / ive(0.5, k) * mean - y
    found = gradient(Dense(UnitVectors()), k * mean[None], y[None])[0]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@every_kind
def test_a_sample_of_which_nothing_was_measured_has_no_loss_and_no_score(kind):
    target, outputs, targets = case(kind)
    absent = torch.full_like(targets, -1 if kind == "classes" else nan)
    found = gradient(target, outputs, absent)
    assert float(target.loss(outputs, absent)) == 0 and not found.any()
    assert target.scores(outputs, absent).tolist() == [0, 0, 0]
    assert target.most_frequent(absent.numpy()) == 0


@every_kind
def test_outputs_of_another_kind_are_refused(kind):
    target, outputs, targets = case(kind)
    wanted = rf"outputs \[B, {target.outputs}, H, W\] .* got \[3, {target.outputs + 1}, 4, 5\]"
    for check in (target.loss, target.scores):
        with pytest.raises(UserError, match=wanted):
            check(torch.cat([outputs, outputs[:, :1]], 1), targets)
        with pytest.raises(UserError, match="of the targets' height and width"):
            check(outputs[..., :1], targets)


# Annotations ------------------------------------------------------------------------------------


def test_numbers_are_standardised_by_channel():
    target = Dense(Regression(2, [3.0, 1.0], [0.5, 2.0]))
    given = torch.tensor([[4.0, 3.0, nan], [5.0, -1.0, math.inf]], dtype=torch.float64)
    found = target.encode(given.view(1, 2, 1, 3))
    wanted = [[2.0, 0.0, nan], [2.0, -1.0, nan]]
    np.testing.assert_array_equal(found[0, :, 0], wanted)
    assert found.dtype == torch.float32


def test_directions_get_unit_length():
    given = torch.tensor([[3.0, 0.0, nan], [0.0, 0.0, 1.0], [4.0, 0.0, 1.0]]).view(1, 3, 1, 3)
    found = Dense(UnitVectors()).encode(given)[0, :, 0]
    np.testing.assert_allclose(found, [[0.6, nan, nan], [0, nan, nan], [0.8, nan, nan]], rtol=1e-6)


def test_maps_and_labels_stay_as_they_are():
    whole = torch.tensor([[0, 1], [1, 0]], dtype=torch.uint8)[None, None]
    assert torch.equal(Dense(BinaryMaps()).encode(whole), whole.float())
    labels = torch.tensor([[[0, 3], [-1, 2]]], dtype=torch.int16)
    found = Dense(PixelClasses(4)).encode(labels)
    assert found.dtype == torch.int64 and torch.equal(found, labels.long())


@pytest.mark.parametrize(
    ("kind", "annotations", "message"),
    [
        (lambda: Regression(2, [0, 0], [1, 1]), torch.zeros(1, 3, 4, 4), r"\[images, 2, height"),
        (UnitVectors, torch.zeros(2, 4, 4), r"\[images, 3, height, width\], got \[2, 4, 4\]"),
        (BinaryMaps, torch.full((1, 1, 2, 2), 255), "a map of 0 and 1, .* got 255$"),
        (lambda: PixelClasses(4), torch.full((1, 2, 2), 4), "from 0 to 3, and -1 .* got 4$"),
        (lambda: PixelClasses(4), torch.full((1, 2, 2), -2), "got -2$"),
        (lambda: PixelClasses(4), torch.zeros(1, 2, 2), r"numbers, got \[1, 2, 2\] of float32"),
        (lambda: PixelClasses(4), torch.zeros(3, dtype=torch.int64), r"got \[3\] of int64"),
    ],
)
def test_annotations_of_another_kind_are_refused(kind, annotations, message):
    with pytest.raises(UserError, match=message):
        Dense(kind()).encode(annotations)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, [0.0], [1.0], "delta"), "unknown score 'delta'; did you mean 'delta1'"),
        ((2, [0.0], [1.0]), "a mean and a deviation of each of 2 channels, got 1 and 1"),
        ((2, [0.0, 0.0], [1.0, 0.0]), r"channel 1 of train has the standard deviation 0\.0"),
        ((1, [0.0], [nan]), "standard deviation nan"),
    ],
)
def test_regression_says_what_it_needs(arguments, message):
    with pytest.raises(UserError, match=message):
        Regression(*arguments)


# Scores -----------------------------------------------------------------------------------------


def scores(kind, outputs, targets) -> list[float]:
    return Dense(kind).scores(torch.tensor(outputs), torch.tensor(targets)).tolist()


def test_explained_variance_by_hand():
    kind = Regression(1, [5.0], [2.0])
    targets = [[[[1.0, -1.0, nan, 2.0]]]] * 4
    outputs = [[[[1.0, -1.0, 9, 2.0]]], [[[0.0] * 4]], [[[0.5, -0.5, 9, 1.0]]], [[[9.0] * 4]]]
    assert scores(kind, outputs, targets) == pytest.approx([1, 0, 0.75, 0])
    assert scores(kind, [[[[1.0, 2.0]]]], [[[[0.0, 0.0]]]]) == [0]
    assert Dense(kind).natural(0.3) == 0.3 and kind.metric == "explained variance, mean of frames"


def test_delta1_by_hand_in_the_data_s_unit():
    kind = Regression(1, [2.0], [4.0], "delta1")
    wanted = torch.tensor([2.0, 2.0, 2.0, 2.0, 2.0, -1.0, nan, 2.0, -2.0])
    given = torch.tensor([2.4, 2.6, 2 / 1.2, 2 / 1.3, -2.0, -1.0, 2.0, 0.0, 2.0])
    outputs, targets = (((v - 2) / 4).view(1, 1, 3, 3).tolist() for v in (given, wanted))
    assert scores(kind, outputs, targets) == pytest.approx([2 / 8])
    assert kind.metric == "δ1" and kind.natural(0.4) == 0.4


def test_psnr_by_hand():
    kind = Regression(1, [0.5], [0.25], "psnr")
    targets = [[[[0.0, 1.0, nan]]]] * 3
    outputs = [[[[0.4, 1.4, 9.0]]], [[[0.0, 1.0, 9.0]]], [[[9.0, 1.0, 9.0]]]]
    found = scores(kind, outputs, targets)
    assert found == pytest.approx([0.9, 1, 0])
    assert kind.natural(0.9) == pytest.approx(20) and kind.natural(1.0) == math.inf
    assert kind.natural(0.0) == 0 and kind.metric == "PSNR, dB"


def test_mean_angles_by_hand():
    x, y, none = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [nan] * 3
    places = [
        ([7.0, 0.0, 0.0], x, 0),
        ([0.0, -3.0, 0.0], y, 180),
        ([1.0, 1.0, 0.0], x, 45),
        ([0.0, 0.0, 0.0], x, 90),
        ([1e-20, 0.0, 0.0], y, 90),
        ([1.0, 1e-5, 0.0], x, math.degrees(1e-5)),
    ]
    for answer, wanted, angle in places:
        pair = torch.tensor([answer, y]).T.reshape(1, 3, 1, 2)
        known = torch.tensor([wanted, none]).T.reshape(1, 3, 1, 2)
        target = Dense(UnitVectors())
        score = float(target.scores(pair, known))
        assert target.natural(score) == pytest.approx(angle, rel=1e-6, abs=1e-9)
    assert target.metric == "mean angle, degrees"


def test_f1_by_hand():
    targets = [[[[1.0, 1.0, 0.0, nan]]]] * 4 + [[[[0.0, 0.0, 0.0, nan]]]] * 2
    answers = [[1, 1, -1, 1], [1, -1, 1, 1], [-1, -1, 0, 1], [1, 1, 1, 1]]
    answers += [[-1, -1, 0, 1], [1, -1, -1, -1]]
    found = scores(BinaryMaps(), [[[[float(v) for v in row]]] for row in answers], targets)
    assert found == pytest.approx([1, 0.5, 0, 0.8, 1, 0])


def test_mean_iou_by_hand():
    """Classes 0 to 3; what a sample and its answer do not have is left out of the mean."""
    targets = [[[0, 0, 1, 1, -1]]] * 3
    answers = torch.tensor([[0, 0, 1, 1, 3], [0, 0, 0, 1, 3], [0, 0, 1, 2, 3]])[:, None]
    outputs = torch.nn.functional.one_hot(answers, 4).movedim(3, 1).double().tolist()
    wanted = [1, (2 / 3 + 1 / 2) / 2, (1 + 1 / 2 + 0) / 3]
    assert scores(PixelClasses(4), outputs, targets) == pytest.approx(wanted)


@every_kind
@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([1e-3, 1.0, 1e3]))
def test_scores_lie_in_their_range_and_are_one_without_error(kind, seed, scale):
    target, outputs, targets = case(kind, samples=5, seed=seed)
    if kind == "delta1":
        targets = targets.abs()  # positive values
    for size in (outputs * scale, outputs.float() * scale):
        found = target.scores(size, targets.to(size.dtype) if kind != "classes" else targets)
        assert found.shape == (5,) and ((found >= 0) & (found <= 1)).all()
    if kind == "classes":
        exact = torch.stack([targets == label for label in range(4)], 1).double()
    else:
        exact = targets.nan_to_num(0.7) - (0.5 if kind == "binary" else 0)
    np.testing.assert_allclose(target.scores(exact, targets), 1, atol=1e-7)
    natural = [target.natural(value) for value in (0.25, 0.5)]
    assert (natural[0] < natural[1]) is (kind != "vectors")


def test_every_target_has_what_targets_have():
    for target in (*(Dense(make()) for make in KINDS.values()), Classes(2)):
        assert all(hasattr(target, name) for name in _MEMBERS)
    assert {"metric", "natural"} <= set(_MEMBERS)
    assert Classes(2).metric == "accuracy" and Classes(2).natural(0.75) == 0.75
    assert len({*METRICS.values()}) == 3
    assert Dense(PixelClasses(4)).strata(np.zeros((3, 2, 2))).tolist() == [0, 0, 0]


# Constant answers -------------------------------------------------------------------------------


def tried(kind: str, target: Dense, targets: torch.Tensor):
    """Constant answers of other makings."""
    generator = torch.Generator().manual_seed(5)
    shape = (target.outputs, *targets.shape[-2:])
    yield from (torch.full(shape, value) for value in (-1.0, 0.0, 0.3, 1.0))
    yield from torch.randn(20, *shape, generator=generator)
    flat = torch.randn(20, target.outputs, 1, 1, generator=generator)
    yield from flat.expand(20, *shape)
    if kind == "classes":
        yield from torch.eye(4)[:, :, None, None].expand(4, *shape)
    else:
        yield from targets[:5].nan_to_num(0) - (0.5 if kind == "binary" else 0)


@every_kind
def test_no_other_constant_that_is_tried_is_better(kind):
    """Samples that share something: what they have of one map, with noise."""
    target, common, _ = case(kind, samples=1, size=(6, 6), seed=1, dtype=torch.float32)
    _, noise, targets = case(kind, samples=300, size=(6, 6), seed=2, dtype=torch.float32)
    drawn = target.kind.draw((common + 0.5 * noise), targets, torch.Generator().manual_seed(0))
    targets = torch.where(measured(targets), drawn, targets)
    best = target.most_frequent(targets.numpy())
    others = [
        float(target.scores(answer.expand(300, *answer.shape), targets).mean())
        for answer in tried(kind, target, targets)
    ]
    assert max(others) < best < 1


def some(shape, seed: int, absent: float = 0.3):
    """Standard normal numbers, whole samples' pixels of which some were not measured."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator)
    return torch.where(
        torch.rand(shape[0], 1, *shape[2:], generator=generator) < absent, nan, values
    )


@pytest.mark.parametrize("seed", range(8))
def test_the_best_constant_by_delta1_is_that_of_all_that_could_be(seed):
    """Which values one answers changes only where one ends: between any two of them."""
    kind = Regression(2, [3.0, 1.0], [1.0, 0.7], "delta1")
    targets = some((15, 2, 2, 3), seed)
    targets[:, :, 0, 0] = nan
    targets[:, :, 0, 1] = -5  # no positive depths
    values = targets.double() * torch.tensor([1.0, 0.7])[:, None, None]
    values += torch.tensor([3.0, 1.0])[:, None, None]
    counts = measured(targets).flatten(1).sum(1)
    total = 0.0
    for place in np.ndindex(2, 2, 3):
        own = values[:, *place]
        positive = own[own > 0]
        if len(positive):
            answers = (positive[:, None] * positive).sqrt().flatten()
            near = torch.maximum(answers / own[:, None], own[:, None] / answers) < 1.25
            near &= own[:, None] > 0
            total += float((near / counts[:, None]).nan_to_num(0).sum(0).max())
    assert Dense(kind).most_frequent(targets.numpy()) == pytest.approx(total / 15, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_the_best_constant_direction_is_that_of_all_that_could_be(seed):
    """A grid of directions, about a degree apart, at every pixel on its own."""
    targets = some((21, 3, 2, 2), seed) + torch.tensor([0.0, 0.0, 2.0])[:, None, None]
    targets = unit(targets)
    targets[:, :, 1, 1] = nan
    number = torch.arange(20_000).double() + 0.5
    z, turn = 1 - number / 10_000, number * math.pi * (1 + math.sqrt(5))
    grid = torch.stack([*((1 - z * z).sqrt() * f(turn) for f in (torch.cos, torch.sin)), z])
    share = 1 / measured(targets[:, 0]).flatten(1).sum(1).double()
    total = 0.0
    for place in np.ndindex(2, 2):
        own = targets[:, :, *place].double()
        known = measured(own[:, 0])
        angles = (own[known] @ grid).clamp(-1, 1).acos() / math.pi
        total += float(((1 - angles) * share[known, None]).sum(0).max())
    best = Dense(UnitVectors()).most_frequent(targets.numpy())
    assert total / 21 - 1e-5 < best < total / 21 + 1e-3


@pytest.mark.parametrize("score", ["explained", "psnr"])
@pytest.mark.parametrize("seed", range(3))
def test_no_step_from_the_best_constant_makes_it_better(score, seed):
    """Samples of different spread, none of whose scores is cut off."""
    sizes = torch.linspace(0.5, 2, 30)[:, None, None, None]
    targets = 1 + 0.3 * sizes * some((30, 2, 2, 3), seed)
    kind = Regression(2, [0.0, 0.0], [0.1, 0.3], score)
    target = Dense(kind)
    answers = torch.stack([*kind.constants(targets)])
    found = [
        float(target.scores(a.expand(targets.shape), targets).double().mean()) for a in answers
    ]
    assert found[2] == max(found) == pytest.approx(target.most_frequent(targets.numpy()))
    assert found[2] > max(found[:2]) + 1e-5
    for step in 0.02 * torch.randn(100, *answers[2].shape):
        other = target.scores((answers[2] + step).expand(targets.shape), targets).double().mean()
        assert other < found[2] + 1e-7


def test_the_best_constant_of_equal_samples_is_right():
    for kind in KINDS:
        target, _, targets = case(kind, samples=1, size=(6, 6))
        if kind == "delta1":
            targets = targets.abs()
        same = targets.expand(300, *targets.shape[1:]).clone()
        if kind != "classes":  # each is seen in most samples, and in some not
            same[::3, :, 0] = nan
        assert target.most_frequent(same.numpy()) == pytest.approx(1, abs=1e-6), kind


def test_the_best_constant_of_numbers_is_their_mean_or_their_median():
    skewed = torch.empty(200, 1, 8, 8).exponential_(generator=torch.Generator().manual_seed(0))
    target = Dense(Regression(1, [0.0], [0.1], "psnr"))
    of_mean, of_median = (
        float(target.scores(answer.expand(skewed.shape), skewed).mean())
        for answer in (skewed.mean(0), skewed.median(0).values)
    )
    best = target.most_frequent(skewed.numpy())
    assert best == pytest.approx(of_mean, rel=1e-4) and best > of_median + 1e-3
    depths = torch.tensor([2.0] * 60 + [40.0] * 40).view(100, 1, 1, 1)
    target = Dense(Regression(1, [17.0], [18.0], "delta1"))
    assert target.most_frequent(target.encode(depths).numpy()) == 0.6


def test_of_rare_edges_never_is_not_the_best_constant():
    generator = torch.Generator().manual_seed(0)
    edges = (torch.rand(400, 1, 5, 5, generator=generator) < 0.1).float()
    target = Dense(BinaryMaps())
    never = float(target.scores(torch.full_like(edges, -1), edges).mean())
    always = float(target.scores(torch.full_like(edges, 1), edges).mean())
    assert never < always <= target.most_frequent(edges.numpy())


def test_the_best_constant_of_classes_spares_what_is_rare():
    """A few pixels of a rare class in the map cost all samples without it."""
    labels = torch.zeros(100, 4, 4, dtype=torch.int64)
    labels[:, 0, 0] = torch.arange(4).repeat_interleave(torch.tensor([25, 26, 25, 24]))
    target = Dense(PixelClasses(4))
    always = torch.tensor([1.0, 0, 0, 0])[:, None, None].expand(100, 4, 4, 4)
    best = float(target.scores(always, labels).double().mean())
    assert target.most_frequent(labels.numpy()) == pytest.approx(best)
    assert best == pytest.approx(0.25 + 0.75 * (15 / 16) / 2)
    labels[:, 0, 0] = (torch.arange(100) < 51).long()  # the mode of this pixel, and worth it
    worth = 0.51 + 0.49 * (15 / 16) / 2
    assert target.most_frequent(labels.numpy()) == pytest.approx(worth)


# Draws ------------------------------------------------------------------------------------------


def informations() -> dict[str, tuple[str, list[float], np.ndarray]]:
    """A kind, one pixel's outputs, and the Fisher information of these, in closed form."""
    found = {"gaussian": ("regression", [0.3, -2.0], np.eye(2))}
    logits = np.array([0.5, -2.0])
    p = 1 / (1 + np.exp(-logits))
    found["bernoulli"] = ("binary", logits.tolist(), np.diag(p * (1 - p)))
    logits = np.array([0.2, -1.0, 1.5, 0.0])
    p = np.exp(log_softmax(logits))
    found["categorical"] = ("classes", logits.tolist(), np.diag(p) - np.outer(p, p))
    mean = np.array([2.0, -1.0, 2.0]) / 3
    along = np.outer(mean, mean)
    for k in (1e-3, 0.5, 4.0, 300.0):
        cosine = ive(1.5, k) / ive(0.5, k)
        spread = 1 - cosine**2 - 2 * cosine / k if k > 0.01 else 1 / 3
        found[f"fisher, {k:g}"] = (
            *("vectors", (k * mean).tolist()),
            cosine / k * (np.eye(3) - along) + spread * along,
        )
    found["fisher, 0"] = ("vectors", [0.0] * 3, np.eye(3) / 3)
    return found


INFORMATION = informations()


@pytest.mark.parametrize("name", INFORMATION)
@pytest.mark.parametrize("estimator", ["sampled", "expected"])
def test_draws_have_the_moments_of_the_likelihood(name, estimator):
    """The mean of the gradient of log p is 0, and its second moment the Fisher information."""
    kind, values, expected = INFORMATION[name]
    target, count = Dense(KINDS[kind]()), 3000
    outputs = torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1).expand(count, -1, 2, 2)
    shape = (count, 2, 2) if kind == "classes" else outputs.shape
    known = torch.zeros(shape, dtype=torch.int64 if kind == "classes" else torch.float64)
    drawn = target.labels_of(outputs, known, estimator, torch.Generator().manual_seed(1))
    assert len(drawn) == (DRAWS if estimator == "expected" else 1)
    found = []
    for labels, weights in drawn:
        assert labels.dtype == known.dtype
        assert weights is None or torch.equal(weights, torch.full((count,), 1 / DRAWS).double())
        found.append(gradient(target, outputs, labels).movedim(1, 3).reshape(-1, len(values)))
    g = torch.cat(found).numpy()
    products = np.einsum("ni,nj->nij", g, g)
    for each, wanted in ((g, 0), (products, expected)):
        error = np.abs(each.mean(0) - wanted)
        assert (error <= 5 * each.std(0) / math.sqrt(len(each)) + 1e-9).all()
    pixels = g.reshape(-1, 4, len(values))
    assert np.abs(np.corrcoef(pixels[:, 0, 0], pixels[:, 1, 0])[0, 1]) < 0.06  # each by itself


@pytest.mark.parametrize("k", [0.0, 1e-9, 0.7, 20.0, 1e6])
def test_directions_are_drawn_from_their_law(k):
    """The cosine's distribution function is (1 − exp(k (w + 1))) / (1 − exp(2k))."""
    mean = torch.tensor([0.0, 0.6, -0.8]).double()
    outputs = (k * mean).view(1, 3, 1, 1).expand(1, 3, 100, 100)
    known = torch.zeros(outputs.shape).double()
    drawn = UnitVectors().draw(outputs, known, torch.Generator().manual_seed(3))
    y = drawn[0].flatten(1).numpy()
    np.testing.assert_allclose(np.linalg.norm(y, axis=0), 1, rtol=1e-9)
    w = mean.numpy() @ y if k else y[2]
    beside = 1 - np.sqrt(1 - np.square(np.cross(mean, y.T)).sum(1)) if k == 1e6 else 1 - w
    share = 1 - (np.expm1(-k * beside) / np.expm1(-2 * k) if k else beside / 2)
    assert stats.kstest(share, "uniform").pvalue > 0.01
    if k:
        turned = np.arctan2(y[0], np.array([0, 0.8, 0.6]) @ y) / (2 * math.pi) + 0.5
        assert stats.kstest(turned, "uniform").pvalue > 0.01


@every_kind
@pytest.mark.parametrize("estimator", ["sampled", "expected"])
def test_draws_leave_out_what_was_not_measured(kind, estimator):
    target, outputs, targets = case(kind, dtype=torch.float32)
    first, again = (
        target.labels_of(outputs, targets, estimator, torch.Generator().manual_seed(7))
        for _ in range(2)
    )
    for (labels, _), (same, _) in zip(first, again, strict=True):
        valid = measured(targets)
        if kind == "vectors":
            valid = valid.all(1, keepdim=True).expand(targets.shape)
        assert torch.equal(measured(labels), valid) and labels.dtype == targets.dtype
        assert labels[valid].equal(same[valid]) and not labels[valid].equal(targets[valid])
    assert len({labels[valid].numpy().tobytes() for labels, _ in first}) == len(first)


@pytest.mark.parametrize(
    ("kind", "shape"), [(BinaryMaps(2), (1, 3)), (PixelClasses(4), (1, 3)), (PixelClasses(8), (2,))]
)
def test_few_answers_are_all_taken_with_their_probabilities(kind, shape):
    """The weighted mean of their squared gradients is the Fisher information, without error."""
    target, shape = Dense(kind), (1, *shape)[-2:]
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(3, kind.outputs, *shape, generator=generator, dtype=torch.float64)
    of_classes = isinstance(kind, PixelClasses)
    targets = torch.zeros((3, *shape), dtype=torch.int64) if of_classes else outputs * 0
    targets[1, ..., 0] = -1 if of_classes else nan
    choices = target.labels_of(outputs, targets, "expected", generator)
    places = targets[0].numel()
    assert len(choices) == kind.outcomes**places == 64
    torch.testing.assert_close(sum(weights for _, weights in choices), torch.ones(3).double())
    found = sum(
        weights[:, None, None, None] * gradient(target, outputs, labels) ** 2
        for labels, weights in choices
    )
    p = outputs.softmax(1) if of_classes else outputs.sigmoid()
    p[1, ..., 0] = 0
    torch.testing.assert_close(found, p * (1 - p))
    larger = [torch.cat([value, value], -1) for value in (outputs, targets)]
    assert len(target.labels_of(*larger, "expected", generator)) == DRAWS
