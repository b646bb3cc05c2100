"""The arena of published tables, on a made-up one whose nearness is known."""

import itertools

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from evidence import arena, arena_cells, arena_ways, commands
from ftd import store
from ftd.errors import UserError

DIGITS = ["".join(digits) for digits in itertools.product("0123", repeat=6)][::8]  # 512 of 4,096
NEAR, FAR = "near_task", "far"


def made_up() -> pd.DataFrame:
    """Sums of edges' scores: ``near_task`` is as ``one``, ``far`` its opposite."""
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((6, 4))
    edges = np.array([[int(digit) for digit in digits] for digits in DIGITS])
    frame = pd.DataFrame({"arch": [f"64-41414-{d[0]}_{d[1:3]}_{d[3:]}" for d in DIGITS]})
    own = scores[range(6), edges].sum(1)
    frame["one_valid_top1"] = own
    frame[f"{NEAR}_valid_ssim"] = own + 0.2 * rng.standard_normal(len(own))
    frame[f"{FAR}_valid_neg_loss"] = -own + 0.2 * rng.standard_normal(len(own))
    frame["flops_m"] = own
    frame[f"zc_zen_{NEAR}"] = own
    return frame


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("arena") / "micro.parquet"
    made_up().to_parquet(path)
    return path


@pytest.fixture(scope="module")
def cells(file):
    return arena_cells.read(file, "micro")


@pytest.fixture(scope="module")
def page(file):
    return file.parent / "page.md"


@pytest.fixture(scope="module")
def results(file, page):
    options = ["--micro", file, "--repetitions", 3, "--page", page, "--out", file.parent]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arena, "QUERIES", 60)
        patch.setattr("evidence.arena_page._SHOWN", (10, 25, 50))
        patch.setattr(arena, "SETTINGS", arena.SETTINGS[2:4])
        patch.setattr(arena, "CHOICE_REPEATS", 2)
        said = CliRunner().invoke(commands.app, ["arena", *map(str, options)])
    assert said.exit_code == 0, said.output
    return store.read_table(file.parent / "arena-micro.parquet").to_pandas()


def test_a_table_is_read_with_sizes_and_the_scores_of_each_task(cells):
    assert cells.tasks == ("one", NEAR, FAR)
    assert list(cells.sizes) == ["flops_m"] and list(cells.scores) == [("zen", NEAR)]
    np.testing.assert_array_equal(cells.seen[:, 0], made_up()["one_valid_top1"])
    assert cells.codes[1] == "000020" and cells.differing(0)[1] == 1


def test_neighbours_differ_in_one_place(cells):
    for row in range(0, len(cells.codes), 37):
        wanted = np.flatnonzero(cells.differing(row) == 1)
        np.testing.assert_array_equal(cells.neighbours[row], wanted)


def test_codes_of_several_lengths_have_neighbours_with_a_layer_more_less_or_moved():
    values = np.zeros((5, 3))
    codes = ("12", "112", "21", "121", "4444")
    cells = arena_cells.Cells("macro", codes, ("a", "b", "c"), values, values, {}, {})
    assert [codes[row] for row in cells.neighbours[0]] == ["112", "21", "121"]
    assert len(cells.neighbours[4]) == 0
    assert cells.differing(0).tolist() == [0, 2, 2, 1, 4]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"arch": "64-41414-9_00_000"}, "no architecture"),
        ({"one_valid_top1": np.nan}, "not a finite number"),
        ({"one_valid_top1": "much"}, "not a finite number"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(change, said, tmp_path):
    made_up().assign(**change).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match=said):
        arena_cells.read(tmp_path / "t.parquet", "micro")


def test_two_tasks_or_an_unknown_kind_are_refused(file, tmp_path):
    made_up().drop(columns=f"{FAR}_valid_neg_loss").to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="results of 2 tasks"):
        arena_cells.read(tmp_path / "t.parquet", "micro")
    with pytest.raises(UserError, match="did you mean 'micro'"):
        arena_cells.read(file, "mikro")


@pytest.mark.parametrize(
    ("kind", "arch", "code"),
    [
        ("macro", "64-111423-basic", "111423"),
        (
            "nas-bench-201",
            "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|",
            "304102",
        ),
    ],
)
def test_architectures_of_other_tables_have_codes(kind, arch, code, tmp_path):
    assert arena_cells._code(tmp_path, arena_cells.KINDS[kind], arch) == code


def test_no_way_tries_an_architecture_twice(cells):
    for target in cells.tasks:
        for name, _, way, _ in arena.ways(cells, target, arena.SETTINGS[0]):
            path = way(np.random.default_rng(0))
            assert len(path) == len(set(path.tolist())) == arena.QUERIES, name


def test_ranks_are_those_of_the_best_tried_so_far(cells):
    column = cells.seen[:, 0]
    path = np.random.default_rng(3).permutation(len(column))
    found = arena.best_ranks(cells, "one", path)
    wanted = [1 + (column > column[path[: n + 1]].max()).sum() for n in range(len(path))]
    np.testing.assert_array_equal(found, wanted)


def test_evolution_keeps_to_the_children_of_good_parents(cells):
    """Beyond the first ones, it finds better ones than chance does."""
    column = cells.seen[:, 0]
    draws = [arena_ways.evolved(cells, column, 60, np.random.default_rng(n)) for n in range(10)]
    assert np.mean([column[path[10:]].mean() for path in draws]) > column.mean() + column.std() / 2


def test_near_tasks_rankings_find_the_best_and_far_ones_do_not(results):
    last = results[results["queries"] == 50].set_index(["target", "way", "nearness"])["rank"]
    for target in ("one", NEAR):
        near = last[target, "nearest's ranking", "the table"]
        assert near <= 5 < last[target, "farthest's ranking", "the table"]
        for nearness in ("nothing", "queries", "the table"):
            assert last[target, "surrogate", nearness] <= near
    assert last[FAR, "surrogate", "queries"] <= 5 < last[FAR, "all tasks' ranking", "nothing"]


def test_settings_are_chosen_without_the_targets_results(cells):
    """Whatever these are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arena, "CHOICE_REPEATS", 2)
        patch.setattr(arena, "CHOICE", 12)
        patch.setattr(arena, "SETTINGS", arena.SETTINGS[::5])
        before = arena.chosen_settings([cells])["one"]
        mixed = cells.seen.copy()
        mixed[:, 0] = np.random.default_rng(1).permutation(mixed[:, 0])
        other = arena_cells.Cells("micro", cells.codes, cells.tasks, mixed, mixed, {}, {})
        assert arena.chosen_settings([other])["one"] == before


def test_the_page_has_every_way_and_target(results, page):
    text = page.read_text()
    for way in {*results["way"]}:
        assert f"| {way} |" in text
    assert "| way | nearness | one | near_task | far |" in text and "Bar:" in text
    assert (page.parent / "arena-micro.svg").stat().st_size > 1000
