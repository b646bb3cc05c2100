"""Tables of whole spaces: reading, searching by look-up, and the benchmark against exact means."""

import itertools
import math
import random

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from evidence import commands
from evidence import nas_tables as tabular
from evidence import tabular_search as bench
from ftd import store
from ftd.errors import UserError
from ftd.models.genotype import edges_changed
from ftd.search.enas import Enas
from ftd.search.enas.controller import Controller
from ftd.search.space import Space, restrict

DIGITS = ["".join(digits) for digits in itertools.product("0123", repeat=6)]
TASKS = ("one", "two", "far")
NB201 = tuple(tabular.LAYOUTS["nas-bench-201"].operations)


def transnas() -> pd.DataFrame:
    """Sums of the edges' scores: those of *two* are almost those of *one*, of *far* opposite."""
    rng = np.random.default_rng(0)
    scores = np.array([0.0, 0.2, 0.9, 1.0]) + 0.3 * rng.standard_normal((6, 4))
    near = scores + 0.1 * rng.standard_normal((6, 4))
    edges = np.array([[int(digit) for digit in digits] for digits in DIGITS])
    frame = pd.DataFrame({"arch": [f"64-41414-{d[0]}_{d[1:3]}_{d[3:]}" for d in DIGITS]})
    for name, planted in (("one_valid_top1", scores), ("two_valid_ssim", near), ("far", -scores)):
        column = name if "_valid_" in name else f"{name}_valid_neg_loss"
        frame[column] = planted[range(6), edges].sum(1)
    frame["flops_m"] = 1.0
    return frame.sample(frac=1, random_state=1, ignore_index=True)


def write(frame: pd.DataFrame, path):
    frame.to_parquet(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    write(transnas(), folder / "micro.parquet")
    return folder


@pytest.fixture(scope="module")
def table(folder):
    return tabular.read(folder / "micro.parquet", "transnas-micro")


@pytest.fixture(scope="module")
def results(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "CONTROLLER_STEPS", 8)
        bench.run(
            folder / "bench-tabular-micro.parquet",
            table=folder / "micro.parquet",
            layout="transnas-micro",
            repetitions=100,
            controller_seeds=2,
            page=folder / "page.md",
        )
    return store.read_table(folder / "bench-tabular-micro.parquet").to_pandas()


# Reading ----------------------------------------------------------------------------------------


def test_every_line_is_found_under_its_genotype(table):
    assert table.tasks == TASKS and table.seen.shape == (4096, 3)
    names = list(tabular.LAYOUTS["transnas-micro"].operations.values())
    for line in transnas().iloc[::97].itertuples(index=False):
        genotype = tabular.LAYOUTS["transnas-micro"].genotype(line.arch)
        edges = [edge for node in genotype.normal for edge in node]
        assert [source for _, source in edges] == [0, 0, 1, 0, 1, 2]
        digits = line.arch.removeprefix("64-41414-").replace("_", "")
        assert [operation for operation, _ in edges] == [names[int(d)] for d in digits]
        assert genotype in table.space
        assert table.final[table.row(genotype)].tolist() == list(line)[1:4]


def test_percentiles_are_ranks_with_ties_shared(table):
    ranks = tabular.percentiles(np.array([[3.0, 0.0], [1.0, 0.0], [2.0, 5.0]]))
    assert ranks.tolist() == [[1.0, 0.25], [0.0, 0.25], [0.5, 1.0]]
    best = table.row(table.optimum("one"))
    assert table.percentiles[best, 0] == 1 and table.final[best, 0] == table.final[:, 0].max()


def test_a_search_sees_validation_and_gets_the_test_accuracy(tmp_path):
    rng = np.random.default_rng(0)
    cells = itertools.product(NB201, repeat=6)
    archs = [f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|" for a, b, c, d, e, f in cells]
    frame = pd.DataFrame({"arch": archs, "nats_index": range(len(archs))})
    for task in ("cifar10", "cifar100"):
        frame[f"{task}_val"] = rng.uniform(0, 90, len(archs))
        frame[f"{task}_test"] = frame[f"{task}_val"] + rng.normal(0, 9, len(archs))
    path = write(frame, tmp_path / "nb201.parquet")
    found = tabular.read(path, "nas-bench-201")
    assert found.tasks == ("cifar10", "cifar100") and found.space.size == 15625
    assert found.seen[:, 1].tolist() == frame["cifar100_val"].tolist()  # in the space's order
    assert found.final[:, 0].tolist() == frame["cifar10_test"].tolist()
    rows = np.array(
        [tabular.draw_rows(found, found.space, 16, random.Random(n)) for n in range(400)]
    )
    values = found.percentiles[tabular.best_rows(found, "cifar10", rows), 0]
    expected = exact_mean(found.seen[:, 0], found.percentiles[:, 0], 16)
    assert abs(values.mean() - expected) < 4 * values.std() / 20
    genotype, value = tabular.random_search(found, "cifar10", found.space, 16, random.Random(3))
    assert found.row(genotype) == tabular.best_rows(found, "cifar10", rows)[3]
    assert value == found.final[found.row(genotype), found.column("cifar10")]
    path = write(frame.drop(columns="cifar100_val"), tmp_path / "nb201.parquet")
    with pytest.raises(UserError, match="no column cifar100_val"):
        tabular.read(path, "nas-bench-201")


def _spoilt(how: str) -> pd.DataFrame:
    frame = transnas()
    value = "two_valid_ssim"
    if how == "no arch":
        return frame.drop(columns="arch")
    if how == "no results":
        return frame[["arch", "flops_m"]]
    if how == "two results":
        return frame.assign(two_valid_l1=0.0)
    if how == "missing rows":
        return frame[:-2]
    if how == "twice":
        frame.loc[5, "arch"] = frame.loc[0, "arch"]
    if how == "operation":
        frame.loc[3, "arch"] = "64-41414-0_00_004"
    if how == "not a string":
        frame.loc[3, "arch"] = None
    if how == "nan":
        frame.loc[3, value] = math.nan
    if how == "infinite":
        frame.loc[3, value] = -math.inf
    if how == "text":
        frame[value] = "high"
    if how == "constant":
        frame[value] = 1.0
    return frame


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no arch", "no column arch; is this the layout's table"),
        ("no results", "no column of results"),
        ("two results", "two results of two: two_valid_ssim, two_valid_l1"),
        ("missing rows", "2 of 4096 architectures are missing"),
        ("twice", "architecture given twice: 64-41414-"),
        ("operation", "no transnas-micro architecture: '64-41414-0_00_004'"),
        ("not a string", "no transnas-micro architecture: "),
        ("nan", "two_valid_ssim of 64-41414-.* is not a finite number"),
        ("infinite", "two_valid_ssim of 64-41414-.* is not a finite number"),
        ("text", "two_valid_ssim of 64-41414-.* is not a finite number"),
        ("constant", "two_valid_ssim is the same for all architectures"),
    ],
)
def test_bad_tables_are_refused(how, message, tmp_path):
    path = write(_spoilt(how), tmp_path / "bad.parquet")
    with pytest.raises(UserError, match=f"bad.parquet: {message}"):
        tabular.read(path, "transnas-micro")


