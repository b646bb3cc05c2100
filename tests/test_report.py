"""Figures, and the report in a real browser."""

import re
import shutil
import subprocess
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ftd import artifacts, figure, select
from ftd.errors import UserError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def words(path) -> list[str]:
    root = ElementTree.parse(path).getroot()
    return [node.text for node in root.iter("{http://www.w3.org/2000/svg}text") if node.text]


def test_the_heat_map_prints_every_value(finished):
    text = words(finished.results / "figures" / "small-cnn-mean.svg")
    table = pd.read_parquet(finished.results / "distances.parquet")
    for value in table["squared_distance"]:
        assert f"{value:.2f}" in text
    assert "source task" in text and "target task" in text
    assert text.count("zero") == text.count("six") == text.count("three") == 2


def test_a_heat_map_of_many_tasks_has_colours_only(tmp_path):
    order = [f"task-{number:02}" for number in range(61)]
    pairs = pd.DataFrame(
        [
            {"network": "n", "trial": 0, "source": source, "target": target}
            | {"squared_distance": float(source != target)}
            for source in order
            for target in order
        ]
    )
    files = [tmp_path / name for name in ("distances.parquet", "nearest.parquet", "x.svg")]
    artifacts.write_table(files[0], pa.Table.from_pandas(pairs))
    ranks = pa.Table.from_pandas(select.nearest(pairs, order))
    artifacts.write_table(files[1], ranks, {"order": order})
    figure.matrix(files[0], files[1], network="n", statistic="mean", out=files[2])
    text = words(files[2])
    assert "1.00" not in text and text.count("task-00") == text.count("task-60") == 2
    assert "task-01" not in text and len(text) < 100


def test_the_page_of_ranks_lists_each_target_s_first(tmp_path):
    blank = dict.fromkeys(select.COLUMNS, 0)
    rows = [blank | {"target": t, "rank": rank} for t in "ab" for rank in range(1, 1000)]
    artifacts.write_table(tmp_path / "nearest.parquet", pa.Table.from_pylist(rows))
    figure.nearest_table(tmp_path / "nearest.parquet", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("<td>b</td>") == 20


def test_figures_are_equal_files(finished, tmp_path):
    root = finished.results
    figure.matrix(
        root / "distances.parquet",
        root / "nearest.parquet",
        network="small-cnn",
        statistic="mean",
        out=tmp_path / "again.svg",
    )
    again = (tmp_path / "again.svg").read_bytes()
    assert again == (root / "figures" / "small-cnn-mean.svg").read_bytes()


@pytest.mark.parametrize(("network", "statistic"), [("vgg", "mean"), ("small-cnn", "median")])
def test_unknown_network_or_statistic(finished, tmp_path, network, statistic):
    root = finished.results
    with pytest.raises(UserError, match=r"vgg|median"):
        figure.matrix(
            root / "distances.parquet",
            root / "nearest.parquet",
            network=network,
            statistic=statistic,
            out=tmp_path / "x.svg",
        )


def test_pages_hold_their_tables(finished):
    probes = (finished.results / "figures" / "probes.html").read_text()
    assert probes.count("<tr>") == 3 and "val_accuracy" in probes and "False" in probes
    nearest = (finished.results / "figures" / "nearest.html").read_text()
    assert len(re.findall("<tr>", nearest)) == 6 and "agreement" in nearest
    comparison = (finished.results / "figures" / "comparison.html").read_text()
    assert comparison.count("ftd-nas") == 3 and "search MACs" in comparison


def test_a_comparison_over_seeds_as_the_paper_has_it():
    rows = [
        {
            **{"task": "t", "method": "m", "seed": seed, "accuracy": 0.9 + 0.01 * seed},
            **{"parameters": 10 * (seed + 1), "macs": 5, "search_macs": 100, "search_seconds": 2.0},
            "space_log10": 3.0,
        }
        for seed in range(3)
    ]
    row = figure.summary(pd.DataFrame(rows)).iloc[0]
    assert row["accuracy %"] == "91.00 ± 1.00" and row["parameters"] == 20 and row["seeds"] == 3
    assert figure.summary(pd.DataFrame(rows[:1])).iloc[0]["accuracy %"] == "90.00"


def test_the_pareto_front_holds_what_nothing_beats():
    cost, value = np.array([1.0, 2, 3, 3, 2]), np.array([0.5, 0.7, 0.6, 0.9, 0.7])
    assert figure.pareto(cost, value).tolist() == [True, True, False, True, True]


def test_seeds_page(finished, tmp_path):
    figure.seeds_page([finished.results], tmp_path / "seeds.md")
    text = (tmp_path / "seeds.md").read_text()
    assert "## Base seed 0, small-cnn" in text and "| **nearest source** |" in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_report_opens_in_a_browser(finished, tmp_path):
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={tmp_path}", "--virtual-time-budget=8000", "--dump-dom"),
            (finished.results / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    for category in ("Distances", "Selection", "Search", "Comparison"):
        assert category in done.stdout, done.stdout[:2000]
