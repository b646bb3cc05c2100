"""The page to look up distances, in a real browser."""

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from conftest import experiment_of

from ftd.drawing import explorer
from ftd.stages import figures

ORDER = ["zero", "six", "three"]


def ranked(order: list[str], measures: list[str], networks: list[str]) -> pd.DataFrame:
    """As ``nearest.parquet`` has it; of the second measure, larger is nearer."""
    rng, rows = np.random.default_rng(0), []
    for place, measure in enumerate(measures):
        for network in networks:
            for target in order:
                names = {"measure": measure, "network": network, "target": target}
                others = [name for name in order if name != target]
                numbers = np.sort(rng.uniform(0, 1, len(others)).astype(np.float32))
                numbers = numbers[::-1] if place == 1 else numbers
                pairs = zip(rng.permutation(others), numbers, strict=True)
                for rank, (source, mean) in enumerate(pairs, start=1):
                    own = {"source": source, "rank": rank, "mean": mean, "std": mean / 10}
                    rows.append(names | own | {"agreement": 0.8})
    return pd.DataFrame(rows)


def test_a_page_of_forty_tasks_is_small_and_the_same_again(tmp_path):
    order = [f"household-devices-{number}" for number in range(40)]
    table = ranked(order, ["fisher", "leep"], ["small-cnn", "vgg16"])
    for name in ("one", "two"):
        explorer.page(table, tmp_path / f"{name}.html", order=order, higher=["leep"])
    content = (tmp_path / "one.html").read_bytes()
    assert content == (tmp_path / "two.html").read_bytes()
    assert len(content) < 1_500_000


def test_of_many_tasks_the_nearest_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(explorer, "_ROWS", 6)
    table = ranked([*ORDER, "four"], ["fisher"], ["n"])
    explorer.page(table, tmp_path / "x.html", order=[*ORDER, "four"], higher=[])
    text = (tmp_path / "x.html").read_text()
    assert "Of each target, the nearest 1 sources are here." in text
    rows = re.search(r'"(rank,mean.*?)"', text).group(1).split("\\n")
    assert len([row for row in rows if row]) == 1 + 4


def test_the_page_of_an_experiment_is_made_again_the_same(finished, tmp_path):
    """Of a few tasks the workflow makes none."""
    experiment = finished.copy(tmp_path / "copy").results
    page = figures.run(experiment_of(tmp_path, experiment), "explorer")
    before = page.read_bytes()
    assert b'"three"' in before
    assert figures.run(experiment_of(tmp_path, experiment), "explorer").read_bytes() == before
    assert not (finished.results / "figures" / "matrix.html").exists()


class Page:
    """An open page: what it says, and what went wrong."""

    def __init__(self, page):
        self.page, self.wrong, self.asked = page, [], []
        page.on("console", lambda message: self.wrong.append(message.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def cell(self, source: str, target: str):
        label = f"target task: {target}; source task: {source};"
        return self.page.locator(f'#matrix path[aria-label^="{label}"]')

    def rows(self) -> list[str]:
        labels = self.page.locator("#matrix .role-axis-label").nth(1)
        found = labels.locator("text").evaluate_all(
            "all => all.map(e => [e.getBoundingClientRect().top, e.textContent])"
        )
        return [name for _, name in sorted(found)]

    def sorted_as(self, rows: list[str]) -> None:
        self.page.wait_for_timeout(300)
        assert self.rows() == rows

    def tooltip(self) -> dict[str, str]:
        shown = self.page.locator("#vg-tooltip-element.visible")
        shown.wait_for()
        cells = shown.locator("td").all_text_contents()
        return dict(zip(cells[::2], cells[1::2], strict=True))


@pytest.fixture
def opened(browser) -> Iterator:
    """A function that opens a page."""
    context = browser.new_context(viewport={"width": 1280, "height": 1400})

    def open_page(path) -> Page:
        page = Page(context.new_page())
        page.page.goto(path.as_uri())
        page.page.wait_for_selector("#matrix path[aria-label]")
        return page

    yield open_page
    context.close()


def test_in_a_browser_cells_are_read_and_sources_sorted(tmp_path, opened):
    order = [f"task-{number}" for number in range(12)]  # by their ranks as texts, 10 precedes 2
    table = ranked(order, ["fisher", "leep"], ["small-cnn", "vgg16"])
    explorer.page(table, tmp_path / "x.html", order=order, higher=["leep"])
    page = opened(tmp_path / "x.html")

    def of(measure, network, target):
        rows = table[(table["measure"] == measure) & (table["network"] == network)]
        return rows[rows["target"] == target].sort_values("rank")

    page.sorted_as(order)
    own = of("fisher", "small-cnn", "task-3").iloc[4]
    page.cell(own["source"], "task-3").hover()
    told = page.tooltip()
    assert (told["source"], told["target"], told["rank"]) == (own["source"], "task-3", "5")
    mean, spread = map(float, told["mean ± standard deviation"].split(" ± "))
    assert mean == pytest.approx(own["mean"], rel=1e-3)
    assert spread == pytest.approx(own["std"], rel=0.06)
    assert told["nearest in trials"] == "80%"
    page.cell(own["source"], "task-3").click()
    page.sorted_as(["task-3", *of("fisher", "small-cnn", "task-3")["source"]])
    _choose(page, "measure", "leep")
    page.sorted_as(["task-3", *of("leep", "small-cnn", "task-3")["source"]])
    _choose(page, "network", "vgg16")
    _choose(page, "sort for target", "task-7")
    page.sorted_as(["task-7", *of("leep", "vgg16", "task-7")["source"]])
    _choose(page, "sort for target", "none")
    page.sorted_as(order)
    assert page.wrong == []
    assert page.asked == [(tmp_path / "x.html").as_uri()]


def _choose(page: Page, name: str, value: str) -> None:
    row = page.page.locator("#choices .vega-bind", has_text=name)
    row.locator("select").select_option(label=value)


def test_in_a_browser_the_nearer_cell_is_the_brighter(tmp_path, opened):
    """Whichever way the measure has it."""
    table = ranked(ORDER, ["fisher", "leep"], ["n"])
    explorer.page(table, tmp_path / "x.html", order=ORDER, higher=["leep"])
    page = opened(tmp_path / "x.html")
    for measure in ("fisher", "leep"):
        _choose(page, "measure", measure)
        page.page.wait_for_timeout(300)
        rows = table[(table["measure"] == measure) & (table["target"] == "six")]
        near, far = rows.sort_values("rank")["source"]
        fills = [page.cell(source, "six").get_attribute("fill") for source in (near, far)]
        bright = [sum(map(int, re.findall(r"\d+", _rgb(fill)))) for fill in fills]
        assert bright[0] > bright[1]


def _rgb(fill: str) -> str:
    if not fill.startswith("#"):
        return fill
    return " ".join(str(int(fill[place : place + 2], 16)) for place in (1, 3, 5))
