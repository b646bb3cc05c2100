"""Figures, pages, and the record of what was run."""

import base64
import io
import os
import resource
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import ROOT, TINY, experiment_of, tables_of
from PIL import Image

from ftd import config, store
from ftd.drawing import heatmaps, pages, searches, style
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.runtime import usage
from ftd.stages import figures, report
from ftd.stages.experiment import Experiment
from ftd.transfer import trust

SVG = "{http://www.w3.org/2000/svg}"
GREY = [204, 204, 204]
ORDER = ["zero", "six", "three"]
MATRIX = {"measure": "fisher", "network": "small-cnn", "statistic": "mean"}


def words(path) -> list[str]:
    root = ElementTree.parse(path).getroot()
    return [node.text for node in root.iter(f"{SVG}text") if node.text]


def colours(path, size: int) -> np.ndarray:
    """The colours [size, size, 3] in the middle of a heat map's cells."""
    return colours_of(path, size, size)


def colours_of(path, rows: int, columns: int) -> np.ndarray:
    root = ElementTree.parse(path).getroot()
    link = next(root.iter(f"{SVG}image")).get("{http://www.w3.org/1999/xlink}href")
    picture = Image.open(io.BytesIO(base64.b64decode(link.partition(",")[2]))).convert("RGB")
    down = ((np.arange(rows) + 0.5) * picture.height / rows).astype(int)
    across = ((np.arange(columns) + 0.5) * picture.width / columns).astype(int)
    return np.asarray(picture)[::-1][np.ix_(down, across)]  # SVG's pictures hang upside down


def square(values) -> pd.DataFrame:
    names = [f"task-{number:02}" for number in range(len(values))]
    return pd.DataFrame(values, names, names)


def test_the_heat_map_prints_every_value(finished):
    text = words(finished.results / "figures" / "fisher-small-cnn-mean.svg")
    table = pd.read_parquet(finished.results / "distances.parquet")
    for value in table["squared_distance"]:
        assert f"{value:.2f}" in text
    assert "source task" in text and "target task" in text
    assert text.count("zero") == text.count("six") == text.count("three") == 2
    assert "Squared distance, mean" in text


def test_a_heat_map_of_many_tasks_has_colours_only(tmp_path):
    heatmaps.matrix(square(1.0 - np.eye(61)), tmp_path / "x.svg", title="t")
    text = words(tmp_path / "x.svg")
    assert "1.00" not in text and text.count("task-00") == text.count("task-60") == 2
    assert "task-01" not in text and len(text) < 100


def test_a_heat_map_of_any_values(tmp_path):
    values = square([[-1.0, -3.0, np.nan], [4.0, np.nan, 0.5], [0.0, 1.25, 1e4]])
    heatmaps.matrix(values.clip(upper=4.0), tmp_path / "x.svg", title="t", digits=".3g")
    text, found = words(tmp_path / "x.svg"), colours(tmp_path / "x.svg", 3)
    assert {"-1", "-3", "0.5", "1.25"} <= set(text) and "nan" not in text
    assert found[0, 2].tolist() == found[1, 1].tolist() == GREY
    brightness = found.sum(2).astype(int)  # paler: smaller, thus nearer
    assert brightness[0, 1] > brightness[0, 0] > brightness[2, 0] > brightness[2, 1]
    assert found[1, 0].tolist() == found[2, 2].tolist() and brightness.min() == brightness[1, 0]


@pytest.mark.parametrize("value", [0.0, -2.0, np.nan])
def test_a_heat_map_of_equal_or_no_values(tmp_path, value):
    heatmaps.matrix(square(np.full((2, 2), value)), tmp_path / "x.svg", title="t")
    found = colours(tmp_path / "x.svg", 2)
    assert (found == GREY).all() == np.isnan(value) and (found == found[0, 0]).all()


