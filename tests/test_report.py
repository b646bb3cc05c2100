"""Figures, and the report in a real browser."""

import re
import shutil
import subprocess
from xml.etree import ElementTree

import pytest

from ftd import figure
from ftd.errors import UserError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def words(path) -> list[str]:
    root = ElementTree.parse(path).getroot()
    return [node.text for node in root.iter("{http://www.w3.org/2000/svg}text") if node.text]


def test_the_heat_map_prints_every_value(finished):
    import pandas as pd

    text = words(finished.results / "figures" / "small-cnn-mean.svg")
    table = pd.read_parquet(finished.results / "distances.parquet")
    for value in table["squared_distance"]:
        assert f"{value:.2f}" in text
    assert "source task" in text and "target task" in text
    assert text.count("zero") == text.count("six") == text.count("three") == 2


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
    assert "search_macs" in (finished.results / "figures" / "comparison.html").read_text()


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
