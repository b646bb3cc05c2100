"""How figures look: no text over another or cut off, contrast, colours, one width; their tables."""

import itertools
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
from conftest import experiment_of
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_svg import RendererSVG

from ftd import store
from ftd.drawing import (
    arrivals,
    atlas,
    curves,
    diagram,
    heatmaps,
    searches,
    strips,
    style,
    truths,
)
from ftd.errors import UserError
from ftd.layout import LAYOUT, TABLES
from ftd.parts import OPERATIONS
from ftd.stages import figures

COUNTS = [4, 12, pytest.param(40, marks=pytest.mark.slow)]
WORDS = ("zero", "keypoints-2d", "household-devices-and-furniture", "a")


def names_of(count: int) -> list[str]:
    return [f"{WORDS[number % 4]}-{number}" for number in range(count)]


def numbers(count: int, seed: int = 0) -> pd.DataFrame:
    values = np.random.default_rng(seed).uniform(0, 1, (count, count))
    np.fill_diagonal(values, 0)
    return pd.DataFrame(values, names_of(count), names_of(count))


def ranks_of(values: pd.DataFrame) -> dict[str, list[str]]:
    return {name: [*values[name].drop(name).sort_values().index] for name in values}


# Texts and where they are drawn ------------------------------------------------------------------


class Texts:
    """What the renderer draws: texts with their boxes, (left, bottom, right, top) in points."""

    def __init__(self, monkeypatch):
        self.found: dict = {}
        plain = RendererSVG.draw_text

        def draw_text(renderer, gc, x, y, text, prop, angle, ismath=False, mtext=None):
            if mtext is None:  # a line of several
                width, height, descent = renderer.get_text_width_height_descent(text, prop, ismath)
                low = renderer.height - y - descent
                box = np.array([x, low, x + width, low + height])
            else:
                box, text = mtext.get_window_extent(renderer).extents, mtext.get_text()
            self.found[text, x, y] = (text, box, renderer)
            plain(renderer, gc, x, y, text, prop, angle, ismath=ismath, mtext=mtext)

        monkeypatch.setattr(RendererSVG, "draw_text", draw_text)

    def check(self) -> list[str]:
        """Asserts that no text lies over another or outside; the texts."""
        assert self.found
        for text, (left, bottom, right, top), renderer in self.found.values():
            inside = left >= -1 and bottom >= -1
            inside &= right <= renderer.width + 1 and top <= renderer.height + 1
            assert inside, f"{text!r} is cut off"
        for (one, a, _), (other, b, _) in itertools.combinations(self.found.values(), 2):
            width = min(a[2], b[2]) - max(a[0], b[0])
            height = min(a[3], b[3]) - max(a[1], b[1])
            assert width < 0.5 or height < 0.5, f"{one!r} lies over {other!r}"
        return [text for text, _, _ in self.found.values()]


@pytest.fixture
def texts(monkeypatch) -> Texts:
    return Texts(monkeypatch)


def draw_matrix(count, out):
    heatmaps.matrix(numbers(count), out, title="Squared distance, mean\nsmall-cnn, 5 trials")


def draw_wide_numbers(count, out):
    heatmaps.matrix(-12345.6 * numbers(count), out, title="m", digits=".3g")


def draw_atlas(count, out):
    atlas.atlas(numbers(count), out, title="Nearest tasks by fisher\nsmall-cnn, 5 trials")


def draw_shares(count, out):
    layers = [f"features.denseblock{n}.denselayer{n}.conv.weight" for n in range(count)]
    found = [
        {"target": target, "source": source, "layer": layer, "contribution": number / count}
        for target, sources in ranks_of(numbers(count)).items()
        for source in sources[: heatmaps.sources_shown(count)]
        for number, layer in enumerate(layers)
    ]
    heatmaps.shares(pd.DataFrame(found), out, of="the squared distance")


def draw_weights(count, out):
    values = numbers(count).where(np.triu(np.ones((count, count)), 1) > 0)
    heatmaps.weights(values / values.sum(), out)


def draw_asymmetry(count, out):
    strips.asymmetry(
        numbers(count), numbers(count, 1) / 10, out, title="Both\nways", number="squared distance"
    )


