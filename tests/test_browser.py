"""The pages and the report in a real browser."""

import pytest
from conftest import tables_of

PAGES = (
    "overview",
    *(f"figures/{n}" for n in ("datasets", "probes", "nearest", "comparison", "run")),
)

CONTRAST = """
() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = parts(colour).slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((parts(colour)[3] ?? 1) > 0) return colour;
    }
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || node.closest("script, style")) continue;
    const style = getComputedStyle(node);
    const own = node.closest("svg") ? style.fill : style.color;
    const [a, b] = [light(own), light(behind(node))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), texts.currentNode.data.trim()]);
  }
  return found;
}
"""


SHOW = "([content, contentPath]) => app.setView({content, contentPath})"
TOLD = "uri => [...document.images].every((each) => each.alt.length > 40 || each.src !== uri)"
DRAWN = "uri => [...document.images].some((each) => each.src === uri && each.naturalWidth > 0)"


@pytest.fixture
def opened(browser):
    """A function that opens a file; what it complains of, or asks of any host, fails the test."""
    complaints, tabs = [], []

    def open_(path, **options):
        tab = browser.new_page(**options)
        tabs.append(tab)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("console", lambda said: said.type == "error" and complaints.append(said.text))
        here = ("file:", "data:", "blob:", "about:")
        tab.on("request", lambda r: r.url.startswith(here) or complaints.append(r.url))
        tab.goto(path.as_uri())
        return tab

    yield open_
    for tab in tabs:
        tab.close()
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_our_pages_can_be_read(opened, finished, page, scheme):
    tab = opened(finished.results / f"{page}.html", color_scheme=scheme)
    for width in (1280, 390):
        tab.set_viewport_size({"width": width, "height": 900})
        assert tab.evaluate("document.documentElement.scrollWidth") == width
    contrasts = tab.evaluate(CONTRAST)
    assert len(contrasts) > 20 and min(contrasts)[0] >= 4.5, min(contrasts)
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") is (scheme == "light")
    pictures = tab.locator("img").all()
    assert all(picture.evaluate("node => node.naturalWidth > 0") for picture in pictures)
    assert all(picture.get_attribute("alt") for picture in pictures)
    drawn = tab.locator("svg").all()
    assert all(picture.get_attribute("aria-label") for picture in drawn)
    if page in ("overview", "figures/datasets"):
        assert len(pictures) == 2 + 2 + 3 and bool(drawn) is (page == "overview")


def test_tables_are_sorted_by_a_click(opened, finished):
    path = finished.results / "figures" / "nearest.html"
    tab, table = opened(path), tables_of(path)[-1]
    ranks = tab.locator("table").last
    place = list(table).index("mean ± std")
    column = lambda at: ranks.locator(f"tbody td:nth-child({at + 1})").all_inner_texts()  # noqa: E731
    head = ranks.locator("th").nth(place)
    assert column(place) == table["mean ± std"]
    head.get_by_role("button").click()
    means = [float(text.split()[0]) for text in column(place)]
    assert means == sorted(means) and head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").focus()
    tab.keyboard.press("Enter")
    assert [float(text.split()[0]) for text in column(place)] == means[::-1]
    place = list(table).index("target")
    ranks.locator("th").nth(place).get_by_role("button").click()
    assert column(place) == sorted(table["target"])
    assert head.get_attribute("aria-sort") is None


def test_data_can_be_downloaded(opened, finished, tmp_path):
    tab = opened(finished.results / "figures" / "comparison.html")
    with tab.expect_download() as download:
        tab.get_by_text("comparison.csv").click()
    download.value.save_as(tmp_path / "comparison.csv")
    lines = (tmp_path / "comparison.csv").read_text().splitlines()
    assert lines[0].startswith("task,method,seed,accuracy") and len(lines) == 4


def test_every_section_of_the_report_opens(opened, finished):
    path = finished.results / "report.html"
    assert path.stat().st_size < 20e6
    tab = opened(path)
    landing = tab.frame_locator("iframe[title=Overview]")
    assert landing.locator("section").count() == 3 and landing.locator("h1").inner_text() == "tiny"
    assert landing.locator("h1").is_visible()
    sections = sorted(tab.evaluate("Object.keys(categories)"))
    wanted = ("0 Overview", "1 Data", "2 Probes", "3 Distances", "4 Selection", "5 Search")
    assert {*wanted, "6 Comparison", "8 Run"} <= {*sections}
    assert all(section[0].isdigit() for section in sections)
    seen = 0
    assert tab.evaluate("[...document.images].every((each) => each.hasAttribute('alt'))")
    for section in sections:
        tab.evaluate("app.setView({navbarMode: 'menu'})")
        tab.get_by_text(section, exact=True).click()
        for result in tab.evaluate("name => Object.values(categories[name]).flat()", section):
            assert tab.evaluate("path => results[path].caption.length", result) > 40
            address = tab.evaluate("path => results[path].data_uri", result)
            seen += 1
            if result.endswith(".html"):
                tab.evaluate(SHOW, ["html", address])
                tab.wait_for_function(
                    "uri => document.querySelector('iframe')?.src === uri", arg=address
                )
                assert tab.frame_locator("iframe").locator("body").inner_text()
            elif result.endswith(".svg"):
                tab.evaluate(SHOW, ["img", address])
                tab.wait_for_function(DRAWN, arg=address)
                tab.wait_for_function(TOLD, arg=address)
    figures = list((finished.results / "figures").iterdir())
    assert seen == len(figures) + 1
    tab.set_viewport_size({"width": 390, "height": 600})
    tab.evaluate("app.setView({navbarMode: 'menu'})")
    content = tab.locator("div.overflow-auto").bounding_box()
    assert content["width"] == 390 and content["height"] > 200
    cells = tab.evaluate("results['results/tiny/figures/cells-ftd-nas-0.svg'].data_uri")
    tab.evaluate(SHOW, ["img", cells])
    tab.wait_for_function(DRAWN, arg=cells)
    tab.set_viewport_size({"width": 1280, "height": 200})
    image = tab.locator(f"img[src='{cells}']").bounding_box()
    assert image["height"] > 200 and image["y"] >= 0
    for view in ("stats", "rulegraph"):
        tab.evaluate("content => app.setView({content})", view)
        tab.locator("#app canvas, #app svg.marks").first.wait_for()
