"""Spaces, genotypes, the networks they build, MACs, and FUSE."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ftd import artifacts, search, slice, train
from ftd.config import OPERATIONS, Search, SpaceSettings, Train
from ftd.errors import UserError
from ftd.macs import forward_macs
from ftd.search import cells, fuse
from ftd.search.space import Genotype, Skeleton, Space
from ftd.target import Classes

SMALL = Space(("none", "skip_connect", "sep_conv_3x3"), (Skeleton(3, 1, 2), Skeleton(3, 2, 2)))


# Space ------------------------------------------------------------------------------------------


def test_size_counts_distinct_encodings():
    everything = [SMALL[number] for number in range(SMALL.size)]
    assert SMALL.size == 3**2 + 3**6 == len(set(everything))
    assert all(genotype in SMALL for genotype in everything)
    assert SMALL.size_log10 == pytest.approx(math.log10(738))
    with pytest.raises(IndexError):
        SMALL[SMALL.size]
    full = Space.full(SpaceSettings())
    assert full.size == 10**12  # six edges in each of two cells


def test_sampling_is_uniform_and_distinct():
    space = Space(SMALL.operations, SMALL.skeletons[:1])
    rng = random.Random(0)
    counts = dict.fromkeys((space[i] for i in range(9)), 0)
    for _ in range(900):
        counts[space.sample(1, rng)[0]] += 1
    chi2 = sum((count - 100) ** 2 / 100 for count in counts.values())
    assert chi2 < 26.1  # 0.999 quantile for 8 degrees of freedom
    drawn = space.sample(20, rng, without=[space[0]])
    assert len(drawn) == len(set(drawn)) == 8 and space[0] not in drawn


@settings(deadline=None)
@given(st.integers(0, SMALL.size - 1))
def test_genotypes_are_plain_data(number):
    genotype = SMALL[number]
    assert Genotype.from_json(genotype.to_json()) == genotype


@pytest.mark.parametrize("spoil", ["skeleton", "operation", "input"])
def test_bad_genotypes_are_refused(spoil):
    value = SMALL[100].to_json()
    if spoil == "skeleton":
        del value["skeleton"]["nodes"]
    elif spoil == "operation":
        value["normal"][0][0][0] = "sep_conv_9x9"
    else:
        value["normal"][1][1][1] = 7
    with pytest.raises(UserError, match="no genotype"):
        Genotype.from_json(value)


def test_restriction_keeps_what_the_genotypes_use():
    genotype = next(g for g in map(SMALL.__getitem__, range(738)) if len(g.operations) == 2)
    restricted = SMALL.restrict([genotype])
    assert set(restricted.operations) == genotype.operations
    assert restricted.skeletons == (genotype.skeleton,)
    assert genotype in restricted and restricted.size < SMALL.size
    assert SMALL.restrict([]) == SMALL


# Networks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", [op for op in OPERATIONS if op != "none"])
def test_operations_keep_channels_and_halve_maps(name, stride):
    for side in (8, 7, 3):
        out = cells.operation(name, 4, stride)(torch.randn(2, 4, side, side))
        assert out.shape == (2, 4, -(-side // stride), -(-side // stride))


def test_parameter_counts_of_the_darts_operations():
    def count(name, stride=1, c=16):
        return sum(p.numel() for p in cells.operation(name, c, stride).parameters())

    assert count("sep_conv_3x3") == 2 * (16 * 9 + 16 * 16 + 2 * 16)
    assert count("dil_conv_5x5") == 16 * 25 + 16 * 16 + 2 * 16
    assert count("conv_7x1_1x7") == 2 * 7 * 16 * 16 + 2 * 16
    assert count("skip_connect") == 0 and count("skip_connect", 2) == 16 * 16 + 2 * 16
    assert count("max_pool_3x3") == 0


def test_a_cell_computes_its_graph():
    cell = ((("skip_connect", 0),), (("avg_pool_3x3", 0), ("skip_connect", 1)))
    module = cells.CellModule(cell, 5, 4, reduction=False).eval()
    x = torch.randn(2, 5, 6, 6)
    state = module.preprocess(x)
    pooled = nn.AvgPool2d(3, 1, 1, count_include_pad=False)(state)
    expected = torch.cat([state, pooled + state], dim=1)
    torch.testing.assert_close(module(x), expected)


def test_a_node_without_operations_is_zero():
    cell = ((("none", 0),), (("none", 0), ("skip_connect", 1)))
    for reduction, side in ((False, 7), (True, 4)):
        out = cells.CellModule(cell, 3, 4, reduction=reduction)(torch.randn(2, 3, 7, 7))
        assert out.shape == (2, 8, side, side) and not out.any()


def test_macs_of_known_layers():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 36, 5))
    assert forward_macs(model, (3, 6, 6)) == 36 * 8 * 3 * 9 + 8 * 36 * 5
    assert model.training


# FUSE -------------------------------------------------------------------------------------------

FAST = Search(
    space=SpaceSettings(nodes=[1], channels=[2]),
    samples=60,
    alternations=2,
    alpha_epochs=3,
    max_generations=2,
)


@pytest.fixture
def task(make_slice):
    return make_slice("zero", {"other": "rest", "zero": [0]})


@pytest.fixture
def data(task, digits):
    parts = {"train": 60, "val": 40}  # a search that asks for another part fails
    return slice.TaskData(slice.read(task), digits / "digits.safetensors", parts)


def run_fuse(data, seed=0, space=None, resume=None, **changes):
    chosen = FAST.model_copy(update=changes)
    space = space or Space.full(FAST.space)
    return fuse.search(space, data, chosen, seed, what="test", resume=resume)


def test_trace_and_accounting(data):
    result = run_fuse(data, max_generations=1, alternations=1)
    phases = [(row["phase"], row["epoch"]) for row in result.trace]
    assert phases == [("weights", 0), *(("alpha", epoch) for epoch in range(3))]
    assert all(sum(row["alpha"]) == pytest.approx(1) for row in result.trace)
    assert result.trace[0]["alpha"] == pytest.approx([1 / 3] * 3)
    assert len(set(result.trace[0]["candidates"])) == 3
    space = Space.full(FAST.space)
    from ftd.seeds import seed_of

    candidates = space.sample(3, random.Random(seed_of("candidates", 0, 0)))
    forward = sum(
        forward_macs(cells.build(g, channels=1, labels=2, seed=0), (1, 8, 8)) for g in candidates
    )
    assert result.macs == forward * (60 * 3 + 40)
    last = result.trace[-1]
    winner = last["candidates"][max(range(3), key=lambda c: last["alpha"][c])]
    assert fuse.name_of(result.genotype) == winner


def test_the_incumbent_stays_and_others_are_new(data):
    result = run_fuse(data, patience=9, max_generations=3)
    sets = [row["candidates"] for row in result.trace if row["phase"] == "weights"]
    rows = [row for row in result.trace if row["phase"] == "alpha"]
    for before, after in zip(range(2), range(1, 3), strict=True):
        last = [row for row in rows if row["generation"] == before][-1]
        winner = last["candidates"][max(range(3), key=lambda c, row=last: row["alpha"][c])]
        first = next(row for row in result.trace if row["generation"] == after)
        assert first["candidates"][0] == winner and len(set(first["candidates"])) == 3
    assert len(sets) >= 3


def test_patience_ends_the_search(data):
    result = run_fuse(data, patience=1, max_generations=50)
    assert result.survived == 1 and result.generations < 50


def test_a_space_no_larger_than_the_candidates_needs_one_generation(data):
    one = Space(("skip_connect",), (Skeleton(3, 1, 2),))
    result = run_fuse(data, space=one, max_generations=5)
    assert result.generations == 1 and result.genotype == one[0]


def test_equal_seeds_equal_searches_and_a_killed_one_resumes(data, tmp_path, monkeypatch):
    def timeless(result):
        return result.genotype, [
            {key: value for key, value in row.items() if key != "seconds"} for row in result.trace
        ]

    whole = run_fuse(data, patience=9, max_generations=3)
    assert timeless(run_fuse(data, patience=9, max_generations=3)) == timeless(whole)
    resume = tmp_path / "resume.json"
    calls = []
    generation = fuse._generation

    def dying(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return generation(*arguments)

    monkeypatch.setattr(fuse, "_generation", dying)
    with pytest.raises(KeyboardInterrupt):
        run_fuse(data, patience=9, max_generations=3, resume=resume)
    again = run_fuse(data, patience=9, max_generations=3, resume=resume)
    assert len(calls) == 4  # two before the kill, the one killed, and that one again
    assert timeless(again) == timeless(whole) and again.macs == whole.macs


def test_a_state_of_other_settings_is_ignored(data, tmp_path):
    resume = tmp_path / "resume.json"
    run_fuse(data, resume=resume)
    other = run_fuse(data, seed=1, resume=resume)
    assert other.genotype == run_fuse(data, seed=1).genotype


def test_a_search_that_diverges_says_so(data, tmp_path, monkeypatch):
    state = tmp_path / "resume.json"
    with pytest.raises(UserError, match=r"test: the training loss became .*lower its"):
        run_fuse(data, resume=state, learning_rate=1e30, weight_epochs=3)
    logits = fuse._val_logits
    broken = lambda models, data: (logits(models, data)[0] / 0, logits(models, data)[1])  # noqa: E731
    monkeypatch.setattr(fuse, "_val_logits", broken)
    with pytest.raises(UserError, match=r"test: the loss on val became nan; lower its"):
        run_fuse(data, resume=state)
    assert not state.exists()


def test_alpha_learns_which_candidate_is_right():
    targets = torch.arange(90) % 3
    right = 5.0 * nn.functional.one_hot(targets, 3)
    logits = torch.stack([torch.randn(90, 3), right, torch.randn(90, 3)])
    alpha = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([alpha], 0.1)
    generator = torch.Generator().manual_seed(0)
    losses = [
        fuse._alpha_epoch(alpha, logits, targets, Classes(3), FAST, generator, optimizer)
        for _ in range(20)
    ]
    assert losses[-1] < losses[0] and alpha.softmax(0)[1] > 0.7
    expected = sum(w * c for w, c in zip(alpha.softmax(0), logits, strict=True))
    torch.testing.assert_close(fuse.fused(alpha, logits), expected)


# Stages -----------------------------------------------------------------------------------------


def run_search(task, digits, folder, donors=()):
    return search.run(
        task,
        digits / "digits.safetensors",
        list(donors),
        seed=0,
        search_seed=0,
        settings=FAST,
        genotype_out=folder / "genotype.json",
        trace_out=folder / "trace.parquet",
    )


def test_search_is_restricted_to_the_donors_and_the_winner_trains(task, digits, tmp_path):
    first = run_search(task, digits, tmp_path / "first")
    assert first["space_log10"] == pytest.approx(2) and first["donors"] == []
    second = run_search(task, digits, tmp_path / "second", [tmp_path / "first" / "genotype.json"])
    used = Genotype.from_json(first["genotype"]).operations
    assert second["donors"] == ["zero"] and set(second["space"]["operations"]) == used
    assert Genotype.from_json(second["genotype"]).operations <= used
    assert not (tmp_path / "second" / "resume.json").exists()
    trace = artifacts.read_table(tmp_path / "second" / "trace.parquet")
    assert {"loss", "alpha", "macs", "seconds"} <= set(trace.column_names)

    metrics = train.run(
        tmp_path / "first" / "genotype.json",
        task,
        digits / "digits.safetensors",
        seed=0,
        settings=Train(epochs=2),
        weights_out=tmp_path / "weights.safetensors",
        metrics_out=tmp_path / "metrics.json",
    )
    model, facts = train.load(tmp_path / "weights.safetensors")
    assert metrics["parameters"] == sum(p.numel() for p in model.parameters())
    assert metrics["search_macs"] == first["search_macs"]
    data = slice.TaskData(slice.read(task), digits / "digits.safetensors", {"test": None})
    images, labels = next(data.batches("test", 10_000))
    with torch.no_grad():
        hits = (model(images).argmax(1) == labels).double().mean().item()
    assert hits == pytest.approx(metrics["accuracy"])
    assert facts["labels"] == ["other", "zero"] and facts["mean"]


def test_search_never_loads_the_test_part(task, digits, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        slice, "TaskData", lambda task, images, parts: loaded.append(parts) or exit_search()
    )

    def exit_search():
        raise UserError("seen enough")

    with pytest.raises(UserError, match="seen enough"):
        run_search(task, digits, tmp_path)
    assert [set(parts) for parts in loaded] == [{"train", "val"}]