def draw_consistency(count, out):
    values = numbers(count)
    pairs = values.unstack().rename_axis(["target", "source"]).rename("number").reset_index()
    pairs = pairs[pairs["source"] != pairs["target"]]
    pairs = pd.concat([pairs.assign(trial=trial) for trial in range(3)])
    strips.consistency(pairs, ranks_of(values), out, title="Over\ntrials", number="distance")


def draw_graph(count, out):
    first = [
        (target, sources[0], (place % 5) / 4)
        for place, (target, sources) in enumerate(ranks_of(numbers(count)).items())
    ]
    first = pd.DataFrame(first, columns=["target", "source", "agreement"])
    arrivals.nearest_graph(first, out, order=names_of(count), title="Nearest\nsmall-cnn")


def draw_scores(count, out):
    found = [
        (task, network, 0.9, 0.5, 0.9)
        for task in names_of(count)
        for network in ("small-cnn", "resnet18-x0.25", "vgg16")
    ]
    columns = ["task", "network", "score", "constant", "wanted"]
    strips.scores(pd.DataFrame(found, columns=columns), out, title="Scores of probes")


def courses(tasks: list[str], trials: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Epochs and ends of made-up probes; the later the task, the lower it ends."""
    places = [(task, trial) for trial in range(trials) for task in tasks]
    epochs = [
        (task, trial, epoch, 2.0 / epoch, 0.9 - tasks.index(task) / 100 - 0.5 / epoch)
        for task, trial in places
        for epoch in range(1, 11)
    ]
    ends = [(task, trial, 10, 0.85 - tasks.index(task) / 100, 0.5, 0.9) for task, trial in places]
    columns = ["task", "trial", "epochs", "score", "constant", "wanted"]
    return (
        pd.DataFrame(epochs, columns=["task", "trial", "epoch", "loss", "score"]),
        pd.DataFrame(ends, columns=columns),
    )


def draw_curves(count, out):
    curves.curves(*courses(names_of(count)), out, title="Training of probes\nsmall-cnn, 3 trials")


def draw_trace(count, out):
    steps = pd.DataFrame({"step": range(12), "phase": ["weights", "alpha"] * 6, "loss": 0.5})
    weights = [np.array([0.2, 0.3, 0.5])] * 12
    alphas = steps.assign(score=0.9, alpha=weights, generation=np.arange(12) // 6)
    plain = steps.assign(score=0.97)
    searches.trace(
        {name: (plain, alphas)[place % 2] for place, name in enumerate(names_of(count))},
        **{"out": out, "title": "Searches by ftd-nas, seed 0"},
    )


def draw_cells(count, out):
    operations = OPERATIONS.names()
    nodes = [[[operations[(n + s) % 10], s] for s in range(n + 2)] for n in range(4)]
    genotype = {"normal": nodes, "reduction": nodes[::1], "skeleton": {"feeds": 2}}
    found = [{"task": name, "genotype": genotype} for name in names_of(count)]
    diagram.cells(found, out, title="Cells found by ftd-nas, seed 0")


def draw_candidates(count, out):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"score": rng.uniform(0.8, 1, 30), "epochs": [1] * 10 + [4] * 20})
    table = table.assign(parameters=rng.integers(10**5, 10**7, 30), chosen=[False] * 29 + [True])
    compared = dict.fromkeys(names_of(count), table)
    searches.candidates(compared, out, title="Candidates of ftd-nas, seed 0")


def draw_spaces(count, out):
    sizes = pd.DataFrame({"task": names_of(count), "full": 12.0, "searched": 3.0})
    strips.spaces(sizes, out, title="Spaces of ftd-nas, seed 0")


def draw_scatter(count, out):
    methods = [f"method-{number}" for number in range(15 if count == 4 else 3)]
    found = [
        (task, method, 0.9 - number / 50, 0.5, 10.0 ** (9 + number % 4), 10**4 * (number + 1))
        for task in names_of(count)
        for number, method in enumerate(methods)
    ]
    columns = ["task", "method", "accuracy", "most_frequent", "search_macs", "parameters"]
    searches.scatter(pd.DataFrame(found, columns=columns), out)


def draw_ranks(count, out):
    each = {f"gain, scope {number}, 100 shots": numbers(count, number) for number in range(7)}
    truths.ranks(each, out)


def draw_points(count, out):
    worth = {f"gain, scope {number}": numbers(count, number) for number in range(3)}
    pairs = truths.points(numbers(count), worth)
    truths.scatter(pairs, out, measure="fisher (smaller: nearer)", worth="gain, points")


DRAWS = [
    *(draw_matrix, draw_wide_numbers, draw_atlas, draw_shares, draw_weights, draw_asymmetry),
    *(draw_consistency, draw_graph, draw_scores, draw_trace, draw_cells, draw_candidates),
    *(draw_spaces, draw_scatter, draw_ranks, draw_points, draw_curves),
]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: draw.__name__)
def test_no_text_lies_over_another_and_the_width_is_one(draw, count, tmp_path, texts):
    draw(count, tmp_path / "x.svg")
    texts.check()
    head = (tmp_path / "x.svg").read_text()[:2000]
    assert re.search(r'width="([\d.]+)pt"', head).group(1) == "504"
    assert "<title>" in head


@pytest.mark.parametrize("count", COUNTS)
def test_every_task_is_named_up_to_forty(count, tmp_path, texts):
    for draw in (draw_matrix, draw_atlas, draw_graph, draw_consistency, draw_scores):
        texts.found.clear()
        draw(count, tmp_path / "x.svg")
        shown = " ".join(texts.check())
        assert all(
            style.short(name, 18) in shown or style.short(name) in shown for name in names_of(count)
        )


def test_names_of_more_tasks_thin_out(tmp_path, texts):
    draw_matrix(150, tmp_path / "x.svg")
    shown = {style.short(name) for name in names_of(150)} & {*texts.check()}
    assert 20 < len(shown) < 100


def test_many_tasks_are_arranged_by_how_near_they_are():
    """Two groups that arrive in turns stand apart; NaN is far, so is a small value if higher."""
    group = np.arange(60) % 2
    far = np.where(group[:, None] == group, 0.1, 0.9)
    far[3, 5] = np.nan
    values = pd.DataFrame(far, names_of(60), names_of(60))
    place = {name: number % 2 for number, name in enumerate(values.columns)}
    for found in (heatmaps.arranged(values), heatmaps.arranged(1 - values, higher=True)):
        groups = [place[name] for name in found]
        assert sorted(found) == sorted(values.columns)
        assert sum(a != b for a, b in itertools.pairwise(groups)) == 1
    few = values.iloc[:40, :40]
    assert heatmaps.arranged(few) == list(few.columns)
    nothing = values * np.nan
    assert sorted(heatmaps.arranged(nothing)) == sorted(values.columns)


# Colours -----------------------------------------------------------------------------------------


def luminance(colour) -> float:
    """Of the Web Content Accessibility Guidelines, for a colour in [0, 1]."""
    colour = np.asarray(colour[:3], float)
    linear = np.where(colour <= 0.03928, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one, other) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@given(st.tuples(*[st.floats(0, 1, allow_subnormal=False)] * 3))
def test_ink_is_read_on_every_colour(colour):
    assert contrast(colour, matplotlib.colors.to_rgb(style.ink(colour))) >= 4.5


@pytest.mark.parametrize("draw", [draw_matrix, draw_shares, draw_wide_numbers, draw_weights])
def test_values_are_read_on_their_cells(draw, tmp_path, monkeypatch):
    """By the colours that the picture and its texts have."""
    written = []
    plain = matplotlib.axes.Axes.text

    def text(axes, x, y, content, **options):
        if axes.images:
            cell = axes.images[0].to_rgba(axes.images[0].get_array()[y, x])
            written.append((cell, matplotlib.colors.to_rgb(options["color"])))
        return plain(axes, x, y, content, **options)

    monkeypatch.setattr(matplotlib.axes.Axes, "text", text)
    draw(4, tmp_path / "x.svg")
    assert len(written) >= 6
    assert all(contrast(cell, letters) >= 4.5 for cell, letters in written)


@pytest.mark.parametrize("name", [style.MAGNITUDES, style.SIGNED])
def test_maps_of_numbers_are_even(name):
    """Lightness falls (from the middle, to both sides) without a jump."""
    colours = matplotlib.colormaps[name](np.linspace(0, 1, 64))
    light = np.array([116 * luminance(colour) ** (1 / 3) - 16 for colour in colours])
    for part in [light] if name == style.MAGNITUDES else [light[31::-1], light[32:]]:
        steps = -np.diff(part)
        assert (steps > 0).all() and steps.max() < 4 * np.median(steps)


def test_categories_are_told_apart():
    looks = [tuple(style.marked(number).values()) for number in range(35)]
    assert len({*looks}) == 35
    assert len({tuple(style.dashed(number).values()) for number in range(28)}) == 28


def test_operations_have_one_colour_in_every_figure(tmp_path):
    def colours(*names):
        cell = [[[name, 0] for name in names]]
        genotype = {"normal": cell, "reduction": [], "skeleton": {"feeds": 1}}
        diagram.cells([{"task": "t", "genotype": genotype}], tmp_path / "x.svg", title="t")
        return re.findall(
            r"stroke: (#\w+); stroke-linecap: round", (tmp_path / "x.svg").read_text()
        )

    alone, *rest = colours("sep_conv_5x5")
    both = colours("skip_connect", "sep_conv_5x5")
    assert alone in both and len({*both}) > len({alone, *rest})


# What is drawn -----------------------------------------------------------------------------------


def ids(path) -> set[str]:
    return {*re.findall(r'<g id="([^"]+)"', path.read_text())}


def test_an_arrow_leads_to_each_task_from_its_nearest(tmp_path):
    first = pd.DataFrame({"target": ["a", "b"], "source": ["b", "c"], "agreement": [1.0, 0.2]})
    arrivals.nearest_graph(first, tmp_path / "x.svg", order=["a", "b", "c"], title="t")
    assert {"b-to-a", "c-to-b"} <= ids(tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    assert "stroke-dasharray" in text[text.index("c-to-b") :]


def test_a_front_is_drawn_of_several_methods_alone(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        matplotlib.axes.Axes, "step", lambda axes, x, *_, **__: drawn.append(len(x))
    )
    row = {"task": "t", "accuracy": 0.9, "most_frequent": 0.5, "search_macs": 10, "parameters": 7}
    searches.scatter(pd.DataFrame([row | {"method": "m"}]), tmp_path / "x.svg")
    assert drawn == []
    better = row | {"method": "n", "accuracy": 0.8, "search_macs": 5, "parameters": 9}
    searches.scatter(pd.DataFrame([row | {"method": "m"}, better]), tmp_path / "x.svg")
    assert drawn == [2, 1]  # dearer and better; larger and worse


def test_of_many_tasks_the_curves_of_those_that_end_lowest_are_drawn(tmp_path, texts):
    epochs, ends = courses(names_of(20))
    curves.curves(epochs, ends, tmp_path / "x.svg", title="t")
    shown = texts.check()
    assert [text for text in shown if text in names_of(20)] == [
        style.short(name, 24) for name in names_of(20)[8:] if name == style.short(name, 24)
    ]
    assert any("the 12 of 20 tasks that end lowest" in text for text in shown)


def test_curves_that_were_not_recorded_are_said(tmp_path, texts):
    epochs, ends = courses(["old", "new", "brought"], trials=1)
    ends.loc[ends["task"] == "brought", "epochs"] = 0
    curves.curves(epochs[epochs["task"] == "new"], ends, tmp_path / "x.svg", title="t")
    shown = texts.check()
    assert shown.count("not recorded") == shown.count("brought along") == 1
    curves.curves(epochs[:0], ends, tmp_path / "x.svg", title="t")


# Of an experiment --------------------------------------------------------------------------------


def test_tables_of_figures_hold_what_they_are_of(finished):
    folder, results = finished.results / "figures", finished.results
    wanted = {f.stem for f in folder.glob("*.svg")}
    assert {f.stem for f in folder.glob("*.csv")} == wanted and len(wanted) == 13
    distances = pd.read_parquet(results / "distances.parquet")
    mean = pd.read_csv(folder / "fisher-small-cnn-mean.csv").set_index(["source", "target"])
    both = pd.read_csv(folder / "asymmetry-fisher-small-cnn.csv")
    for row in distances.itertuples():
        assert mean.loc[(row.source, row.target), "mean"] == row.squared_distance
    assert len(mean) == len(both) == 9 and (both["std"] == 0).all()
    scores = pd.read_csv(folder / "scores.csv")
    facts = store.read_json(results / "probes" / "small-cnn" / "0" / "six.json")
    own = scores[scores["task"] == "six"].iloc[0]
    assert list(scores["task"]) == ["zero", "six", "three"]
    assert (own["score"], own["wanted"]) == (facts["val_accuracy"], 0.9)
    epochs = pd.read_csv(folder / "curves-small-cnn.csv")
    assert list(epochs["task"]) == ["zero", "six", "three"] and (epochs["epoch"] == 1).all()
    assert epochs["loss"][1] == facts["train_loss"] and epochs["score"].isna().all()
    found = pd.read_csv(folder / "candidates-ftd-nas-0.csv")
    assert (found.groupby("task")["chosen"].sum() == 1).all() and len(found) == 9
    trace = pd.read_csv(folder / "trace-ftd-nas-0.csv")
    assert list(dict.fromkeys(trace["task"])) == ["zero", "six", "three"]
    shares = pd.read_csv(folder / "shares-fisher-small-cnn.csv")
    sums = shares.groupby(["source", "target"])["contribution"].sum()
    assert np.allclose(sums, mean["mean"].loc[sums.index])


def test_curves_of_probes_of_an_older_version(finished, tmp_path):
    own = experiment_of(tmp_path, finished.results)
    place = {"network": "small-cnn", "trial": 0, "task": "six"}
    document, facts = store.read_document(own.input(LAYOUT.probe_facts, **place))
    assert document.pop("curve")["scores"] == [None]
    store.write_json(own.output(LAYOUT.probe_facts, **place), document, facts)
    out = figures.run(own, "curves", network="small-cnn")
    assert out.read_text().count(">not recorded<") == 1
    table = pd.read_csv(out.with_suffix(".csv"))
    assert list(table["task"]) == ["zero", "three"]


def test_a_figure_drawn_again_is_equal(finished, tmp_path):
    own = experiment_of(tmp_path, finished.results)
    pair, search = {"measure": "fisher", "network": "small-cnn"}, {"method": "ftd-nas", "seed": 0}
    asked = {"asymmetry": pair, "graph": pair, "shares": pair, "scores": {}, "scatter": {}}
    asked["curves"] = {"network": "small-cnn"}
    asked |= {"candidates": search, "spaces": search, "cells": search}
    for figure, names in asked.items():
        out = figures.run(own, figure, **names)
        for file in (out, out.with_suffix(".csv")):
            again = finished.results / "figures" / file.name
            assert file.read_bytes() == again.read_bytes(), file


def test_figures_of_trials_and_of_weights(finished, tmp_path):
    base = experiment_of(tmp_path / "one", finished.results)
    assert not [name for name in base.figures() if name.startswith(("consistency", "weights"))]
    read = store.read_table(base.input(LAYOUT.distances)).to_pandas()
    own = experiment_of(tmp_path / "own", finished.results, trials=2, select={"temperature": 0.5})
    assert {"consistency-fisher-small-cnn.svg", "weights.svg"} <= {*own.figures()}
    import pyarrow as pa

    both = pd.concat([read, read.assign(trial=1, squared_distance=read["squared_distance"] / 2)])
    store.write_table(own.output(LAYOUT.distances), pa.Table.from_pandas(both))
    out = figures.run(own, "consistency", measure="fisher", network="small-cnn")
    table = pd.read_csv(out.with_suffix(".csv"))
    assert len(table) == 2 * 6 and {*table["trial"]} == {0, 1}
    with pytest.raises(UserError, match=r"selection\.json: weights are equal, and not listed"):
        figures.run(own, "weights")
    shares = {"three": {"zero": 0.25, "six": 0.75}, "six": {"zero": 1.0}, "zero": None}
    document = {task: {"weights": found} for task, found in shares.items()}
    facts = {"stage": "selection", "order": ["zero", "six", "three"]}
    store.write_json(own.output(LAYOUT.selection), document, facts)
    out = figures.run(own, "weights")
    table = pd.read_csv(out.with_suffix(".csv"))
    assert {tuple(row) for row in table.to_numpy()} == {
        *(("zero", "three", 0.25), ("six", "three", 0.75), ("zero", "six", 1.0))
    }


def test_pages_and_sheets_have_no_table():
    assert "examples" not in TABLES and "explorer" not in TABLES
    assert all(name.endswith(".csv") for name in TABLES.values())
