"""Fisher diagonals of networks with an output for every pixel, and of labels that are drawn."""

import copy
import math
import weakref

import pytest
import torch
import torch.nn.functional as F
from conftest import experiment_of
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fisher import agree, only_formulas, oracle, settled
from torch import nn

from ftd import fisher, store
from ftd.fisher import engine
from ftd.fisher.estimators import Spread, drawn
from ftd.layout import LAYOUT
from ftd.stages import fisher as fisher_stage
from ftd.stages import probe, task
from ftd.tasks.targets.classes import Classes
from ftd.tasks.targets.dense import Dense
from ftd.tasks.targets.regression import Regression

# Layers -----------------------------------------------------------------------------------------


def numbers(least, most, dimensions):
    return st.lists(st.integers(least, most), min_size=dimensions, max_size=dimensions)


@st.composite
def convolved(draw):
    """A convolution of one or three dimensions, or a transposed one, and an input's shape."""
    transposed = draw(st.booleans())
    dimensions = draw(st.sampled_from([1, 2, 3] if transposed else [1, 3]))
    kernel, stride, dilation = (draw(numbers(1, 3, dimensions)) for _ in range(3))
    padding = draw(numbers(0, 2, dimensions))
    groups = draw(st.integers(1, 3))
    keys = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    keys["bias"] = draw(st.booleans())
    most = [max(pair) - 1 for pair in zip(stride, dilation, strict=True)]
    extra = [draw(st.integers(0, one)) for one in most]
    reach = [d * (k - 1) + 1 - 2 * p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    least = [max(1, r) for r in reach]
    if transposed:  # (n − 1) stride + reach + extra ≥ 1
        keys["output_padding"] = extra
        steps = zip(reach, extra, stride, strict=True)
        least = [max(1, 1 + math.ceil((1 - r - e) / s)) for r, e, s in steps]
    sides = [one + draw(st.integers(0, 2)) for one in least]
    kind = f"Conv{'Transpose' if transposed else ''}{dimensions}d"
    channels = [groups * draw(st.integers(1, 3)) for _ in range(2)]
    return getattr(nn, kind)(*channels, kernel, **keys).double(), (channels[0], *sides)


@settings(deadline=None, max_examples=120)
@given(convolved(), st.integers(1, 2), st.sampled_from([1, 3000, 2**21]), st.integers(0, 99))
def test_convolutions_of_other_dimensions(case, microbatch, budget, seed):
    layer, shape = case
    torch.manual_seed(seed)
    inputs = torch.randn(4, *shape).double()
    with torch.no_grad():
        targets = torch.randn_like(layer(inputs))
    loss = lambda outputs, y: (outputs * y + outputs.sin()).sum() / len(y)  # noqa: E731
    expected = dict.fromkeys(dict(layer.named_parameters()), 0.0)
    for x, y in zip(inputs.split(microbatch), targets.split(microbatch), strict=True):
        found = torch.autograd.grad(loss(layer(x), y), list(layer.parameters()))
        for name, value in zip(expected, found, strict=True):
            expected[name] = expected[name] + value**2 * microbatch / 4
    with pytest.MonkeyPatch.context() as patch:
        only_formulas(patch)
        patch.setattr(engine, "CPU_BUDGET", budget)
        layer.eval()
        found = fisher.fisher_diagonal(layer, [(inputs, targets)], loss=loss, microbatch=microbatch)
    agree(found, expected, 1e-9)


class Between(nn.Module):
    """A transposed convolution whose output has a size that is asked for."""

    def __init__(self):
        super().__init__()
        self.up, self.out = nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1), nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return self.out(self.up(x, output_size=[8, 7]).tanh())


