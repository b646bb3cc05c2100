"""Dense tasks by really running Snakemake: derived once, and only what is new is made again."""

import copy

import pytest
from conftest import TINY, Workflow, jobs
from test_dense_tasks import RAW
from test_frames import parquet

from ftd import store
from ftd.library import verify

EDGES = {"dataset": "frames", "target": "regression", "of": "texture-edges"}
FAR = {"dataset": "frames", "target": "regression", "of": "euclidean-distance", "unit": "metre"}


def dense(folder, **changes) -> dict:
    tasks = {"depth": RAW["tasks"]["depth"], "edges": EDGES, "scene": RAW["tasks"]["scene"]}
    same = {key: RAW[key] for key in ("image", "datasets", "trials", "probe")}
    own = {"experiment": "tiny", "data_root": str(folder), "tasks": tasks}
    more = {"measures": ["fisher-refit", "displacement"], "search": TINY["search"]}
    return copy.deepcopy(same | own | more | {"train": TINY["train"]} | changes)


@pytest.fixture(scope="module")
def dense_run(tmp_path_factory) -> Workflow:
    folder = tmp_path_factory.mktemp("dense-workflow")
    parquet(folder / "frames.parquet")
    workflow = Workflow(folder / "work", dense(folder))
    workflow.done = jobs(workflow.run())
    return workflow


def test_dense_tasks_go_all_the_way(dense_run):
    root, done = dense_run.results, dense_run.done
    assert done["dataset"] == done["derive"] == 1 and done["example_figure"] == 2
    for name in ("task", "probe", "fisher", "search", "training"):
        assert done[name] == 3, name
    table = store.read_table(root / "comparison.parquet").to_pandas()
    assert {*table["task"]} == {"depth", "edges", "scene"} and table["accuracy"].between(0, 1).all()
    assert (root / "figures" / "examples-small-cnn-depth.svg").exists()
    report = (root / "report.html").read_text()
    assert "examples-small-cnn-edges.svg" in report
    assert verify.run(root).problems == []


def test_a_new_modality_reruns_only_what_is_new(dense_run, tmp_path):
    workflow = dense_run.copy(tmp_path / "copy")
    raw = dense(dense_run.folder.parent)
    workflow.configure(raw | {"tasks": raw["tasks"] | {"far": FAR}})
    done = jobs(workflow.run("distances"))
    measures = len(raw["measures"])
    assert done == {
        **{"derive": 1, "task": 1, "probe": 1, "fisher": 1},
        **{"index": measures, "distance": 4 * measures, "distances": 1},
    }
