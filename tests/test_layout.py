"""Where artifacts lie: paths from names, names from paths."""

from pathlib import Path

import pytest
from conftest import experiment_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ftd.errors import UserError
from ftd.layout import FIGURES, LAYOUT, LOGS, Artifact, log_of
from ftd.names import safe_name

FIRST = "abcXYZ019"
names = st.builds(
    "".join, st.tuples(st.sampled_from(FIRST), st.text(f"{FIRST}._-", max_size=9))
).filter(lambda name: not name.endswith("."))
ARTIFACTS = [*LAYOUT, *map(log_of, LOGS)]


@st.composite
def placed(draw):
    """An artifact, and a name for each of its names."""
    artifact = draw(st.sampled_from(ARTIFACTS))
    return artifact, {name: safe_name(draw(names)) for name in artifact.names}


@settings(deadline=None)
@given(placed())
def test_names_follow_from_the_path_that_follows_from_them(case):
    artifact, chosen = case
    path = artifact.path(Path("/results/x.y-z"), **chosen, more="not used")
    assert artifact.match(path.relative_to("/results/x.y-z")) == chosen
    assert artifact.match(Path("elsewhere") / path.relative_to("/results")) is None
    assert artifact.match(path.relative_to("/results/x.y-z").with_suffix(".other")) is None or (
        artifact is LAYOUT.figure
    )


@settings(deadline=None)
@given(placed())
def test_a_path_is_of_one_kind(case):
    artifact, chosen = case
    below = artifact.path(Path(), **chosen)
    assert [other for other in ARTIFACTS if other.match(below) is not None] == [artifact]


@settings(deadline=None, max_examples=25)
@given(st.lists(placed(), max_size=6))
def test_what_is_there_is_found(tmp_path_factory, cases):
    root = tmp_path_factory.mktemp("layout")
    for artifact, chosen in cases:
        path = artifact.path(root, **chosen)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.with_name(f".{path.name}.abcdefgh").touch()  # half-written by a job that runs
    for artifact in ARTIFACTS:
        wanted = {artifact.path(root, **chosen) for kind, chosen in cases if kind == artifact}
        found = list(artifact.find(root))
        assert [path for path, _ in found] == sorted(wanted)
        assert all(artifact.path(root, **chosen) == path for path, chosen in found)


def test_a_name_that_is_missing_is_an_error():
    with pytest.raises(KeyError, match="trial"):
        LAYOUT.probe.path(Path(), network="vgg16", task="zero")
    assert LAYOUT.probe.names == ("network", "trial", "task") and LAYOUT.distances.names == ()


def test_figures_are_below_their_folder_and_have_names_of_their_own(tmp_path):
    methods = {"methods": ["ftd-nas", "vgg16"], "seeds": [0, 1]}
    networks = ["small-cnn", "vgg16-x0.25"]
    found = experiment_of(tmp_path, networks=networks, search=methods).figures()
    assert (
        len(found) == len(set(found)) == 2 * (2 + 4) + 2 + 2 * 4 + 7
    )  # a hand-designed one has no trace
    assert {"shares-fisher-vgg16-x0.25.svg", "trace-ftd-nas-1.svg", "probes.html"} < set(found)
    assert {Path(name).suffix for name in found} == {".svg", ".html"} and len(FIGURES) == 22
    for name in found:
        assert LAYOUT.figure.match(LAYOUT.figure.path(Path(), figure=name)) == {"figure": name}


def test_an_experiment_reads_from_its_base_what_it_lacks(tmp_path):
    experiment = experiment_of(tmp_path / "own", tmp_path / "base")
    own, base = (LAYOUT.slice.path(tmp_path / name, task="zero") for name in ("own", "base"))
    with pytest.raises(
        UserError, match=r"zero\.parquet: .* by: ftd task --task zero \(and the same --config\)$"
    ):
        experiment.input(LAYOUT.slice, task="zero")
    for path in (base, own):
        path.parent.mkdir(parents=True)
        path.touch()
        assert experiment.input(LAYOUT.slice, task="zero") == path
    assert experiment.output(LAYOUT.slice, task="six").parent == own.parent


def test_kinds_are_told_apart_by_what_verify_calls_them():
    assert len({artifact.kind for artifact in LAYOUT}) == len(list(LAYOUT))
    assert all(isinstance(artifact, Artifact) for artifact in LAYOUT)