UNUSUAL = {
    "reflecting": lambda: nn.Conv1d(4, 3, 3, padding=2, padding_mode="reflect"),
    "same": lambda: nn.Conv1d(4, 3, 4, padding="same"),
    "circular": lambda: nn.Conv3d(4, 3, 3, padding=1, padding_mode="circular"),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("make", UNUSUAL.values(), ids=UNUSUAL)
def test_other_kinds_of_padding(monkeypatch, make):
    only_formulas(monkeypatch)
    torch.manual_seed(0)
    layer = make()
    inputs = torch.randn(5, 4, *[6, 3, 4][: layer.weight.dim() - 2])
    loss = lambda outputs, _: outputs.tanh().sum()  # noqa: E731
    found = fisher.fisher_diagonal(layer.eval(), [(inputs, inputs)], loss=loss)
    agree(found, oracle(layer, inputs, inputs, loss))


# Losses -----------------------------------------------------------------------------------------


def masked(outputs, targets):
    """Mean over samples of the squared error, summed over the pixels that were measured."""
    known = ~targets.isnan()
    apart = torch.where(known, outputs - torch.where(known, targets, 0), 0)
    return apart.square().flatten(1).sum(1).mean() / 2


def encoder_decoder(outputs=2):
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.GroupNorm(2, 6), nn.ReLU()),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        *(nn.Conv2d(6, 4, 3, padding=1), nn.GroupNorm(4, 4), nn.ReLU(), nn.Conv2d(4, outputs, 1)),
    )


class Interpolated(nn.Module):
    """The same by a function, whose size is the input's."""

    def __init__(self):
        super().__init__()
        self.down, self.norm = nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.GroupNorm(3, 6)
        self.out = nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, x):
        hidden = self.norm(self.down(x)).relu()
        return self.out(F.interpolate(hidden, x.shape[2:], mode="bilinear"))


def transposing():
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.GroupNorm(2, 6), nn.ReLU()),
        nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1),
        *(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)),
    )


def measured_in_part(samples, channels=2, side=8):
    """Images and targets; where nothing was measured, NaN; of the second sample, nothing was."""
    torch.manual_seed(0)
    images, targets = (
        torch.randn(samples, 1, side, side),
        torch.randn(samples, channels, side, side),
    )
    targets[torch.rand(targets.shape) < 0.3] = torch.nan
    targets[1] = torch.nan
    return images, targets


MAKE = {
    "upsampling": encoder_decoder,
    "interpolation": Interpolated,
    "transposed": transposing,
    "a size that is asked for": lambda: nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), Between()),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_sums_over_pixels_take_the_fast_way(monkeypatch, capfd, make, dtype):
    """By formulas alone, losses in one call, and no check that finds something wrong."""
    only_formulas(monkeypatch)
    monkeypatch.setattr(engine, "taken", None)  # a loss by itself
    torch.manual_seed(0)
    model = settled(make()).to(dtype)
    images, targets = (value.to(dtype) for value in measured_in_part(9))
    targets = targets[..., : model(images).shape[3]]
    batches = list(zip(images.split(6), targets.split(6), strict=True))
    found = fisher.fisher_diagonal(model, batches, loss=masked)
    expected = oracle(model, images, targets, masked)
    largest = max(value.max().item() for value in expected.values())
    # a shift before a norm of each channel has gradients that are nothing but rounding
    exact = {torch.float32: (2e-5, 1e-10), torch.float64: (1e-9, 1e-20)}[dtype]
    agree(found, expected, exact[0], floor=exact[1] * largest)
    assert not capfd.readouterr().err


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_sums_over_pixels_of_micro_batches(monkeypatch, make):
    only_formulas(monkeypatch)
    torch.manual_seed(0)
    model = settled(make()).double()
    images, targets = (value.double() for value in measured_in_part(8))
    targets = targets[..., : model(images).shape[3]]
    expected = dict.fromkeys(dict(model.named_parameters()), 0.0)
    for x, y in zip(images.split(2), targets.split(2), strict=True):
        gradients = torch.autograd.grad(masked(model(x), y), list(model.parameters()))
        for name, value in zip(expected, gradients, strict=True):
            expected[name] = expected[name] + value**2 / 4
    found = fisher.fisher_diagonal(model, [(images, targets)], loss=masked, microbatch=2)
    agree(found, expected, 1e-9, floor=1e-20)


# Labels that are drawn --------------------------------------------------------------------------