def test_mean_and_deviation_over_trials():
    rows = [("a", "b", 1.0), ("a", "b", 3.0), ("b", "a", 5.0), ("b", "b", np.nan)]
    pairs = pd.DataFrame(rows, columns=["source", "target", "value"])
    mean, std = heatmaps.matrices(pairs, pairs["value"], ["b", "a"])
    np.testing.assert_array_equal(mean, [[np.nan, 5.0], [2.0, np.nan]])
    np.testing.assert_array_equal(std, [[np.nan, 0.0], [2**0.5, np.nan]])


@pytest.mark.parametrize("first", [3.0, -3.0])
def test_shares_may_be_below_zero(tmp_path, first):
    """Then 0 has the colour in the middle; else the brightest."""
    pair = {"target": "b", "source": "a"}
    values = {"l0": first, "l1": 0.0, "l2": 2.0}
    parts = [pair | {"layer": layer, "contribution": v} for layer, v in values.items()]
    heatmaps.shares(pd.DataFrame(parts), tmp_path / "x.svg", of="overlap")
    text = words(tmp_path / "x.svg")
    assert {"b ← a", "l0", "l2", "Shares of overlap, by layer"} <= set(text)
    found = colours_of(tmp_path / "x.svg", 1, 3)[0]
    name = "viridis_r" if first > 0 else "PuOr"
    wanted = matplotlib.colormaps[name]([1.0, 0.0, 2 / 3] if first > 0 else [0.0, 0.5, 5 / 6])
    assert np.abs(found - 255 * wanted[:, :3]).max() < 4