def test_other_errors_are_the_users(table, folder, tmp_path):
    with pytest.raises(UserError, match=r"no\.parquet: no such file"):
        tabular.read(tmp_path / "no.parquet", "transnas-micro")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(UserError, match="cannot be read"):
        tabular.read(tmp_path / "text.parquet", "transnas-micro")
    with pytest.raises(UserError, match="unknown layout 'transnas'; did you mean"):
        tabular.read(folder / "micro.parquet", "transnas")
    with pytest.raises(UserError, match="no column of results"):
        tabular.read(folder / "micro.parquet", "nas-bench-201")
    with pytest.raises(UserError, match="unknown task 'tow'; did you mean 'two'"):
        table.optimum("tow")
    stranger = next(iter(tabular.LAYOUTS["nas-bench-201"].space.sample(1, random.Random(0))))
    with pytest.raises(UserError, match="no architecture of a transnas-micro table"):
        table.row(stranger)
    single = tabular.Table(table.layout, ("one",), table.seen[:, :1], table.final[:, :1])
    with pytest.raises(UserError, match="at least two tasks"):
        tabular.ranked_sources(single)


# Near and far -----------------------------------------------------------------------------------


def distances_of(pairs: dict[tuple[str, str], float]) -> pd.DataFrame:
    """By a measure of squares and one of others; what counts is the first rows'."""
    rows = [
        {
            **{"measure": measure, "network": network, "trial": trial, "source": s, "target": t},
            **{"distance": -d * sign, "squared_distance": d * sign},
        }
        for measure, network, sign in (
            *(("fisher", "zebra", 1), ("fisher", "ant", -1)),
            ("another", "zebra", -1),
        )
        for trial in range(2)
        for (s, t), d in pairs.items()
    ]
    return pd.DataFrame(rows)