def gaussian(draws):
    """As of a target of numbers: draws of unit variance around the outputs, where measured."""

    def labels_of(outputs, targets, estimator, generator):
        share = outputs.new_full((len(outputs),), 1 / draws)
        known = ~targets.isnan()
        noise = (torch.randn(outputs.shape, generator=generator) for _ in range(draws))
        return [(torch.where(known, outputs + one, torch.nan), share) for one in noise]

    return labels_of


def linear():
    """A model that is linear in its parameters: F = JᵀJ of a Gaussian, whatever these are."""
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.Upsample(scale_factor=2, mode="bilinear")
    )


class OwnKernel(nn.Conv2d):
    """No formula is for it."""


def closed_form(model, images, targets):
    """The diagonal of the mean over samples of JᵀJ, J of the outputs that were measured."""
    own = dict(model.named_parameters())
    total = dict.fromkeys(own, 0.0)
    for x, known in zip(images, ~targets.isnan(), strict=True):
        for output in model(x[None])[0][known]:
            gradients = torch.autograd.grad(output, list(own.values()), retain_graph=True)
            for name, value in zip(own, gradients, strict=True):
                total[name] = total[name] + value.square() / len(images)
    return total


def case_of_a_linear_model():
    torch.manual_seed(0)
    model = linear().double().eval()
    images, targets = torch.randn(6, 1, 3, 3).double(), torch.randn(6, 2, 6, 6).double()
    targets[torch.rand(targets.shape) < 0.2] = torch.nan
    return model, images, targets


def test_draws_have_no_bias_and_a_known_error():
    model, images, targets = case_of_a_linear_model()
    exact = closed_form(model, images, targets)
    trace = float(sum(value.sum() for value in exact.values()))
    batches = list(zip(images.split(3), targets.split(3), strict=True))
    errors, said, mean = [], [], dict.fromkeys(exact, 0.0)
    for seed in range(30):
        spread = Spread()
        found = fisher.fisher_diagonal(
            model, batches, loss=masked, estimator="expected", labels_of=gaussian(4), seed=seed,
            spread=spread, check="first" if not seed else False,
        )  # fmt: skip
        mean = {name: value + found[name] / 30 for name, value in mean.items()}
        errors.append(float(sum(value.sum() for value in found.values())) / trace - 1)
        said.append(spread.relative())
        assert spread.trace == pytest.approx(6 * trace * (1 + errors[-1]))
    actual, typical = (torch.tensor(v).double().square().mean().sqrt() for v in (errors, said))
    assert actual > 0.05 and 0.7 < typical / actual < 1.4
    assert abs(sum(errors) / 30) < 3 * actual / 30**0.5
    for name, value in exact.items():
        assert ((mean[name] - value) / value).abs().max() < 0.2, name


def test_the_general_path_takes_the_same_draws():
    model, images, targets = case_of_a_linear_model()
    other = copy.deepcopy(model)
    other[0] = OwnKernel(1, 2, 3, padding=1).double().eval()
    other.load_state_dict(model.state_dict())
    spreads, found = [Spread(), Spread()], []
    for one, spread in zip((model, other), spreads, strict=True):
        same = {"loss": masked, "estimator": "expected", "labels_of": gaussian(8)}
        found.append(fisher.fisher_diagonal(one, [(images, targets)], **same, spread=spread))
    agree(*found, 1e-9)
    assert spreads[0].relative() == pytest.approx(spreads[1].relative(), rel=1e-9)


def test_outcomes_that_are_all_taken_have_no_error():
    torch.manual_seed(0)
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval(), torch.randn(6, 1, 2, 2)
    for estimator in ("empirical", "sampled", "expected"):
        spread = Spread()
        same = {"loss": F.cross_entropy, "estimator": estimator, "spread": spread}
        fisher.fisher_diagonal(model, [(images, torch.zeros(6).long())], **same)
        assert spread.relative() is None


def test_what_draws_are():
    labels, share = torch.zeros(3), torch.full((3,), 0.1)
    assert drawn([(labels, share)] * 10) and not drawn([(labels, share)] * 9)
    assert not drawn([(labels, None)]) and not drawn([(labels, torch.ones(3))])
    assert not drawn([(labels, torch.tensor([0.5, 0.5, 0.4]))] * 2)