@pytest.mark.parametrize(
    ("source", "layer", "layers"),
    [
        ("n" * 100, "conv", 5),
        ("W" * 100, "conv", 2),
        ("a", "features.denseblock3.denselayer12.conv2.weight", 2),
    ],
)
def test_long_names_leave_the_shares_their_room(tmp_path, source, layer, layers):
    pairs = [(target, f"{layer}{number}") for target in "bc" for number in range(layers)]
    parts = pd.DataFrame(pairs, columns=["target", "layer"]).assign(source=source, contribution=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's: axes sizes collapsed to zero
        heatmaps.shares(parts, tmp_path / "x.svg", of="overlap")
    shown = {f"b ← {style.short(source, 18)}", style.short(f"{layer}0")}
    assert shown <= set(words(tmp_path / "x.svg"))


DRAWS = """
import os
import sys
from pathlib import Path
import pandas as pd
from ftd.drawing import heatmaps
heatmaps.matrix(pd.DataFrame({"a": [0.25]}, ["a"]), Path(sys.argv[1]), title="t")
import matplotlib.pyplot
print(matplotlib.rcParams["font.size"], os.environ["MPLBACKEND"])
"""


@pytest.mark.parametrize(
    ("settings", "backend"),
    [
        (b"font.size: 30\nsvg.fonttype: path\ntext.usetex: True\nbackend: agg\n", "pdf"),
        (b"font.size: 30\n\xff", "module://matplotlib_inline.backend_inline"),
    ],
    ids=["another style", "refused"],
)
def test_the_user_s_style_changes_no_picture(tmp_path, monkeypatch, settings, backend):
    """And stays the user's, unless matplotlib refuses to be imported with it."""
    heatmaps.matrix(pd.DataFrame({"a": [0.25]}, ["a"]), tmp_path / "plain.svg", title="t")
    (tmp_path / "matplotlibrc").write_bytes(settings)
    environment = os.environ | {"MPLBACKEND": backend, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", DRAWS, "own.svg"]
    done = subprocess.run(
        command, check=True, env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert (tmp_path / "own.svg").read_bytes() == (tmp_path / "plain.svg").read_bytes()
    size = 10.0 if b"\xff" in settings else 30.0
    assert done.stdout == f"{size} {backend}\n"


def test_drawing_leaves_the_user_s_style(tmp_path, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30)
    before = dict(matplotlib.rcParams)
    heatmaps.matrix(square([[0.5]]), tmp_path / "x.svg", title="t")
    assert dict(matplotlib.rcParams) == before


def test_the_page_of_ranks_lists_each_target_s_first(tmp_path):
    table = pd.DataFrame({"target": t, "rank": rank} for t in "ab" for rank in range(1, 1000))
    pages.nearest(table.assign(measure="m"), {}, tmp_path / "page.html")
    assert tables_of(tmp_path / "page.html")[-1]["target"].count("b") == 20


def test_figures_are_equal_files(finished, tmp_path):
    settings = config.load(finished.folder / "tiny.yaml")
    experiment = Experiment(settings, tmp_path, base=finished.results)
    for name, names in (("matrix", MATRIX), ("trace", {"method": "ftd-nas", "seed": 0})):
        again = figures.run(experiment, name, **names)
        first = finished.results / again.relative_to(tmp_path)
        assert again.read_bytes() == first.read_bytes()


@pytest.mark.parametrize(
    ("figure", "names", "message"),
    [
        ("matrix", MATRIX | {"network": "vgg"}, "no network 'vgg' in this experiment"),
        ("matrix", MATRIX | {"statistic": "median"}, "no statistic 'median'"),
        ("matrix", MATRIX | {"measure": "fish"}, "no measure 'fish'.*did you mean 'fisher'"),
        ("shares", MATRIX, "figure shares: expected measure, network, got measure, network, stat"),
        ("trace", {"method": "ftd-nas"}, "figure trace: expected method, seed, got method"),
        ("probes", {"seed": 0}, "figure probes: expected no names, got seed"),
        ("matrices", MATRIX, "no figure 'matrices'; did you mean 'matrix'"),
        ("nearest", {}, "nearest.parquet"),
    ],
)
def test_figures_that_cannot_be_drawn(tmp_path, figure, names, message):
    with pytest.raises(UserError, match=message):
        figures.run(Experiment.of(config.parse(TINY), tmp_path), figure, **names)
    assert not list(tmp_path.iterdir())


SIGNED = """
from ftd.measures import Measure
from ftd.parts import register_measure

needs = {"source": (), "target": ("facts",)}
register_measure(
    "signed-for-figures", Measure(None, **needs, lowest=-9, highest=9, nearer="higher")
)
"""


@pytest.fixture(scope="module")
def signed(tmp_path_factory) -> str:
    """A plugin with a measure of any sign."""
    path = tmp_path_factory.mktemp("plugin") / "signed.py"
    path.write_text(SIGNED)
    return str(path)


@pytest.fixture
def measured(tmp_path, signed) -> Experiment:
    """Distances by two measures, one of them without some of its values."""
    measures = ["fisher", "signed-for-figures"]
    raw = TINY | {"plugins": [signed], "measures": measures}
    experiment = Experiment.of(config.parse(raw), tmp_path)
    rows, layers, ranks = [], [], []
    for measure in measures:
        for number, (source, target) in enumerate((s, t) for t in ORDER for s in ORDER):
            value = number / 10 if measure == "fisher" else number - 4.5
            pair = {"measure": measure, "network": "small-cnn", "trial": 0}
            pair |= {"source": source, "target": target}
            squared = value**2 if measure == "fisher" else None
            rows.append(pair | {"distance": value, "squared_distance": squared})
            layers.append(pair | {"layer": "head", "contribution": value})
            rank = {"rank": number % 3 + 1, "mean": value, "std": 0.0, "agreement": 1.0}
            ranks.append({**pair, **rank, "learned": False})
    rows[-2]["distance"] = None
    store.write_table(experiment.output(LAYOUT.distances), pa.Table.from_pylist(rows))
    store.write_table(experiment.output(LAYOUT.layers), pa.Table.from_pylist(layers))
    table = pa.Table.from_pylist(ranks)
    store.write_table(experiment.output(LAYOUT.nearest), table, {"order": ORDER})
    return experiment


def test_heat_maps_of_two_measures(measured):
    text = words(figures.run(measured, "matrix", **MATRIX))
    assert {"0.00", "0.01", "0.64", "Squared distance, mean", "small-cnn, 1 trial"} <= set(text)
    signed = MATRIX | {"measure": "signed-for-figures"}
    out = figures.run(measured, "matrix", **signed)
    assert out == measured.root / "figures" / "signed-for-figures-small-cnn-mean.svg"
    text = words(out)
    assert "signed-for-figures, mean (larger: nearer)" in text
    assert {"-4.5", "-0.5", "0.5"} <= set(text) and "nan" not in text
    assert colours(out, 3)[1, 2].tolist() == GREY
    text = words(figures.run(measured, "matrix", **signed | {"statistic": "std"}))
    assert "signed-for-figures, standard deviation" in text


def test_shares_are_one_measure_s(measured):
    text = words(figures.run(measured, "shares", measure="fisher", network="small-cnn"))
    assert "Shares of the squared distance, by layer" in text
    assert not any("\N{MINUS SIGN}" in word for word in text)
    names = {"measure": "signed-for-figures", "network": "small-cnn"}
    text = words(figures.run(measured, "shares", **names))
    assert "Shares of signed-for-figures, by layer" in text
    assert any("\N{MINUS SIGN}" in word for word in text)


def test_the_page_of_ranks_tells_measures_apart(measured):
    beside, *_, ranks = tables_of(figures.run(measured, "nearest"))
    both = ["fisher", "signed-for-figures"]
    assert [ranks["measure"].count(measure) for measure in both] == [9, 9]
    assert list(beside) == ["network", "target", *both]  # what both say is nearest
    assert beside["network"] == ["small-cnn"] * 3


def test_the_page_of_ranks_says_how_far_to_trust_each_measure(measured, monkeypatch):
    before = figures.decides(measured, "nearest")
    own = trust.Trust((0.41, 0.35, 0.47), (0.5, 0.4, 0.6), (1.1, 0.8, 1.4), 3)
    known = {"fisher": own, trust.RANDOM: own}
    monkeypatch.setattr(trust, "measured", lambda measures: known)
    _, trusted, _ = tables_of(figures.run(measured, "nearest"))
    told = ["41% [35%, 47%]", "0.50 [0.40, 0.60]", "1.1 [0.8, 1.4]", "3"]
    unknown = ["signed-for-figures", "not measured", "", "", ""]
    rows = [list(row) for row in zip(*trusted.values(), strict=True)]
    assert rows == [["fisher", *told], unknown, [trust.RANDOM, *told]]
    assert figures.decides(measured, "nearest") != before  # the page is made anew
    del known["fisher"]
    assert len(tables_of(figures.run(measured, "nearest"))) == 2


def test_tables_without_a_measure_s_rows(measured):
    path = measured.output(LAYOUT.distances)
    table = store.read_table(path)
    store.write_table(path, table.slice(0, 9))
    names = MATRIX | {"measure": "signed-for-figures"}
    with pytest.raises(UserError, match=r"no distances by 'signed-for-figures' of network 'small"):
        figures.run(measured, "matrix", **names)
    store.write_table(path, table.slice(0, 6))
    with pytest.raises(UserError, match=r"no distances to three, a task of .*nearest\.parquet"):
        figures.run(measured, "matrix", **MATRIX)


def test_a_lone_task_has_no_shares(tmp_path):
    one = experiment_of(tmp_path, tasks={"zero": TINY["tasks"]["zero"]})
    assert not [name for name in one.figures() if name.startswith("shares")]
    assert [name for name in experiment_of(tmp_path).figures() if name.startswith("shares")]


def test_what_decides_a_figure():
    listed = TINY | {"search": TINY["search"] | {"tasks": ["six", "zero"]}}
    for raw, tasks in ((TINY, ORDER), (listed, ["six", "zero"])):
        experiment = Experiment.of(config.parse(raw), Path("x"))
        for figure in ("trace", "cells"):
            wanted = {"version": figures.VERSION, "tasks": tasks}
            assert figures.decides(experiment, figure) == wanted
        assert figures.decides(experiment, "matrix") == {"version": figures.VERSION}


def test_naming_the_stage_draws_nothing():
    lines = "import sys, ftd.stages.figures; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", lines], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert not {"torch", "matplotlib", "pandas", "pyarrow"} & set(done.stdout.split())


def test_pages_hold_their_tables(finished):
    pages_at = finished.results / "figures"
    over_trials, probes = tables_of(pages_at / "probes.html")
    assert over_trials["task"] == list(TINY["tasks"]) and set(over_trials["1 − ε"]) == {"0.9"}
    assert len(probes["score on val"]) == 3 and "no" in probes["reached 1 − ε"]
    cuts, tasks = tables_of(pages_at / "datasets.html")
    assert cuts["data set"] == ["digits"] and cuts["images read"] == ["train: 1797"]
    assert list(dict.fromkeys(tasks["task"])) == list(TINY["tasks"])
    slices = store.read_table(finished.results / "tasks" / "zero.parquet").to_pandas()
    of_train = (slices["part"] == "train") & (slices["label"] == 0)
    assert tasks["train"][0] == str(of_train.sum()) and tasks["label"][:2] == ["other", "zero"]
    ranks = tables_of(pages_at / "nearest.html")[-1]
    assert len(ranks["agreement"]) == 6 and ranks["target"][::2] == list(TINY["tasks"])
    [comparison] = tables_of(pages_at / "comparison.html")
    assert comparison["method"] == ["ftd-nas"] * 3 and comparison["task"] == list(TINY["tasks"])
    table = store.read_table(finished.results / "comparison.parquet").to_pandas()
    zero = table[table["task"] == "zero"].iloc[0]
    assert comparison["accuracy %"][0] == f"{100 * zero['accuracy']:.2f}"
    assert comparison["parameters"][0] == f"{zero['parameters']:,}"


def test_the_page_of_the_run_has_a_row_a_rule(finished):
    rules, versions = tables_of(finished.results / "figures" / "run.html")
    assert rules["rule"] == [
        *("dataset", "task", "probe", "index", "fisher", "distance", "distances", "selection"),
        *("search", "training", "comparison"),
    ]
    assert rules["jobs"][:3] == ["1", "3", "3"]
    sizes = [int(size.removesuffix(" MB").replace(",", "")) for size in rules["memory"]]
    assert all(20 < size < 5000 for size in sizes) and "torch" in versions["package"]
    assert "experiment: tiny" in (finished.results / "figures" / "run.html").read_text()


def test_what_a_job_took_is_what_its_log_says_last(tmp_path, capsys):
    usage.say(time.monotonic() - 2.5)
    line = capsys.readouterr().err
    (tmp_path / "job.log").write_text(f"took 9.00 s, at most 9 MB of memory\nx\n{line}")
    seconds, megabytes = usage.read(tmp_path / "job.log")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    assert 2.5 <= seconds < 3 and megabytes == pytest.approx(own, rel=0.05)
    (tmp_path / "job.log").write_text("killed")
    assert usage.read(tmp_path / "job.log") is None


PROBE = {"network": "n", "trial": 0, "epochs": 1, "seconds": 1.0, "seed": 0}
PROBE |= {"settings": {"epsilon": 0.1}}


def test_the_page_of_probes_has_the_most_frequent_label_s_share(tmp_path):
    facts = PROBE | {"other": "unseen"}
    rows = [
        facts | {"task": "a", "val_accuracy": 0.9, "val_most_frequent": 0.625, "reached": True},
        facts | {"task": "b", "val_accuracy": 0.6, "val_most_frequent": 0.5, "reached": False},
    ]
    pages.probes(rows, tmp_path / "page.html")
    over_trials, found = tables_of(tmp_path / "page.html")
    assert found["task"] == ["b", "a"] and "other" not in found
    assert found["constant answer"] == ["0.5000", "0.6250"]
    assert over_trials["reached 1 − ε"] == ["1 of 1", "0 of 1"]


def test_probes_over_trials(tmp_path):
    own = {"task": "a", "val_most_frequent": 0.5}
    rows = [
        PROBE | own | {"trial": trial, "val_accuracy": accuracy, "reached": accuracy >= 0.9}
        for trial, accuracy in enumerate((0.875, 0.925, 0.975))
    ]
    pages.probes(rows, tmp_path / "page.html")
    found = {head: cells[0] for head, cells in tables_of(tmp_path / "page.html")[0].items()}
    assert found["score on val"] == "0.9250 ± 0.0500" and found["trials"] == "3"
    assert found["reached 1 − ε"] == "2 of 3" and found["epochs"] == "1.0 ± 0.0"


def test_the_page_of_probes_marks_those_that_learned_nothing(tmp_path):
    facts = PROBE | {"reached": True}
    classes = [
        facts | {"task": "a", "val_accuracy": 0.9, "val_most_frequent": 0.6},
        facts | {"task": "b", "val_accuracy": 0.6, "val_most_frequent": 0.6},
        facts | {"task": "c", "val_accuracy": 0.7, "val_most_frequent": 0.6, "reached": False},
    ]
    maps = facts | {"task": "d", "val_accuracy": 0.77, "val_most_frequent": 0.78}
    maps |= {"metric": "angle", "val_metric": 41.4, "val_metric_constant": 39.6}
    pages.probes([classes[0], classes[2]], tmp_path / "page.html")
    _, found = tables_of(tmp_path / "page.html")
    assert not {"remark", "metric", "metric: probe"} & found.keys()
    pages.probes([*classes, maps], tmp_path / "page.html")
    over_trials, found = tables_of(tmp_path / "page.html")
    mark = "NO BETTER THAN A CONSTANT ANSWER"
    assert found["task"] == ["b", "d", "c", "a"] and found["remark"] == [mark, mark, "", ""]
    assert found["metric"] == ["", "angle", "", ""] and found["metric: probe"] == [
        "",
        "41.4",
        "",
        "",
    ]
    assert found["metric: constant"] == ["", "39.6", "", ""]
    assert over_trials["learned nothing"] == ["0 of 1", "1 of 1", "0 of 1", "1 of 1"]
    assert over_trials["metric"] == ["", "", "", "angle"]


def test_the_page_of_data_sets_says_what_was_left_out(tmp_path):
    facts = {
        "dataset": "photos",
        "read": {
            "train": {"images": 40, "left out": {"hidden": 2, "suffix .txt": 1}},
            "test": {"images": 7, "left out": {}},
        },
        "noted": {"turned upright": 3},
        "equal images": {"train and test": 4},
    }
    pages.datasets([facts], tmp_path / "page.html")
    [found] = tables_of(tmp_path / "page.html")
    assert [cells[0] for cells in found.values()] == [
        *("photos", "train: 40, test: 7", "train: hidden: 2, suffix .txt: 1"),
        *("turned upright: 3", "train and test: 4"),
    ]


def test_a_cut_of_an_older_version_is_no_page(tmp_path):
    experiment = Experiment.of(config.parse(TINY), tmp_path)
    cut = experiment.output(LAYOUT.cut, dataset="digits")
    store.write_table(cut, pa.table({"index": [0]}), {"stage": "dataset"})
    with pytest.raises(UserError, match=r"digits\.parquet: made by an older version; run the sta"):
        figures.run(experiment, "datasets")


def compared(seeds: int) -> pd.DataFrame:
    rows = [
        {
            **{"task": "t", "method": "m", "seed": seed, "accuracy": 0.9 + 0.01 * seed},
            **{"parameters": 10 * (seed + 1), "macs": 5, "search_macs": 100, "search_seconds": 2.0},
            **{"space_log10": 3.0, "most_frequent": 0.7},
        }
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def test_a_comparison_over_seeds_as_the_paper_has_it():
    row = pages.summary(compared(3)).iloc[0]
    assert row["accuracy %"] == "91.00 ± 1.00" and row["parameters"] == 20 and row["seeds"] == 3
    assert row["most frequent %"] == "70.00"
    assert pages.summary(compared(1)).iloc[0]["accuracy %"] == "90.00"


def test_the_page_of_a_comparison_is_written_for_readers(tmp_path):
    large = compared(2).assign(parameters=1234567, macs=2.5e6, search_macs=3.72e9)
    pages.comparison(large, tmp_path / "page.html")
    found = {head: cells[0] for head, cells in tables_of(tmp_path / "page.html")[0].items()}
    assert found["parameters"] == "1,234,567" and found["search MACs"] == "3.72 G"
    assert found["MACs"] == "2.50 M" and found["accuracy %"] == "90.50 ± 0.71"


def test_scatter_panels_have_a_line_at_the_most_frequent_label_s_share(tmp_path):
    searches.scatter(compared(3), tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    assert text.count("stroke-dasharray") == 2
    assert "0.70" in words(tmp_path / "x.svg")  # the axis reaches down to it


def test_a_scatter_of_methods_that_cost_no_search(tmp_path):
    searches.scatter(compared(2).assign(search_macs=0), tmp_path / "x.svg")
    assert "MACs of the search" in words(tmp_path / "x.svg")


def test_the_pareto_front_holds_what_nothing_beats():
    cost, value = np.array([1.0, 2, 3, 3, 2]), np.array([0.5, 0.7, 0.6, 0.9, 0.7])
    assert searches.pareto(cost, value).tolist() == [True, True, False, True, True]


def test_markdown_of_distances():
    mean = pd.DataFrame([[0.0, 0.25], [0.5, 0.0]], ["a", "b"], ["a", "b"])
    ranks = [{"target": "a", "source": "b", "rank": 1, "agreement": 0.8}]
    ranks += [{"target": "b", "source": "a", "rank": 1, "agreement": 1.0}]
    assert pages.markdown_matrix(mean, mean / 10, pd.DataFrame(ranks)) == [
        "| | a | b |",
        "|---|---|---|",
        "| a | 0.0000 ± 0.0000 | 0.2500 ± 0.0250 |",
        "| b | 0.5000 ± 0.0500 | 0.0000 ± 0.0000 |",
        "| **nearest source** | b (80% of trials) | a (100% of trials) |",
        "",
    ]


def test_a_report_of_long_tables_is_packed(tmp_path):
    tasks = lambda count: {f"t{number}": TINY["tasks"]["zero"] for number in range(count)}  # noqa: E731
    assert not report.is_packed(experiment_of(tmp_path))
    assert not report.is_packed(experiment_of(tmp_path, tasks=tasks(100)))  # 20 ranks each
    assert report.is_packed(experiment_of(tmp_path, tasks=tasks(101)))
    assert report.is_packed(experiment_of(tmp_path, trials=700))


def test_settings_that_changed_with_the_folder_s_path_are_named(tmp_path, monkeypatch):
    """Snakemake knows how files were made by their paths, and sees no change there."""
    monkeypatch.chdir(tmp_path)
    report.record(Experiment.of(config.parse(TINY | {"results": "old"})))
    shutil.move("old", "new")
    moved = TINY | {"results": "new", "data_root": "elsewhere"}
    assert report.changed_elsewhere(Experiment.of(config.parse(moved))) == []
    changed = Experiment.of(config.parse(moved | {"seed": 5, "trials": 3}))
    assert report.changed_elsewhere(changed) == ["seed", "trials"]
    assert report.changed_elsewhere(Experiment.of(config.parse(TINY | {"seed": 5}))) == []