def test_sources_are_ranked_by_the_table_or_by_distances(table, tmp_path):
    ranked = tabular.ranked_sources(table)
    nearest = ranked[ranked["rank"] == 1].set_index("target")
    assert nearest["source"].to_dict() == {"one": "two", "two": "one", "far": "two"}
    frame = pd.DataFrame(table.seen, columns=TASKS)
    rho = frame.corr("spearman")
    assert nearest["mean"]["one"] == pytest.approx(1 - rho.loc["one", "two"])

    pairs = {(s, t): 0.9 for s in (*TASKS, "more") for t in (*TASKS, "more") if s != t}
    pairs[("far", "one")] = 0.1
    path = write(distances_of(pairs), tmp_path / "distances.parquet")
    ranked = tabular.ranked_sources(table, path)  # the file's first measure and network
    spaces = {name: (source, space) for name, source, space in tabular.spaces(table, "one", ranked)}
    assert next(iter(spaces)) == "full" and len(spaces) == 5
    for name, source in (("nearest", "far"), ("farthest", "two")):
        best = table.optimum(source)
        near = restrict(table.space, [best], "neighbourhood", 2)
        assert spaces[f"{name} operations"] == (source, restrict(table.space, [best], "operations"))
        assert spaces[f"{name} neighbourhood"] == (source, near)

    del pairs[("two", "one")]
    path = write(distances_of(pairs), path)
    with pytest.raises(UserError, match="pairs are missing for measure fisher, network zebra"):
        tabular.ranked_sources(table, path)
    path = write(distances_of({("a", "b"): 1.0}), path)
    with pytest.raises(UserError, match="no distances to one, two, far"):
        tabular.ranked_sources(table, path)
    path = write(distances_of(pairs)[:0], path)
    with pytest.raises(UserError, match="no distances to one, two, far"):
        tabular.ranked_sources(table, path)
    path = write(distances_of(pairs).drop(columns=["trial", "source"]), path)
    with pytest.raises(UserError, match="no column source, trial; give a distances"):
        tabular.ranked_sources(table, path)


# Searches ---------------------------------------------------------------------------------------


def exact_mean(seen: np.ndarray, values: np.ndarray, n: int) -> float:
    """Mean value of the best by ``seen`` of n different ones, all choices equally probable.

    The k-th worst of N is the best of n if the other n − 1 are among the k − 1 below it.
    """
    total = len(seen)
    n = min(n, total)
    chances = [math.comb(k, n - 1) / math.comb(total, n) for k in range(total)]
    return float(np.dot(chances, values[seen.argsort(kind="stable")]))


def members(table, space: str, source: str) -> np.ndarray:
    """Rows of a space, by comparing each architecture with the source's best."""
    if space == "full":
        return np.arange(len(table.genotypes))
    best = table.genotypes[int(table.final[:, TASKS.index(source)].argmax())]
    if space.endswith("operations"):
        inside = [genotype.operations <= best.operations for genotype in table.genotypes]
    else:
        inside = [edges_changed(genotype, best) <= 2 for genotype in table.genotypes]
    return np.flatnonzero(inside)


def test_random_search_agrees_with_the_exact_mean(table, results):
    drawn = results[results["method"] == "random"]
    assert len(drawn) == 3 * 5 * len(bench.DRAWS) and (drawn["repetitions"] == 100).all()
    for (target, space), group in drawn.groupby(["target", "space"]):
        column = TASKS.index(target)
        rows = members(table, space, group["source"].iloc[0])
        assert (group["architectures"] == len(rows)).all()
        assert np.allclose(group["size_log10"], math.log10(len(rows)))
        for found in group.itertuples():
            for name, matrix in (("percentile", table.percentiles), ("value", table.final)):
                exact = exact_mean(table.seen[rows, column], matrix[rows, column], found.n)
                mean, ci95 = getattr(found, name), getattr(found, f"{name}_ci95")
                assert abs(mean - exact) < 2 * ci95 + 1e-9  # four standard errors
                assert ci95 < 1e-9 or found.n < len(rows)


def test_a_near_tasks_space_helps_and_a_far_ones_hurts(results):
    at = results[(results["n"] == 16) & (results["method"] == "random")]
    at = at.set_index(["target", "space"])["percentile"]
    for target in ("one", "two"):
        for how in ("operations", "neighbourhood"):
            assert at[target, f"nearest {how}"] > at[target, "full"] + 0.02
            assert at[target, f"farthest {how}"] < at[target, "full"] - 0.1


def test_draws_are_different_and_all_of_a_small_space(table):
    small = restrict(table.space, [table.optimum("one")], "neighbourhood", 1)
    rows = tabular.draw_rows(table, small, 256, random.Random(0))
    assert len(rows) == len(set(rows)) == small.size == 1 + 6 * 3
    genotype, _ = tabular.random_search(table, "one", small, 256, random.Random(0))
    assert genotype == table.optimum("one")


