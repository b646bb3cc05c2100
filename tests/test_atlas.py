"""Maps of tasks: places by classical scaling, labels that do not overlap, arrows to the nearest."""

import re
import subprocess

import numpy as np
import pandas as pd
import pytest
from conftest import CHROMIUM, experiment_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from test_report import words

from ftd.drawing.atlas import apart, atlas, places
from ftd.drawing.style import width
from ftd.stages import figures

NAMES = ["zero", "six", "seven", "eight"]


def arrows(path):
    """Source by (target, rank)."""
    found = re.findall(r'id="(\w+)-(\d)-(\w+)"', path.read_text())
    return {(target, int(rank)): source for target, rank, source in found}


@given(st.integers(0, 10**6), st.integers(2, 12))
def test_points_of_a_plane_keep_their_distances(seed, count):
    points = np.random.default_rng(seed).normal(size=(count, 2))
    found = places(cdist(points, points))
    assert np.allclose(cdist(found, found), cdist(points, points), atol=1e-6)


def test_places_of_both_directions_and_of_what_is_not_known():
    far = np.array([[np.nan, 2.0, np.nan], [4.0, np.nan, np.nan], [1.0, 1.0, np.nan]])
    whole = np.array([[0.0, 3, 1], [3, 0, 1], [1, 1, 0]])
    assert np.allclose(places(far), places(whole))
    nothing = np.full((3, 3), np.nan)
    assert np.array_equal(places(nothing), np.zeros((3, 2)))
    assert places(np.array([[np.nan]])).tolist() == [[0.0, 0.0]]


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([0.0, 1.0, 50.0]), st.booleans())
def test_labels_do_not_overlap(seed, count, spread, twins):
    rng = np.random.default_rng(seed)
    sizes = np.stack([rng.uniform(10, 300, count), np.full(count, 22.0)], 1)
    given = spread * rng.normal(size=(count, 2))
    if twins:  # some stand in one place
        given = given[rng.integers(0, 1 + count // 4, count)]
    centres = apart(given, sizes, gap=5)
    assert np.ptp(centres, axis=0).max() < 150 * count + 10 * spread
    between = np.abs(centres[:, None] - centres[None]) + 1e-5
    clear = (between >= (sizes[:, None] + sizes[None]) / 2 + 5).any(-1)
    assert clear[~np.eye(count, dtype=bool)].all()


@pytest.mark.parametrize("count", [1, 2, 20, 60])
def test_labels_of_one_place_stand_on_a_grid(count):
    sizes = np.tile([100.0, 20.0], (count, 1))
    width, height = np.ptp(apart(np.ones((count, 2)), sizes, gap=5), axis=0)
    assert width + 100 < 150 * np.sqrt(count / 5 + 3) and height + 20 < 150 * np.sqrt(count / 5 + 3)


def test_tasks_that_nothing_tells_apart(tmp_path):
    """A constant measure, and one without numbers."""
    names = [f"task-{number}" for number in range(20)]
    for value in (0.0, 1.0, np.nan):
        for higher in (False, True):
            flat = pd.DataFrame(np.full((20, 20), value), names, names)
            atlas(flat, tmp_path / "x.svg", title="Nearest", higher=higher)
            sides = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt', drawn(tmp_path / "x.svg"))
            assert max(map(float, sides.groups())) < 1000


def drawn(path):
    """An SVG's text, its size in whichever order."""
    text = path.read_text()
    sizes = dict(re.findall(r'(width|height)="([\d.]+pt)"', text[: text.index("<g")]))
    return f'width="{sizes["width"]}" height="{sizes["height"]}"'


@pytest.mark.parametrize("name", ["W" * 16, "keypoints-2d", "i"])
def test_a_label_has_room_for_its_letters(name):
    from matplotlib.textpath import TextPath

    assert width(name, 10) == pytest.approx(TextPath((0, 0), name, size=10).get_extents().width)
    assert width("W" * 16, 10) > 150 and width("i", 10) < 5


def test_labels_that_are_apart_stay_where_they_are():
    centres = np.array([[0.0, 0.0], [300.0, 0.0], [0.0, 300.0]])
    assert np.allclose(apart(centres, np.full((3, 2), 20.0)), centres, atol=0.01)


def test_arrows_lead_to_the_nearest_three(tmp_path):
    values = pd.DataFrame(
        [[0, 1, 5, 4], [3, 0, 2, np.nan], [1, 2, 0, 1], [2, 3, 1, 0]], NAMES, NAMES, dtype=float
    )
    atlas(values, tmp_path / "x.svg", title="Nearest")
    assert arrows(tmp_path / "x.svg") == {
        **{("zero", 1): "seven", ("zero", 2): "eight", ("zero", 3): "six"},
        **{("six", 1): "zero", ("six", 2): "seven", ("six", 3): "eight"},
        **{("seven", 1): "eight", ("seven", 2): "six", ("seven", 3): "zero"},
        **{("eight", 1): "seven", ("eight", 2): "zero"},
    }
    assert {*words(tmp_path / "x.svg")} == {*NAMES, "Nearest"}
    own = 9 * np.eye(4)  # a task's number to itself does not count
    found = []
    for number, other in enumerate((-values, own - values, 9 - values)):
        atlas(other, tmp_path / f"{number}.svg", title="Nearest", higher=True)
        found.append((tmp_path / f"{number}.svg").read_bytes())
        assert arrows(tmp_path / f"{number}.svg") == arrows(tmp_path / "x.svg")
    assert found[0] == found[1] == found[2]


def test_an_atlas_of_an_experiment(finished, tmp_path):
    own = experiment_of(tmp_path, finished.results)
    out = figures.run(own, "atlas", measure="fisher", network="small-cnn")
    drawn = finished.results / "figures" / "atlas-fisher-small-cnn.svg"
    assert out.read_bytes() == drawn.read_bytes()
    nearest = pd.read_parquet(finished.results / "nearest.parquet")
    wanted = {(row.target, row.rank): row.source for row in nearest.itertuples()}
    assert arrows(out) == wanted


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_in_a_browser_no_name_covers_another(tmp_path):
    names = [f"{word}-of-{n}" for n in range(6) for word in ("WWWWWWWWWW", "illi", "keypoints")]
    points = np.random.default_rng(0).normal(size=(len(names), 4))
    values = pd.DataFrame(cdist(points, points), names, names)
    atlas(values, tmp_path / "x.svg", title="Nearest")
    picture = (tmp_path / "x.svg").read_text().partition("?>")[2]
    (tmp_path / "x.html").write_text(f"""<!doctype html><body>{picture}<script>
      const boxes = [...document.querySelectorAll("text")].map(e => e.getBoundingClientRect());
      const over = (a, b) => a.left < b.right && b.left < a.right
        && a.top < b.bottom && b.top < a.bottom;
      let count = 0;
      boxes.forEach((a, i) => boxes.slice(i + 1).forEach(b => count += over(a, b)));
      document.body.innerHTML = `names ${{boxes.length}} covered ${{count}}`;</script>""")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run([*command, str(tmp_path / "x.html")], capture_output=True, text=True)
    assert f"names {len(names) + 1} covered 0" in done.stdout
