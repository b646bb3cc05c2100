"""Scores of untrained networks, against what they are by hand."""

import math
import random

import numpy as np
import pytest
import torch
from test_search import FAST, ToyData
from torch import nn

from ftd.config.search_keys import SearchSettings
from ftd.models import cells
from ftd.models.macs import forward_macs
from ftd.parts import SEARCHERS, resolve
from ftd.runtime.seeds import seed_of
from ftd.search.ledger import Ledger
from ftd.search.space import Space
from ftd.search.zero_cost import scores, untrained
from ftd.store import resume
from ftd.store.resume import Resume
from ftd.tasks.targets.classes import Classes

METHODS = ["synflow", "jacobian-covariance", "zen", "parameters", "macs"]


class Pair(nn.Module):
    """Two linear layers with a batch norm between, and a head."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2)
        self.head = nn.Linear(2 * 4, 3)

    def features(self, x):
        return self.norm(self.first(x))

    def forward(self, x):
        return self.head(self.features(x).flatten(1))


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return Pair()


def drawn():
    return torch.Generator().manual_seed(1)


def test_synflow_is_the_flow_through_all_layers(pair):
    """Each layer of a linear network without biases has the same flow, the sum of its outputs."""
    with torch.no_grad():
        pair.head.bias.zero_()
    w, v = pair.first.weight.abs().double().flatten(), pair.head.weight.abs().double()
    w, v = w.detach(), v.detach()
    flow = sum(float(w[c] * v[:, 4 * c : 4 * c + 4].sum()) for c in range(2))
    found = scores.synflow(pair, torch.randn(5, 1, 2, 2), drawn())
    assert found == pytest.approx(math.log(2 * flow))


def test_jacobians_correlation_by_one_image_at_a_time(pair):
    images = torch.randn(6, 1, 2, 2)
    pair.norm = nn.Identity()  # so that images do not see each other
    rows = [
        torch.autograd.functional.jacobian(lambda x: torch.tanh(pair(x)).sum(), image[None])
        for image in images
    ]
    net = nn.Sequential(pair, nn.Tanh())
    values = np.linalg.eigvalsh(np.corrcoef(torch.stack(rows).flatten(1).double().numpy()))
    values = np.clip(values, 0, None) + 1e-5
    wanted = -(np.log(values) + 1 / values).sum()
    assert scores.jacobian_covariance(net, images, drawn()) == pytest.approx(wanted, rel=1e-3)


def test_zen_is_the_gain_times_what_batch_norms_divide_by(pair):
    images = torch.empty(7, 1, 2, 2)
    generator = drawn()
    w = torch.randn(2, 1, 1, 1, generator=generator).flatten()
    torch.randn(3, 8, generator=generator)  # the head's
    x, noise = (torch.randn(images.shape, generator=generator) for _ in range(2))
    spread = [w[c].square() * x.var(unbiased=False) for c in range(2)]

    def f(values):
        own = values.var(unbiased=False)
        return [
            w[c] * (values - values.mean()) / (w[c].square() * own + 1e-5).sqrt() for c in range(2)
        ]

    moved = [
        (a - b).abs().flatten(1).sum(1) for a, b in zip(f(x), f(x + 0.01 * noise), strict=True)
    ]
    wanted = (moved[0] + moved[1]).mean().log() + (sum(spread) / 2).sqrt().log()
    assert scores.zen(pair, images, drawn()) == pytest.approx(float(wanted), rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_the_highest_score_is_found_and_nothing_is_trained(method):
    kind, data = SEARCHERS.get(method), ToyData()
    settings = SearchSettings(own=kind.settings(candidates=7, images=8))
    space = Space.full(FAST.space)
    result = resolve(kind.search)(space, data, settings, 3, **kind.options)
    found = {one.genotype: one.score for one in result.candidates}
    drawn = space.sample(7, random.Random(seed_of("candidates", 3)))
    connected = {genotype for genotype in drawn if "none" not in genotype.operations}
    assert connected <= set(found) <= set(drawn) and len(connected) > 3
    assert found[result.genotype] == max(found.values())
    assert all(map(math.isfinite, found.values()))
    built = [
        cells.build(genotype, image_shape=(1, 4, 8), target=Classes(2), seed=0)
        for genotype in drawn
    ]
    macs = sum(forward_macs(net, (1, 4, 8)) for net in built)
    passes = {"synflow": 3, "jacobian-covariance": 3, "zen": 2}.get(method, 0)
    assert result.macs == macs * passes * 8
    if method == "parameters":
        assert list(found.values()) == [sum(p.numel() for p in net.parameters()) for net in built]
    again = resolve(kind.search)(space, data, settings, 3, **kind.options)
    assert again.genotype == result.genotype


def test_a_killed_search_resumes_with_the_same_images(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "KEEP_EVERY", 0)
    kind, space = SEARCHERS.get("jacobian-covariance"), Space.full(FAST.space)
    settings = SearchSettings(own=kind.settings(candidates=7, images=8))

    def run(ledger):
        return untrained.search(space, ToyData(), settings, 3, ledger=ledger, **kind.options)

    whole, build, built = run(Ledger()), untrained.build, []

    def dying(*arguments, **more):
        built.append(1)
        if len(built) == 4:
            raise KeyboardInterrupt
        return build(*arguments, **more)

    monkeypatch.setattr(untrained, "build", dying)
    state = tmp_path / "zero.resume"
    with pytest.raises(KeyboardInterrupt):
        run(Ledger(resume=Resume(state, {})))
    again = run(Ledger(resume=Resume(state, {})))
    assert len(built) == 4 + 4  # three are not scored again
    assert again.candidates == whole.candidates and again.macs == whole.macs
