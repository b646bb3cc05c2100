"""Maps of tasks: places by classical scaling, labels that do not overlap, arrows to the nearest."""

import re
import subprocess

import numpy as np
import pandas as pd
import pytest
from conftest import experiment_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from test_report import CHROMIUM, words

from ftd.drawing.atlas import apart, atlas, places
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
@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([0.0, 1.0, 50.0]))
def test_labels_do_not_overlap(seed, count, spread):
    rng = np.random.default_rng(seed)
    sizes = np.stack([rng.uniform(10, 300, count), np.full(count, 22.0)], 1)
    centres = apart(spread * rng.normal(size=(count, 2)), sizes, gap=5)
    between = np.abs(centres[:, None] - centres[None]) + 1e-5
    clear = (between >= (sizes[:, None] + sizes[None]) / 2 + 5).any(-1)
    assert clear[~np.eye(count, dtype=bool)].all()


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
    atlas(-values, tmp_path / "y.svg", title="Nearest", higher=True)
    assert (tmp_path / "x.svg").read_bytes() == (tmp_path / "y.svg").read_bytes()


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
