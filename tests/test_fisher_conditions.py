"""What the engine's ways need of networks and losses, broken in every way: values, or an error.

The oracle is the definition: one sample after the other, each with a backward pass of its own.
"""

import copy
import io
import sys
from collections import deque
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ftd import fisher
from ftd.errors import UserError
from ftd.fisher import engine
from ftd.fisher.spots import Spots
from ftd.models import networks
from ftd.tasks.targets.classes import Classes


def loop(model, batches, loss_of, unit=1):
    """Mean of |g|² of each unit's own loss, float64; ``loss_of(model)`` is the loss."""
    model = copy.deepcopy(model).double()
    loss, parameters = loss_of(model), dict(model.named_parameters())
    total, count = dict.fromkeys(parameters, 0.0), 0
    for inputs, targets in batches:
        inputs = inputs.double() if inputs.is_floating_point() else inputs
        for x, y in zip(inputs.split(unit), targets.split(unit), strict=True):
            value = loss(model(x), y)
            found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
            count += 1
            for name, gradient in zip(parameters, found, strict=True):
                if gradient is not None:
                    total[name] = total[name] + gradient.abs() ** 2
    return {name: value / count for name, value in total.items()}


def agree(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        value = torch.as_tensor(value, dtype=torch.float64)
        assert found[name].dtype == torch.float64
        error = (found[name] - value).abs().max().item()
        assert error <= 1e-5 * value.abs().max().item() + 1e-30, name


def check(model, loss_of, inputs, targets=None, batch=4, unit=1, **keys):
    torch.manual_seed(0)
    targets = torch.arange(len(inputs)) % 5 if targets is None else targets
    batches = list(zip(inputs.split(batch), targets.split(batch), strict=True))
    model.eval()
    expected = loop(model, batches, loss_of, unit)
    found = fisher.fisher_diagonal(model, batches, loss=loss_of(model), microbatch=unit, **keys)
    agree(found, expected)


def plain(model):
    return F.cross_entropy


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    return torch.randn(12, 4)


class Net(nn.Module):
    """Two layers with formulas, and a parameter without."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 5)
        self.scale = nn.Parameter(torch.rand(6) + 0.5)

    def forward(self, x):
        return self.head(self.body(x).tanh() * self.scale)


# A loss that uses more than outputs and targets --------------------------------------------------


class Features(Net):
    def forward(self, x):
        return self.body(x).tanh() * self.scale


def penalised(model):
    return lambda o, y: (
        F.cross_entropy(o, y) + 0.05 * sum(p.square().sum() for p in model.parameters())
    )


def slightly_penalised(model):
    return lambda o, y: F.cross_entropy(o, y) + 1e-6 * model.body.weight.abs().sum()


def holding_a_parameter(model):
    weight = model.head.weight
    return lambda o, y: F.cross_entropy(o, y) + weight.square().sum()


class Prototypes(nn.Module):
    """A loss that is a module, and holds a layer of the network."""

    def __init__(self, model):
        super().__init__()
        self.layer = model.head

    def forward(self, outputs, targets):
        return F.cross_entropy(-torch.cdist(outputs, self.layer.weight), targets)


@pytest.mark.parametrize(
    ("make", "loss_of"),
    {
        "a head": (Features, lambda m: lambda o, y: F.cross_entropy(m.head(o), y)),
        "a module": (Features, Prototypes),
        "a weight": (Features, lambda m: lambda o, y: F.cross_entropy(o @ m.head.weight.T, y)),
        "a penalty": (Net, penalised),
        "a tiny penalty": (Net, slightly_penalised),
        "a parameter by itself": (Net, holding_a_parameter),
        "one that no formula covers": (
            Net,
            lambda m: lambda o, y: (o.sum(1) * m.scale.sum()).sum(),
        ),
    }.values(),
)
@pytest.mark.parametrize("unit", [1, 2])
def test_parameters_reached_through_the_loss(inputs, make, loss_of, unit):
    check(make(), loss_of, inputs, unit=unit, check=False)  # seen, not found by comparing


class Experts(nn.Module):
    """Load balancing: a loss that the module keeps, of the whole batch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.gate = nn.Linear(4, 3)
        self.experts = nn.ModuleList(nn.Linear(4, 5) for _ in range(3))
        self.kept = {"aux": torch.zeros(())}

    def forward(self, x):
        gates = self.gate(x).softmax(1)
        self.aux = self.kept["aux"] = 3 * gates.mean(0).square().sum()
        return sum(gates[:, i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


class Divergence(Net):
    """A KL divergence, summed over the batch."""

    def forward(self, x):
        hidden = self.body(x)
        self.aux = 0.1 * hidden.square().sum()
        return self.head(hidden.tanh() * self.scale)


def hooked(model):
    """Features kept outside of the network, by a hook."""
    seen = {}
    model.body.register_forward_hook(lambda layer, args, output: seen.update(body=output))
    return lambda o, y: F.cross_entropy(o, y) + seen["body"].square().mean()


@pytest.mark.parametrize(
    ("make", "loss_of"),
    {
        "an attribute": (Experts, lambda m: lambda o, y: F.cross_entropy(o, y) + m.aux),
        "in a dict": (Experts, lambda m: lambda o, y: F.cross_entropy(o, y) + m.kept["aux"]),
        "a factor": (Experts, lambda m: lambda o, y: F.cross_entropy(o, y) * m.aux.detach()),
        "a sum": (Divergence, lambda m: lambda o, y: F.cross_entropy(o, y) + m.aux),
        "by a hook": (Net, hooked),
    }.values(),
)
@pytest.mark.parametrize("unit", [1, 2])
def test_losses_that_read_what_the_forward_pass_left(inputs, make, loss_of, unit):
    check(make(), loss_of, inputs, unit=unit)


# Samples that see each other ---------------------------------------------------------------------


class Mixing(Net):
    def __init__(self, mix):
        super().__init__()
        self.mix = mix

    def forward(self, x):
        return super().forward(self.mix(x))


def two_of_them(x):
    """Samples at two places see each other, where there are such places."""
    x = x.clone()
    if len(x) > 5:
        x[5] = x[5] + x[2]
    return x


MIXING = {
    "its largest value": lambda x: x / x.abs().max(),
    "its largest value, without gradient": lambda x: x / x.abs().max().detach(),
    "the first sample's value": lambda x: x * (1 + abs(x[0, 0].item())),
    "the last sample": lambda x: x + x[-1:],
    "the mean": lambda x: x - x.mean(0),
    "the neighbour": lambda x: x + x.roll(1, 0),
    "two of them": two_of_them,
    "its size": lambda x: x * len(x),
    "its size beyond some": lambda x: x * (2 if len(x) > 4 else 1),
    "the order": lambda x: x + torch.arange(len(x))[:, None],
    "the samples before": lambda x: x.cumsum(0),
    "attention over the batch": lambda x: (x @ x.T).softmax(1) @ x,
}


@pytest.mark.parametrize("mix", MIXING.values(), ids=MIXING)
@pytest.mark.parametrize("unit", [1, 3])
def test_samples_that_see_each_other(inputs, mix, unit):
    inputs[0, 0], inputs[7, 1] = 6.0, 50.0
    check(Mixing(mix), plain, inputs, batch=12, unit=unit)


def test_a_zero_output_hides_no_mixing(inputs):
    model = Mixing(two_of_them)
    nn.init.zeros_(model.head.weight)
    check(model, plain, inputs, batch=12)


def test_what_only_a_later_batch_shows(inputs):
    """Of another shape: noticed; of the same shape: by ``check="every"``."""
    check(Mixing(lambda x: x * len(x) if len(x) > 5 else x * 2), plain, inputs[:10], batch=6)
    late = Mixing(lambda x: x + x.mean(0) if (x > 90).any() else x)
    inputs[9] = 100.0
    check(late, plain, inputs, check="every")


def test_without_checks_conditions_are_taken_for_granted(inputs):
    batch = (inputs, torch.arange(12) % 5)
    model = Mixing(MIXING["the mean"]).eval()
    found = fisher.fisher_diagonal(model, [batch], loss=F.cross_entropy, check=False)
    with pytest.raises(AssertionError):
        agree(found, loop(model, [batch], plain))
    with pytest.raises(UserError, match="check 'last': expected 'first', 'every' or False"):
        fisher.fisher_diagonal(model, [batch], loss=F.cross_entropy, check="last")


def test_a_check_changes_no_bit(inputs):
    batches = list(zip(inputs.split(5), (torch.arange(12) % 5).split(5), strict=True))
    for estimator in fisher.ESTIMATORS:
        each = [
            fisher.fisher_diagonal(
                Net().eval(), batches, loss=F.cross_entropy, estimator=estimator, check=check
            )
            for check in ("first", "every", False)
        ]
        for found in each[1:]:
            assert all(torch.equal(found[name], value) for name, value in each[0].items())


def test_chance_in_the_forward_pass_is_sampled_as_a_loop_would(inputs, capfd):
    class Noisy(Net):
        def forward(self, x):
            return super().forward(F.dropout(x, 0.5, training=True))

    batches = [(inputs, torch.arange(12) % 5)] * 40
    model = Noisy().eval()
    torch.manual_seed(0)
    found = fisher.fisher_diagonal(model, batches, loss=F.cross_entropy)
    assert "see each other" in capfd.readouterr().err
    expected = loop(model, batches, plain)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].sum(), value.sum(), rtol=0.15, atol=0)


# State -------------------------------------------------------------------------------------------


class Written(Net):
    """State that the forward pass writes and does not use."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.calls, self.history, self.cache = 0, [], {}
        self.maps, self.late = torch.zeros(4, 6), torch.zeros(3)

    def forward(self, x):
        self.seen = self.seen + x.abs().mean()
        self.count += 1
        self.calls += 1
        self.late.add_(1)
        self.maps = self.body(x)
        self.history.append(self.maps)
        self.cache["maps"] = self.maps
        self.new = self.maps
        return super().forward(x)


class Moving(Net):
    """State that changes what comes next: samples follow each other."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return super().forward(x - self.mean)


class Counting(Net):
    """A number that is no tensor."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x / self.calls)


class Smoothed(Net):
    """State that is moved in place, and used."""

    def __init__(self, hold=lambda mean: {"mean": mean}, take=lambda held: held["mean"]):
        super().__init__()
        self.held, self.take = hold(torch.zeros(4)), take

    def forward(self, x):
        mean = self.take(self.held)
        mean.mul_(0.9).add_(x.detach().mean(0).to(mean), alpha=0.1)
        return super().forward(x - mean.to(x))


class Ring(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("rows", torch.zeros(3, 4))
        self.turn = 0

    def forward(self, x):
        self.rows[self.turn % 3] = x.detach().mean(0)
        self.turn += 1
        return super().forward(x - self.rows.mean(0))


class Holder:
    def __init__(self, value):
        self.value = value


class Cached(Net):
    """A moving mean in an object, replaced at each pass."""

    def __init__(self):
        super().__init__()
        self.cache = Holder(deque([torch.zeros(4)]))

    def forward(self, x):
        mean = 0.9 * self.cache.value[0].to(x) + 0.1 * x.detach().mean(0)
        self.cache.value.append(mean)
        self.cache.value.popleft()
        return super().forward(x - mean)


FAR = {"mean": torch.zeros(4)}
CALLS = 0


class Global(Net):
    """A moving mean and a number in globals."""

    def forward(self, x):
        global CALLS
        CALLS += 1
        FAR["mean"] = 0.9 * FAR["mean"].to(x) + 0.1 * x.detach().mean(0)
        return super().forward((x - FAR["mean"]) / CALLS)


@pytest.mark.parametrize("batch", [1, 4])
def test_state_in_globals_goes_on_too(inputs, monkeypatch, batch):
    model, before = Global().eval(), FAR["mean"]
    batches = list(zip(inputs.split(batch), (torch.arange(12) % 5).split(batch), strict=True))
    with monkeypatch.context() as patch:
        patch.setitem(FAR, "mean", before)
        patch.setattr(sys.modules[__name__], "CALLS", 0)
        expected = loop(model, batches, plain)
    agree(fisher.fisher_diagonal(model, batches, loss=F.cross_entropy), expected)
    assert FAR["mean"] is before and CALLS == 0


HELD = {
    "in a list of lists": lambda: Smoothed(lambda m: [[m]], lambda held: held[0][0]),
    "in a tuple": lambda: Smoothed(lambda m: (m,), lambda held: held[0]),
    "in an object": lambda: Smoothed(Holder, lambda held: held.value),
    "in a namespace": lambda: Smoothed(lambda m: SimpleNamespace(m=m), lambda held: held.m),
    "past its version": lambda: Smoothed(lambda m: [m], lambda held: held[0].data),
    "as an array": lambda: Smoothed(lambda m: [m], lambda held: torch.from_numpy(held[0].numpy())),
    "in a queue": Cached,
    "in a ring": Ring,
}


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("make", HELD.values(), ids=HELD)
def test_state_that_is_moved_in_place_goes_on_as_in_a_loop(inputs, make, batch):
    model = make()
    check(model, plain, inputs, batch=batch)
    held = vars(model).get("held")
    assert held is None or not model.take(held).any()
    copy.deepcopy(model)(inputs)


def test_state_of_inference_mode_is_left_as_it_is(inputs):
    model = nn.Sequential(Keeps(), nn.Linear(5, 5)).eval()
    with torch.inference_mode():
        model(inputs)
        model.register_buffer("seen", torch.zeros(3))
    before = model[0].features
    batch = (inputs, torch.arange(12) % 5)
    fisher.fisher_diagonal(model, [batch], loss=F.cross_entropy)
    assert model[0].features is before and all(p.requires_grad for p in model.parameters())


class Loss:
    """A loss with state, that is no module."""

    def __init__(self):
        self.calls = 0

    def __call__(self, outputs, targets):
        return self.forward(outputs, targets)

    def forward(self, outputs, targets):
        self.calls += 1
        return F.cross_entropy(outputs, targets) * self.calls


def counting():
    calls = 0

    def loss(outputs, targets):
        nonlocal calls
        calls += 1
        return F.cross_entropy(outputs, targets) * calls

    return loss


@pytest.mark.parametrize(
    "loss_of",
    [lambda m: Loss(), lambda m: Loss().forward, lambda m: counting(), lambda m: partial(Loss())],
)
def test_the_state_of_losses_goes_on_too(inputs, loss_of):
    check(Net(), loss_of, inputs)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("make", [Written, Moving, Counting])
def test_state_goes_on_as_in_a_loop_and_is_taken_back(inputs, make, batch):
    model = make()
    check(model, plain, inputs, batch=batch)
    expected = make().eval()
    for name, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert vars(model).keys() == vars(expected).keys()
    if make is Written:
        assert (model.calls, model.history, model.cache) == (0, [], {})
        assert torch.equal(model.late, torch.zeros(3)) and torch.equal(
            model.maps, torch.zeros(4, 6)
        )
    assert make is not Counting or model.calls == 0
    assert model(inputs).shape == (12, 5)


class Breaks(Written):
    def forward(self, x):
        result = super().forward(x)
        if x.shape[-1] == 4 and bool((x > 90).any()):
            raise KeyError("broken")
        return result


def test_state_is_taken_back_after_an_error(inputs):
    model = Breaks().eval()
    loss = Prototypes(model)
    loss.seen = None
    inputs[7] = 100.0
    batches = list(zip(inputs.split(4), (torch.arange(12) % 5).split(4), strict=True))
    with pytest.raises(KeyError, match="broken"):
        fisher.fisher_diagonal(model, batches, loss=F.cross_entropy)
    assert (model.calls, model.history, float(model.seen), int(model.count)) == (0, [], 0.0, 0)
    assert all(p.requires_grad for p in model.parameters())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())


class Keeps(nn.Module):
    def __init__(self):
        super().__init__()
        self.act, self.head = nn.PReLU(4), nn.Linear(4, 5)

    def forward(self, x):
        self.features = self.act(x)
        return self.head(self.features)


NORMED = {
    "features": Keeps,
    "spectral norm": lambda: nn.Sequential(
        nn.utils.spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 5)
    ),
    "weight norm": lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 5)),
    "a recurrent state": lambda: Remembering(),
}


class Remembering(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRUCell(4, 4), nn.Linear(4, 5)
        self.states = [torch.zeros(1, 4)]

    def forward(self, x):
        self.states[0] = self.cell(x, torch.zeros(len(x), 4))
        return self.head(self.states[0])


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("make", NORMED.values(), ids=NORMED)
def test_a_network_can_be_saved_and_copied_afterwards(inputs, make):
    model = make().eval()
    with torch.no_grad():
        before = model(inputs)
    batches = list(zip(inputs.split(4), (torch.arange(12) % 5).split(4), strict=True))
    fisher.fisher_diagonal(model, batches, loss=F.cross_entropy)
    torch.save(model, io.BytesIO())
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(model)(inputs), before)


class Learning(Net):
    def __init__(self, learn):
        super().__init__()
        self.learn = learn

    def forward(self, x):
        with torch.no_grad():
            self.learn(self.body.weight)
        return super().forward(x)


def renormed(weight):
    weight.data = torch.renorm(weight.data, 2, 0, 0.5)


@pytest.mark.parametrize(
    "learn",
    [lambda w: w.mul_(0.9), lambda w: setattr(w, "data", w.data * 0.9), lambda w: w.data.add_(1)],
)
def test_a_forward_pass_that_changes_parameters_is_refused(inputs, learn):
    model = Learning(learn).eval()
    batches = [(inputs, torch.arange(12) % 5)] * 5
    with pytest.raises(UserError, match=r"changes the parameter 'body\.weight' in place"):
        fisher.fisher_diagonal(model, batches, loss=F.cross_entropy)
    assert torch.equal(model.body.weight, Net().body.weight)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    "learn",
    [
        renormed,
        lambda w: w.clamp_(-0.1, 0.1),
        lambda w: w.clamp_(-9, 9),
        lambda w: w.data.clamp_(0),
    ],
)
def test_a_bound_that_the_forward_pass_puts_on_parameters(inputs, learn):
    model = Learning(learn).eval()
    batches = list(zip(inputs.split(4), (torch.arange(12) % 5).split(4), strict=True))
    found = fisher.fisher_diagonal(model, batches, loss=F.cross_entropy)
    assert torch.equal(model.body.weight, Net().body.weight)
    agree(found, loop(model, batches, plain))


def test_a_renormed_embedding_is_as_it_was():
    model = nn.Sequential(nn.Embedding(5, 4, max_norm=0.5), nn.Flatten(), nn.Linear(12, 5)).eval()
    model[0].weight.data[:2] *= 0.01
    before = model[0].weight.detach().clone()
    batches = [(torch.full((6, 3), row), torch.arange(6) % 5) for row in range(5)]
    fisher.fisher_diagonal(model, batches, loss=F.cross_entropy)
    assert torch.equal(model[0].weight, before)


# Inputs that are written into --------------------------------------------------------------------


def normalise_(x):
    return x.sub_(0.3).div_(1.5)


@pytest.mark.parametrize("last", [nn.Identity, lambda: nn.PReLU(5)])
def test_passes_that_write_into_their_inputs(inputs, last):
    targets = torch.arange(12) % 5
    model = nn.Sequential(Mixing(normalise_), last())
    rotated = lambda o, y: F.cross_entropy(o, y.add_(1).remainder_(5))  # noqa: E731
    expected = loop(model.eval(), [(inputs.clone(), targets.clone())], lambda model: rotated)
    x, y = inputs.clone(), targets.clone()
    agree(fisher.fisher_diagonal(model, [(x, y)], loss=rotated), expected)
    assert torch.equal(x, inputs) and torch.equal(y, targets)


# Layers that no gradient reaches -----------------------------------------------------------------


class Backbone(Net):
    """Features without gradients, as under a linear probe; and an output that the loss leaves."""

    def __init__(self):
        super().__init__()
        self.aside, self.max_norm = nn.Linear(6, 3), 1.0

    def forward(self, x):
        with torch.no_grad():
            features = self.body(x).tanh()
        self.other = self.aside(features)
        return self.head(features * self.scale)


@pytest.mark.parametrize("unit", [1, 2])
def test_layers_that_no_gradient_reaches(inputs, unit):
    check(Backbone(), plain, inputs, unit=unit)
    check(Net(), lambda model: lambda o, y: (o * 0).sum() + 1, inputs, unit=unit)
    found = fisher.fisher_diagonal(
        Net().eval(), [(inputs, torch.arange(12))], loss=lambda o, y: torch.ones(())
    )
    assert not any(value.any() for value in found.values())


def test_batches_out_of_a_generator_without_gradients(inputs):
    def batches():
        with torch.no_grad():
            yield inputs[:6], torch.arange(6) % 5
        with torch.inference_mode():
            for _ in range(2):
                yield inputs[6:].clone(), torch.arange(6) % 5

    found = fisher.fisher_diagonal(Net().eval(), batches(), loss=F.cross_entropy)
    pairs = [(half, torch.arange(6) % 5) for half in (inputs[:6], inputs[6:], inputs[6:])]
    agree(found, loop(Net().eval(), pairs, plain))
    assert not any(value.is_inference() for value in found.values())


def test_half_precision_inside_is_rounding(inputs, capfd):
    class Mixed(Net):
        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(x).float()

    batch = (inputs, torch.arange(12) % 5)
    fisher.fisher_diagonal(Mixed().eval(), [batch], loss=F.cross_entropy)
    assert not capfd.readouterr().err


def test_many_shapes_are_not_all_checked(monkeypatch):
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh()).eval()
    checked = []
    monkeypatch.setattr(engine, "Spots", lambda *arguments: checked.append(1) or Spots(*arguments))
    batches = [(torch.randn(3, length, 4), torch.zeros(3)) for length in range(1, 31)]
    fisher.fisher_diagonal(model, batches, loss=lambda o, y: o.square().mean())
    assert len(checked) == 4 + 3


def test_samples_of_unlike_shapes_in_a_micro_batch():
    batches = [(torch.randn(4, length, 4), torch.zeros(4)) for length in (3, 5)]
    with pytest.raises(UserError, match=r"batch 1: .* \[4, 5, 4\].* goes on with .* \[1, 3, 4\]"):
        fisher.fisher_diagonal(
            nn.Linear(4, 5).eval(), batches, loss=lambda o, y: o.mean(), microbatch=3
        )


# Networks of other kinds -------------------------------------------------------------------------


def compiled_in_place():
    model = Net()
    model.compile(backend="eager")
    return model


COMPILED = {
    "a network": lambda: torch.compile(Net(), backend="eager"),
    "in place": compiled_in_place,
    "a part": lambda: nn.Sequential(
        torch.compile(nn.Sequential(nn.Linear(4, 6), nn.Tanh()), backend="aot_eager"),
        nn.Linear(6, 5),
    ),
    "a function": lambda: Mixing(torch.compile(lambda x: x.tanh(), backend="eager")),
    "a script": lambda: torch.jit.script(Net()),
    "a scripted part": lambda: nn.Sequential(torch.jit.script(Net()), nn.Linear(5, 5)),
    "a trace": lambda: torch.jit.trace(Net().eval(), torch.zeros(2, 4)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("used", [False, True], ids=["", "used before"])
@pytest.mark.parametrize("make", COMPILED.values(), ids=COMPILED)
def test_compiled_and_scripted_networks(inputs, make, used):
    model = make().eval()
    if used:
        model(inputs)
    targets = torch.arange(12) % 5
    batches = list(zip(inputs.split(4), targets.split(4), strict=True))
    found = fisher.fisher_diagonal(model, batches, loss=F.cross_entropy)
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in model.named_parameters()}
    for x, y in zip(inputs, targets, strict=True):
        model.zero_grad()
        F.cross_entropy(model(x[None]), y[None]).backward()
        for name, p in model.named_parameters():
            if p.grad is not None:
                total[name] += p.grad.double() ** 2 / 12
    agree(found, total)


class Spectral(nn.Module):
    """Complex parameters, one of them in a layer that has a formula for real ones."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.weight = nn.Parameter(torch.randn(3, dtype=torch.cfloat))
        self.inner = nn.Linear(3, 3, dtype=torch.cfloat)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(torch.fft.irfft(self.inner(torch.fft.rfft(x) * self.weight), n=4))


@pytest.mark.parametrize("unit", [1, 2])
def test_complex_parameters(inputs, unit):
    model = Spectral().eval()
    batches = [(inputs[:8], torch.arange(8) % 5)]
    found = fisher.fisher_diagonal(model, batches, loss=F.cross_entropy, microbatch=unit)
    total = {name: 0.0 for name, _ in model.named_parameters()}
    twin = copy.deepcopy(model)
    for x, y in zip(inputs[:8].split(unit), batches[0][1].split(unit), strict=True):
        twin.zero_grad()
        F.cross_entropy(twin(x), y).backward()
        for name, p in twin.named_parameters():
            total[name] = total[name] + p.grad.abs().double() ** 2 * unit / 8
    agree(found, total)


def integers():
    model = nn.Sequential(nn.Linear(4, 5))
    model.register_parameter("q", nn.Parameter(torch.ones(3, dtype=torch.int8), False))
    return model


def made_in_inference_mode():
    with torch.inference_mode():
        return nn.Linear(4, 5)


@pytest.mark.parametrize(
    ("make", "message"),
    {
        "integers": (integers, "parameter 'q' of type int8 can have no gradient; register"),
        "lazy": (lambda: nn.Sequential(nn.LazyLinear(5)), r"'0\.weight' has no shape yet; run"),
        "a lazy norm": (
            lambda: nn.Sequential(nn.Linear(4, 5), nn.LazyBatchNorm1d()), "has no shape yet",
        ),
        "meta": (lambda: nn.Linear(4, 5, device="meta"), "'weight' has no values"),
        "inference": (made_in_inference_mode, "'weight' was made in inference mode"),
    }.values(),
)  # fmt: skip
def test_parameters_that_can_have_no_gradient(inputs, make, message):
    batch = (inputs, torch.arange(12) % 5)
    with pytest.raises(UserError, match=message):
        fisher.fisher_diagonal(make().eval(), [batch], loss=F.cross_entropy)


class Reentrant(Net):
    def forward(self, x):
        from torch.utils.checkpoint import checkpoint

        return checkpoint(self.head, self.body(x).tanh() * self.scale, use_reentrant=True)


@pytest.mark.filterwarnings("ignore:None of the inputs")
def test_reentrant_checkpoints_are_refused(inputs):
    with pytest.raises(UserError, match=r"write .*use_reentrant=False"):
        fisher.fisher_diagonal(
            Reentrant().eval(), [(inputs, torch.arange(12) % 5)], loss=F.cross_entropy
        )


# Batches, losses, devices ------------------------------------------------------------------------

X, Y = torch.zeros(4, 4), torch.arange(4)
BATCHES = {
    "longer targets": ((X, torch.arange(8) % 5), r"a tuple of a tensor \[4, 4\] of float32, a"),
    "shorter targets": ((X, Y[:2]), r"a tensor \[2\] of int64"),
    "weights": ((X, Y, torch.ones(4)), "a tuple of .* of float32; make such a pair"),
    "a dict": ({"x": X, "y": Y}, "a dict of 'x', 'y'"),
    "two inputs": (((X, X), Y), "a tuple of a tuple of"),
    "one tensor": (X, r"a tensor \[4, 4\]"),
    "a number for targets": ((X, 3), "int; make such a pair"),
    "numbers for targets": ((X, [0, 1, 2, 3]), "a list of int, int"),
    "sparse ones": ((X.to_sparse(), Y), "a tuple of a sparse or nested tensor"),
    "a target without a dimension": ((X[:1], torch.tensor(3)), r"a tensor \[\]"),
}


@pytest.mark.parametrize(("batch", "message"), BATCHES.values(), ids=BATCHES)
def test_batches_of_another_form(batch, message):
    with pytest.raises(UserError, match=rf"batch 1: expected \(inputs \[B, …\], .*{message}"):
        fisher.fisher_diagonal(Net().eval(), [(X, Y), batch], loss=F.cross_entropy)


@pytest.mark.parametrize(
    ("loss", "message"),
    {
        "none reduced": (lambda o, y: (o - 1).square(), "expected one number for a sample"),
        "no tensor": (lambda o, y: 1.0, "a tensor .*, got float"),
        "of other targets": (lambda o, y: F.cross_entropy(o, y.float()), "the loss fails"),
        "of other shapes": (lambda o, y: F.cross_entropy(o, y[:, None]), "the loss fails"),
        "of two": (lambda o, y: F.cross_entropy(o[:, :, None, None], y[:, None]), "the loss fails"),
        "labels beyond": (lambda o, y: F.cross_entropy(o, y + 5), "targets that do not fit"),
        "a mistake": (lambda o, y: F.cross_entropy(o), "the loss fails .*missing 1 required"),
    }.values(),
)
@pytest.mark.parametrize("make", [Net, lambda: nn.Sequential(nn.PReLU(4), nn.GRU(4, 5))])
def test_losses_that_are_none(inputs, make, loss, message):
    model = make()
    taken = loss if isinstance(model, Net) else lambda o, y: loss(o[0], y)
    with pytest.raises(UserError, match=message):
        fisher.fisher_diagonal(model.eval(), [(inputs, torch.arange(12) % 5)], loss=taken)


def test_a_loss_of_one_sample_may_keep_its_dimension(inputs):
    each = lambda model: lambda o, y: F.cross_entropy(o, y, reduction="none").sum(0, True)  # noqa: E731
    batches = [(inputs, torch.arange(12) % 5)]
    found = fisher.fisher_diagonal(Net().eval(), batches, loss=each(None))
    agree(found, loop(Net().eval(), batches, lambda model: F.cross_entropy))


@pytest.mark.parametrize("loss", [None, nn.CrossEntropyLoss, "cross_entropy"])
def test_what_is_no_loss_is_refused(inputs, loss):
    with pytest.raises(UserError, match=r"loss: expected a function .*, got (the class|str|None)"):
        fisher.fisher_diagonal(Net().eval(), [], loss=loss)


@pytest.mark.parametrize("device", ["cuda:99", "nowhere", 3.5, "", "meta"])
def test_a_device_that_is_not_there(inputs, device):
    with pytest.raises(UserError, match=f"device '{device}': cannot be computed on"):
        fisher.fisher_diagonal(Net().eval(), [], loss=F.cross_entropy, device=device)


def test_a_relu_that_switches_by_rounding_is_no_difference(capfd, monkeypatch):
    torch.manual_seed(6)
    model = networks.build("resnet18", image_shape=(3, 32, 32), target=Classes(10), seed=6).eval()
    batch = (torch.rand(4, 3, 32, 32), torch.arange(4))
    found = [
        fisher.fisher_diagonal(model, [batch], loss=F.cross_entropy, check=check)
        for check in (False, "first")
    ]
    assert all(torch.equal(found[1][name], value) for name, value in found[0].items())
    assert not capfd.readouterr().err
    monkeypatch.setattr(engine, "shaken", lambda inputs, sign: inputs)
    fisher.fisher_diagonal(model, [batch], loss=F.cross_entropy)
    if not capfd.readouterr().err:
        pytest.skip("no ReLU switches on this processor")
