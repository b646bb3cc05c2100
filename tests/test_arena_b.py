"""Arena B: plan and configurations; gate, statistics and page by hand; a seed, really run."""

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from conftest import ROOT, jobs
from scipy import stats

from evidence import (
    arena_b,
    arena_b_contrasts,
    arena_b_gate,
    arena_b_page,
    arena_b_plan,
    arena_b_scores,
    contrasts,
    running,
)
from ftd import config, store
from ftd.errors import UserError
from ftd.models.cells import build
from ftd.models.genotype import Genotype
from ftd.search.space import Space
from ftd.tasks.targets.classes import Classes

PLAN = arena_b_plan.load(ROOT / arena_b_plan.PLACE)
GATE = PLAN.gate


@pytest.fixture
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def asked(name, budget, *, described=False):
    return config.load(*arena_b_plan.files_of(name, budget, described=described))


# The plan ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", arena_b_plan.BUDGETS)
@pytest.mark.parametrize("name", PLAN.sets)
def test_configurations_are_the_plan_s(name, budget, at_root):
    found, one = asked(name, budget), PLAN.of(name)
    search = found.search
    assert search.max_macs == one.max_macs[arena_b_plan.BUDGETS.index(budget)]
    assert one.max_macs[0] == 4 * one.max_macs[1]
    assert search.tasks == [one.target] == [*found.tasks][-1:]
    assert set(search.methods) == set(PLAN.contrasted)
    assert search.library == "surrogate" and len(search.seeds) == 1
    assert all(dataset.parts.pooled for dataset in found.datasets.values())
    home = found.tasks[one.target].dataset
    learned = [task.dataset for task in found.tasks.values() if task.dataset != home]
    assert len(learned) == len(found.tasks) - 1 >= 6 and len(set(learned)) >= 2
    more = asked(name, budget, described=True)
    assert set(more.search.methods) > set(search.methods)
    keys = {"search": more.search.model_copy(update={"methods": search.methods})}
    assert more.model_copy(update=keys) == found


@pytest.mark.parametrize("name", PLAN.sets)
def test_no_network_of_the_space_is_larger_than_the_plan_allows(name, at_root):
    found = asked(name, "B")
    space = Space.full(found.search.space)
    (skeleton,), image = space.skeletons, found.image
    shape = image.channels, image.size, image.size
    target, sizes = Classes(20), []  # more than any new task has
    for operation in space.operations:  # an edge's weights do not depend on the others
        nodes = [((operation, 0),) for _ in skeleton.slots]
        genotype = Genotype.of(skeleton, nodes)
        assert genotype in space
        net = build(genotype, image_shape=shape, target=target, seed=0)
        sizes.append(sum(p.numel() for p in net.parameters()))
    assert max(sizes) <= PLAN.max_parameters


