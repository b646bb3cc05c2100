"""Fisher diagonals against a plain per-sample autograd loop in double precision."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ftd import fisher, networks
from ftd.errors import UserError


def oracle(model, inputs, targets, loss):
    """Mean of squared per-sample gradients, one backward pass a sample, float64."""
    model = model.double()
    total = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for x, y in zip(inputs.double(), targets, strict=True):
        model.zero_grad()
        loss(model(x[None]), y[None]).backward()
        for name, value in model.named_parameters():
            total[name] += value.grad**2
    return {name: value / len(inputs) for name, value in total.items()}


def check(model, inputs, targets, loss, batch=7):
    model.eval()
    batches = list(zip(inputs.split(batch), targets.split(batch), strict=True))
    found = fisher.fisher_diagonal(model, batches, loss=loss)
    expected = oracle(model, inputs, targets, loss)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].shape == value.shape and found[name].dtype == torch.float64
        error = (found[name] - value).abs().max().item()
        assert error <= 1e-5 * value.abs().max().item() + 1e-30, name


def with_norms():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, groups=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=3, padding_mode="circular"),
        nn.GroupNorm(2, 6),
        nn.Flatten(),
        nn.Linear(54, 5),
        nn.LayerNorm(5),
        nn.Linear(5, 4, bias=False),
    )


MODELS = {
    "small-cnn": lambda: networks.build("small-cnn", channels=1, size=8, labels=4, seed=0),
    "norms and groups": with_norms,
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4)),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_equals_the_loop(model):
    torch.manual_seed(0)
    inputs, targets = torch.randn(23, 1, 8, 8), torch.randint(4, (23,))
    check(model(), inputs, targets, F.cross_entropy)


@pytest.mark.parametrize("labels", [2, 4, 7])
def test_other_label_counts_pad_or_keep_the_logits(labels):
    torch.manual_seed(0)
    inputs, targets = torch.randn(11, 1, 8, 8), torch.arange(11) % labels
    model = MODELS["small-cnn"]()
    check(model, inputs, targets % 4 if labels < 4 else targets, fisher.task_loss(labels))
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    expected = F.cross_entropy(F.pad(logits, (0, max(0, labels - 4))), torch.tensor([1]))
    assert fisher.task_loss(labels)(logits, torch.tensor([1])) == expected


@pytest.mark.parametrize("budget", [1, 10_000, 10**9])
def test_chunks_and_batches_change_nothing_but_rounding(monkeypatch, budget):
    monkeypatch.setattr(fisher, "_GRADIENT_BYTES", budget)
    torch.manual_seed(0)
    inputs, targets = torch.randn(12, 1, 8, 8), torch.randint(4, (12,))
    for batch in (1, 5, 12):
        check(MODELS["small-cnn"](), inputs, targets, F.cross_entropy, batch)


def test_leaves_the_model_as_it_was():
    model = MODELS["norms and groups"]().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = [(torch.randn(4, 1, 8, 8), torch.randint(4, (4,)))]
    fisher.fisher_diagonal(model, batches, loss=F.cross_entropy)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.grad is None and value.requires_grad for value in model.parameters())


def test_refuses_training_mode_and_no_samples():
    model = MODELS["small-cnn"]()
    with pytest.raises(UserError, match="training mode"):
        fisher.fisher_diagonal(model.train(), [], loss=F.cross_entropy)
    with pytest.raises(UserError, match="no samples"):
        fisher.fisher_diagonal(model.eval(), [], loss=F.cross_entropy)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_degenerate_trace_names_probe_and_task(value):
    with pytest.raises(UserError, match=r"probe a on task b: .*trace"):
        fisher.unit_trace({"w": torch.full((3,), value)}, "probe a on task b")