def test_the_controller_in_a_neighbourhood_draws_by_its_conditional_probabilities(table):
    torch.manual_seed(0)
    everything = tabular._Within(table.space)
    logs = everything.log_probabilities().detach()
    assert logs.exp().sum().item() == pytest.approx(1, abs=1e-4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):  # as the controller itself draws them
        genotype, log_probability, _ = Controller.sample(everything, generator)
        row = everything.members.index(genotype)
        assert log_probability.item() == pytest.approx(logs[row].item(), abs=1e-4)

    ball = restrict(table.space, [table.optimum("two")], "neighbourhood")
    inside = tabular._Within(ball)
    inside.load_state_dict(everything.state_dict())
    genotype, log_probability, entropy = inside.sample(generator)
    rows = [everything.members.index(member) for member in ball]
    expected = logs[everything.members.index(genotype)] - logs[rows].logsumexp(0)
    assert genotype in ball
    assert log_probability.item() == pytest.approx(expected.item(), abs=1e-4)
    share = logs[rows].log_softmax(0)
    assert entropy.item() == pytest.approx(-(share.exp() * share).sum().item(), abs=1e-4)


@pytest.mark.parametrize("how", [None, "operations", "neighbourhood"])
def test_the_controller_learns_in_every_space(table, how):
    donors = [table.optimum("two")] if how else []
    space: Space = restrict(table.space, donors, how or "operations")
    before = torch.get_rng_state()
    rules = Enas(controller_learning_rate=0.02, controller_samples=1)
    genotype, value, trace = tabular.controller_search(table, "far", space, 120, rules, 0)
    assert torch.equal(before, torch.get_rng_state())
    assert genotype in space and len(trace) == 120
    assert (
        value
        == table.final[table.row(genotype), table.column("far")]
        == max(row["score"] for row in trace)
    )
    rewards = [row["reward"] for row in trace]
    assert np.mean(rewards[-30:]) > np.mean(rewards[:30])
    again = tabular.controller_search(table, "far", space, 20, rules, 0)[2]
    assert again == trace[:20]


# The benchmark ----------------------------------------------------------------------------------


def test_the_page_shows_the_results(folder, results):
    page = (folder / "page.md").read_text()
    assert "TransNAS-Bench-101, micro level (Duan et al. 2021; data MIT)" in page
    assert "python -m evidence tabular --table micro.parquet --layout transnas-micro --out " in page
    assert str(folder) not in page and page.endswith("|\n")
    assert all(f"### {task}\n" in page for task in TASKS)
    assert "| farthest neighbourhood | 0 | 0 better, 3 worse | 0 better, 3 worse |" in page
    for row in results[results["n"].isin([4, 16, 64, 256])].itertuples():
        assert row.method != "random" or f"{row.percentile:.3f} ± {row.percentile_ci95:.3f}" in page
    facts = store.table_facts(store.read_table(folder / "bench-tabular-micro.parquet"))
    assert facts["table"] == {
        "name": "micro.parquet",
        "sha256": store.digest(folder / "micro.parquet"),
    }
    assert (results["method"] == "controller").sum() == 3 * 5


def test_the_command(folder, tmp_path):
    pairs = {(s, t): 0.1 if "far" in (s, t) else 0.9 for s in TASKS for t in TASKS if s != t}
    distances = write(distances_of(pairs), tmp_path / "distances.parquet")
    command = ["tabular", "--table", str(folder / "micro.parquet")]
    command += ["--repetitions", "2", "--controller-seeds", "0", "--distances", str(distances)]
    out = tmp_path / "bench-tabular-b.parquet"
    more = ["--layout", "transnas-micro", "--out", str(out), "--page", str(tmp_path / "b.md")]
    done = CliRunner().invoke(commands.app, [*command, *more])
    assert done.exit_code == 0, done.output
    assert done.output.split()[:4] == ["target", "space", "architectures", "4"]
    first = out.read_bytes()
    results = store.read_table(out).to_pandas()
    sources = results.set_index(["target", "space"])["source"]
    assert set(sources["one", "nearest operations"]) == {"far"}
    assert "--distances distances.parquet --out docs/bench-tabular-b.parquet" in (
        (tmp_path / "b.md").read_text()
    )
    CliRunner().invoke(commands.app, [*command, *more])
    assert out.read_bytes() == first
    done = CliRunner().invoke(commands.app, [*command, "--layout", "macro", "--out", str(out)])
    assert isinstance(done.exception, UserError) and "unknown layout 'macro'" in str(done.exception)