@pytest.mark.parametrize("name", PLAN.sets)
def test_a_set_s_workflow_is_planned_without_its_data(name, tmp_path):
    files = [str(ROOT / f) for f in arena_b_plan.files_of(name, "B/4", described=True)]
    command = [sys.executable, "-m", "snakemake", "-n", "--snakefile", str(ROOT / "Snakefile")]
    command += ["compare", "--cores", "1", "--configfile", *files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    planned = jobs(done.stdout + done.stderr)
    assert planned["probe"] == 14 and planned["selection"] == 1


def test_a_seed_stands_once():
    with pytest.raises(ValueError, match="a seed is listed twice"):
        arena_b_plan.SeedLists(development=[1, 2], confirmation=[2], described=1)


# Statistics -------------------------------------------------------------------------------------


def test_intervals_are_those_of_a_percentile_bootstrap():
    rng = np.random.default_rng(1)
    one = rng.normal(0.01, 0.02, 12)
    found = contrasts.interval(contrasts.resampled([one], 20_000), 0.95)
    wanted = stats.bootstrap(
        (one,), np.mean, n_resamples=20_000, method="percentile", random_state=2
    ).confidence_interval
    np.testing.assert_allclose(found, wanted, atol=5e-4)


def test_sets_count_alike_and_are_drawn_apart():
    by_set = [np.full(12, 0.02), np.full(3, -0.01)]
    means = contrasts.resampled(by_set, 200)
    np.testing.assert_allclose(means, 0.005)
    assert contrasts.p_not_above(means, 0.0) == 1 / 201
    assert contrasts.p_not_above(means, 0.01) == 1.0


def test_holm_by_hand():
    assert contrasts.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert contrasts.holm([0.5, 0.9]) == [1.0, 1.0]


def test_what_is_detectable_by_hand():
    units = 1.959964 + 0.841621
    assert contrasts.detectable(0.02, 16, 0.95, 0.8) == pytest.approx(units * 0.005, rel=1e-5)
    assert contrasts.seeds_for(0.01, 0.02, 0.95, 0.8) == math.ceil((2 * units) ** 2) == 32


# The gate ---------------------------------------------------------------------------------------


def table(between=0.05, within=0.01, level=0.6, noise=0.0, count=200):
    """Early and final accuracies [count, 2]."""
    rng = np.random.default_rng(0)
    means = level + between * rng.standard_normal(count)
    final = means[:, None] + within * rng.standard_normal((count, 2))
    early = means[:, None] - 0.2 + noise * rng.standard_normal((count, 2))
    return early, final


def test_a_gate_s_deviations_are_those_it_was_made_with():
    decision = arena_b_gate.decide(*table(), 0.1, GATE)
    assert decision.within == pytest.approx(0.01, rel=0.15)
    assert decision.between == pytest.approx(0.05, rel=0.15)
    assert decision.goes_on and decision.correlation > 0.95


@pytest.mark.parametrize(
    ("changes", "most_frequent", "missed"),
    [
        ({"within": 0.04}, 0.1, "ratio"),
        ({}, 0.55, "above"),
        ({"noise": 0.5}, 0.1, "correlation"),
    ],
)
def test_a_gate_names_what_is_missed(changes, most_frequent, missed):
    decision = arena_b_gate.decide(*table(**changes), most_frequent, GATE)
    assert [key for key, met in decision.passes.items() if not met] == [missed]
    assert not decision.goes_on


def test_what_a_search_chooses_varies_as_all_subsets_say():
    early, final = table(count=7, noise=0.05)
    means, variances = final.mean(1), []
    for column in early.T:
        found = [
            means[max(subset, key=lambda row: column[row])]
            for subset in itertools.combinations(range(7), 3)
        ]
        variances.append(np.var(found))
    wanted = math.sqrt(np.mean(variances) + final.var(1, ddof=1).mean())
    assert arena_b_gate.chosen(early, final, among=3) == pytest.approx(wanted)


# The page ---------------------------------------------------------------------------------------


def rows_of(accuracy, seeds=PLAN.seeds.confirmation, sets=tuple(PLAN.sets)):
    """Rows of all contrasted methods; ``accuracy(method, budget, seed)``."""
    found = []
    for name, budget, method, seed in itertools.product(
        sets, arena_b_plan.BUDGETS, PLAN.contrasted, seeds
    ):
        row = dict.fromkeys(arena_b.COLUMNS) | {"set": name, "seed": seed, "budget": budget}
        row |= {"method": method, "accuracy": accuracy(method, budget, seed)}
        row |= {"val_accuracy": 0.5, "most_frequent": 0.1, "parameters": 5000, "macs": 1}
        row |= {"train_seconds": 1.0, "search_macs": 10**9, "search_seconds": 9.0}
        row |= {"preparation_macs": 2 * 10**9, "learned_macs": 3 * 10**9, "edges": 4}
        found.append(row | {"donors": "", "genotype": "{}"})
    return found


def level(method, budget, seed):
    """ftd-nas two points above random search at B, and a point and a half below DARTS at B/4."""
    found = 0.7 + seed % 7 / 100
    found += 0.02 * (method == "ftd-nas" and budget == "B")
    return found + 0.015 * (method == "darts-1st" and budget == "B/4")


def test_bars_follow_from_the_rows():
    rows = pd.DataFrame(rows_of(level))
    first, second, third = arena_b_contrasts.bars(rows, PLAN, [*PLAN.sets])
    assert first.met is False and first.why.endswith("ftd-nas − darts-1st -1.5")
    assert second.met is True and second.why == "interval +2.00 to +2.00 points"
    assert third.met is True
    fewer = rows[~((rows["seed"] == PLAN.seeds.confirmation[0]) & (rows["set"] == "mnist"))]
    assert [bar.met for bar in arena_b_contrasts.bars(fewer, PLAN, [*PLAN.sets])] == [None] * 3


def test_p_values_are_adjusted_for_all_pooled_contrasts():
    found = arena_b_contrasts.found(pd.DataFrame(rows_of(level)), PLAN)
    assert len(found) == len(arena_b_contrasts.planned(PLAN)) == 15
    draws = PLAN.statistics.draws
    least = min(each["pooled"].p for each in found.values())
    assert least == pytest.approx(15 / (1 + draws))
    assert {name for each in found.values() for name in each} == {*PLAN.sets, "pooled"}


def test_the_page_tells_what_its_tables_hold(tmp_path, monkeypatch, at_root):
    monkeypatch.setattr(arena_b_page, "PAGE", tmp_path / "arena-b.md")
    monkeypatch.setattr(arena_b_page, "ROWS", tmp_path / "rows.parquet")
    monkeypatch.setattr(arena_b_page, "FOLDER", tmp_path)
    monkeypatch.setattr(arena_b_gate, "FOLDER", tmp_path)
    early, final = table(count=20)
    for name in PLAN.sets:
        columns = {"number": np.repeat(range(20), 2), "repeat": np.tile([0, 1], 20)}
        columns |= {"early": early.ravel(), "final": final.ravel()}
        store.write_table(
            tmp_path / f"gate-{name}.parquet", pa.table(columns), {"most_frequent": 0.1}
        )
    developed = rows_of(lambda *_: None, PLAN.seeds.development[:1], ("mnist",))
    rows = pa.Table.from_pylist([*rows_of(level), *developed])
    store.write_table(tmp_path / "rows.parquet", rows)
    arena_b_page.write()
    text = (tmp_path / "arena-b.md").read_text()
    assert (
        "better than random search pooled over the sets: **met**; interval +2.00 to +2.00" in text
    )
    assert "| ftd-nas − random | B | pooled | 36 | +2.00 (+2.00 to +2.00) | 0.0 | better |" in text
    # Over seven, the seeds from 101 leave 3 4 5 6 0 1 2 3 4 5 6 0.
    spread = (sum((left - 3.25) ** 2 for left in [3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 0]) / 11) ** 0.5
    assert f"| random | 12 | 73.25 ± {spread:.2f} | 5,000 | 1.0 | 3.0 | 6.0 | 9 |  |" in text
    assert text.count("| yes |") == len(PLAN.sets)
    assert "**mnist, B: development, on `val`**" in text


def test_the_committed_page_is_what_its_tables_give(tmp_path, monkeypatch, at_root):
    monkeypatch.setattr(arena_b_page, "PAGE", tmp_path / "arena-b.md")
    arena_b_page.write()
    assert (tmp_path / "arena-b.md").read_text() == Path("docs/arena-b.md").read_text()


# A seed, really run -----------------------------------------------------------------------------

TINY = {
    "seed": 7,
    "experiment": "arena-tiny",
    "image": {"size": 8, "channels": 1},
    "datasets": {"digits": {"loader": "sklearn-digits"}},
    "tasks": {
        "six": {"dataset": "digits", "labels": {"other": "rest", "six": [6]}},
        "zero": {"dataset": "digits", "labels": {"other": "rest", "zero": [0]}},
        "new": {"dataset": "digits", "labels": {"other": "rest", "three": [3]}},
    },
    "trials": 1,
    "probe": {"epochs": 1, "epsilon": 0.9},
    "fisher": {"samples": 20},
    "search": {
        "tasks": ["new"],
        "methods": ["ftd-nas-nearest", "ftd-nas-farthest", "random"],
        "library": "surrogate",
        "max_macs": 4_000_000,
        "samples": 40,
        "space": {"channels": [2], "nodes": [1], "fan_in": 1},
        "sequential": {"epochs": 1},
        "random": {"candidates": 2},
        "pc_darts": {"partial": 2, "epochs": 2, "warm_up": 1, "batch_size": 20},
        "darts": {"epochs": 2, "batch_size": 20},
        "te_nas": {"ntk_images": 3, "region_samples": 30, "repeats": 1},
    },
    "train": {"epochs": 1, "samples": 60},
}


ENDS = ("nearest", "farthest")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A plan of one set of the digits, in a folder from which the workflow runs."""
    for name in ("Snakefile", "rules", "report", "ftd", "evidence", "profiles"):
        (tmp_path / name).symlink_to(ROOT / name)
    configs = {
        "tiny": TINY,
        "methods": {"trials": 1},
        "others": {"search": {"methods": ["ftd-nas-nearest", "random", "parameters"]}},
        "quarter": {"trials": 1},
        "tiny-quarter": {"search": {"max_macs": 1_000_000}},
    }
    monkeypatch.chdir(tmp_path)
    for name, content in configs.items():
        Path("config/arena").mkdir(parents=True, exist_ok=True)
        Path(f"config/arena/{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    plan = yaml.safe_load((ROOT / arena_b_plan.PLACE).read_text())
    plan["sets"] = {"tiny": {"target": "new", "max_macs": [4_000_000, 1_000_000]}}
    arena_b_plan.FOLDER.mkdir(parents=True)
    arena_b_plan.PLACE.write_text(yaml.safe_dump(plan))
    return tmp_path


@pytest.mark.slow
def test_a_seed_runs_at_both_budgets_and_is_kept(tiny):
    seed = PLAN.seeds.development[0]
    arena_b.run("tiny", seed, configs=[], settings=[], cores=2)
    rows = store.read_table(arena_b.ROWS).to_pandas()
    assert set(rows["budget"]) == {"B", "B/4"} and len(rows) == 6
    assert rows["accuracy"].isna().all() and rows["val_accuracy"].notna().all()
    assert set(rows["seed"]) == {seed}
    nearest, farthest = (rows[rows["method"] == f"ftd-nas-{which}"] for which in ENDS)
    assert (farthest["preparation_macs"] > 0).all() and (farthest["learned_macs"] > 0).all()
    results = Path("results") / f"arena-tiny-{seed}"
    assert (nearest["edges"] == 0).all() and (farthest["edges"] <= 6).all()
    assert {*nearest["donors"], *farthest["donors"]} == {"six", "zero"}
    # Learned tasks are searched on their own, by the method that is asked for.
    searched = {path.parts[-4:-2] for path in results.rglob("genotype.json")}
    learned = [store.read_json(path) for path in results.rglob("surrogate/*/0/genotype.json")]
    assert {task for method, task in searched if method == "surrogate"} == {"six", "zero"}
    assert all(not each["donors"] for each in learned)
    others = rows[rows["method"] == "random"]
    assert (others["preparation_macs"] == 0).all() and others["edges"].isna().all()
    assert arena_b.keep([results]) == 3 and len(store.read_table(arena_b.ROWS)) == 6


def test_seeds_wait_for_the_gate(tiny, monkeypatch):
    monkeypatch.setattr(running, "run", lambda *_: pytest.fail("started"))
    with pytest.raises(UserError, match="neither of development nor to confirm"):
        arena_b.run("tiny", 5, configs=[], settings=[], cores=1)
    with pytest.raises(UserError, match="no gate yet; first: python -m evidence arena-gate"):
        arena_b.run("tiny", PLAN.seeds.confirmation[0], configs=[], settings=[], cores=1)
    with pytest.raises(UserError, match=r"no set 'tin' in docs/arena-b/plan\.yaml; known: tiny"):
        arena_b.run("tin", 5, configs=[], settings=[], cores=1)


def test_a_gate_is_run_and_read_again(tiny):
    plan = yaml.safe_load(arena_b_plan.PLACE.read_text())
    plan["gate"] |= {"architectures": 3}
    arena_b_plan.PLACE.write_text(yaml.safe_dump(plan))
    decision = arena_b_gate.run("tiny", configs=[], settings=[])
    assert decision == arena_b_gate.read("tiny", arena_b_plan.load().gate)
    kept = store.read_table(arena_b_plan.FOLDER / "gate-tiny.parquet").to_pandas()
    assert len(kept) == 6 and kept[["early", "final"]].map(lambda x: 0 <= x <= 1).all().all()
    assert (kept.groupby("number")["genotype"].nunique() == 1).all()


def test_scores_of_two_draws_are_compared(tiny):
    plan = yaml.safe_load(arena_b_plan.PLACE.read_text())
    plan["gate"] |= {"architectures": 3}
    arena_b_plan.PLACE.write_text(yaml.safe_dump(plan))
    found = arena_b_scores.run("tiny", configs=[], settings=[])
    assert found["method"].tolist() == ["darts-1st", "pc-darts-1st", *["te-nas"] * 4]
    assert found["rho"].between(-1, 1).all()
    # After two epochs α is where it began, at random, and two seeds begin apart.
    assert abs(found["rho"][0]) < 0.9
    kept = store.read_table(arena_b_plan.FOLDER / "scores-tiny.parquet").to_pandas()
    pd.testing.assert_frame_equal(kept, found)