def test_draws_are_compared_with_samples_own_passes(capfd):
    """A wrong formula is noticed by a draw as it is by the data's labels."""
    torch.manual_seed(0)
    model, batch = settled(encoder_decoder()), measured_in_part(6)
    wrong = lambda *a: {k: 2 * v for k, v in fisher.FORMULAS[nn.Conv2d].squares(*a).items()}  # noqa: E731
    same = {"loss": masked, "estimator": "expected", "labels_of": gaussian(8), "seed": 3}
    right = fisher.fisher_diagonal(model, [batch], **same)
    assert not capfd.readouterr().err
    found = fisher.fisher_diagonal(model, [batch], **same, formulas={nn.Conv2d: wrong})
    assert "own passes give other gradients" in capfd.readouterr().err
    assert all((value - right[name]).abs().sum() < value.sum() for name, value in found.items())


def test_draws_of_maps_take_little_memory(monkeypatch):
    """Of eight draws the tensors that are made are no larger, and hardly more are held at once."""
    alive, peak = {}, {}

    class Held(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for value in result if isinstance(result, (tuple, list)) else (result,):
                if isinstance(value, torch.Tensor):
                    self.note(value.untyped_storage())
            return result

        def note(self, storage):
            key = storage.data_ptr()
            if key and key not in alive:
                alive[key] = storage.nbytes()
                weakref.finalize(storage, alive.pop, key, None)
            peak["now"] = max(peak.get("now", 0), sum(alive.values()))

    torch.manual_seed(0)
    model, (images, targets) = settled(encoder_decoder()), measured_in_part(8, side=16)
    held = {}
    for draws in (2, 8):
        alive.clear(), peak.clear()
        with Held():
            fisher.fisher_diagonal(
                model, [(images, targets)], loss=masked, estimator="expected",
                labels_of=gaussian(draws), check=False,
            )  # fmt: skip
        held[draws] = peak["now"]
    assert held[8] - held[2] < 8 * targets.nbytes


def test_a_target_of_numbers_draws(capfd):
    """Its own loss and draws, by formulas alone: the same as those of this file."""
    torch.manual_seed(0)
    model, batch = settled(encoder_decoder()), measured_in_part(6)
    target, spread = Dense(Regression(2, [0, 0], [1, 1])), Spread()
    same = {"loss": target.loss, "labels_of": target.labels_of, "spread": spread}
    with pytest.MonkeyPatch.context() as patch:
        only_formulas(patch)
        found = fisher.fisher_diagonal(model, [batch], **same, estimator="expected")
    assert 0 < spread.relative() < 0.3 and not capfd.readouterr().err
    exact = closed_form(model, *batch)
    traces = [float(sum(value.sum() for value in each.values())) for each in (found, exact)]
    assert abs(traces[0] / traces[1] - 1) < 3 * spread.relative()


def test_the_stage_records_the_error_of_draws(digits, tmp_path, monkeypatch):
    names = {"network": "small-cnn", "trial": 0, "task": "six"}

    def facts(estimator):
        how = {"samples": 20, "estimator": estimator}
        experiment = experiment_of(tmp_path, digits.parent, fisher=how)
        path = experiment.output(LAYOUT.fisher, **names)
        if not experiment.output(LAYOUT.probe, **names).exists():
            task.run(experiment, task="six")
            probe.run(experiment, **names)
        fisher_stage.run(experiment, **names)
        return store.read_tensor_facts(path, stage="fisher")

    assert "trace_error" not in facts("empirical") | facts("expected")

    def draws(self, outputs, targets, estimator, generator):
        chances = outputs.double().softmax(1)
        labels = torch.multinomial(chances, 8, replacement=True, generator=generator).T
        return [(one, chances.new_full((len(one),), 1 / 8)) for one in labels]

    monkeypatch.setattr(Classes, "labels_of", draws)
    assert 0 < facts("expected")["trace_error"] < 1
