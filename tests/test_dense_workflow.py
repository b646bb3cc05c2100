"""Dense tasks by really running Snakemake: derived once, and only what is new is made again."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from conftest import TINY, Workflow, jobs, made_once
from test_dense_tasks import RAW
from test_frames import parquet

from ftd import store
from ftd.layout import LAYOUT
from ftd.library import recommend, verify

EDGES = {"dataset": "frames", "target": "regression", "of": "texture-edges"}
FAR = {"dataset": "frames", "target": "regression", "of": "euclidean-distance", "unit": "metre"}
DERIVED = {"dataset": "frames", "modality": "texture-edges"}


def dense(**changes) -> dict:
    tasks = {"depth": RAW["tasks"]["depth"], "edges": EDGES, "scene": RAW["tasks"]["scene"]}
    same = {key: RAW[key] for key in ("image", "datasets", "trials", "probe")}
    own = {"experiment": "tiny", "data_root": ".", "tasks": tasks}
    more = {"measures": ["fisher-refit", "displacement"], "search": TINY["search"]}
    found = copy.deepcopy(same | own | more | {"train": TINY["train"]} | changes)
    found["datasets"]["frames"]["derive"] = ["texture-edges"]
    return found


@pytest.fixture(scope="module")
def dense_run(tmp_path_factory) -> Workflow:
    def make(folder: Path) -> None:
        workflow = Workflow(folder, dense())
        parquet(folder / "frames.parquet")
        (folder / "jobs.json").write_text(json.dumps(jobs(workflow.run())))

    return Workflow.of(made_once(tmp_path_factory, "dense", make))


def test_dense_tasks_go_all_the_way(dense_run):
    root, done = dense_run.results, json.loads((dense_run.folder / "jobs.json").read_text())
    assert done["dataset"] == done["derive"] == 1 and done["examples_figure"] == 2
    for name in ("task", "probe", "fisher", "search", "training"):
        assert done[name] == 3, name
    table = store.read_table(root / "comparison.parquet").to_pandas()
    assert {*table["task"]} == {"depth", "edges", "scene"} and table["accuracy"].between(0, 1).all()
    assert (root / "figures" / "examples-small-cnn-depth.svg").exists()
    report = (root / "report.html").read_text()
    assert "examples-small-cnn-edges.svg" in report and "7 Dense tasks" in report
    overview = (root / "overview.html").read_text()
    assert overview.count("<section") == 3 and "regression, of frames" in overview
    assert 'alt="8 images of depth: images"' in overview
    assert verify.run(root).problems == []


def test_a_new_modality_reruns_only_what_is_new(dense_run, tmp_path):
    """A name more in ``derive``, a task of it, and another unit in a figure."""
    workflow = dense_run.copy(tmp_path / "copy")
    raw = dense()
    raw["datasets"]["frames"]["derive"].append("euclidean-distance")
    raw["tasks"]["depth"]["unit"] = "m"
    workflow.configure(raw | {"tasks": raw["tasks"] | {"far": FAR}})
    done = jobs(workflow.run("distances"))
    measures = len(raw["measures"])
    assert done == {
        **{"derive": 1, "task": 1, "probe": 1, "fisher": 1},
        **{"index": measures, "distance": 4 * measures, "distances": 1},
    }
    sheets = [f"results/tiny/figures/examples-small-cnn-{task}.svg" for task in ("depth", "edges")]
    assert jobs(workflow.run(*sheets)) == {"examples_figure": 1}


@pytest.mark.slow
def test_a_lost_derived_file_is_made_again(dense_run, tmp_path):
    workflow = dense_run.copy(tmp_path / "copy")
    path = LAYOUT.derived.path(workflow.results, **DERIVED)
    before = path.read_bytes()
    path.unlink()
    done = jobs(workflow.run())
    assert done.get("derive") == 1 and "dataset" not in done and path.read_bytes() == before


def test_a_new_task_of_a_modality_that_no_task_takes_is_placed(dense_run, tmp_path):
    """It is derived for it, by its own file's word; what is kept is a sound library."""
    library = dense_run.copy(tmp_path / "copy")
    root = library.results
    datasets = dense()["datasets"]
    datasets["frames"]["derive"].append("euclidean-distance")
    new = tmp_path / "new.yaml"
    new.write_text(yaml.safe_dump({"tasks": {"far": FAR}, "datasets": datasets}))
    for add in (False, True):
        said = recommend.run(root, new, data_root=library.folder, add=add)
        assert {*said.nearest["source"]} == {"depth", "edges", "scene"}
        assert LAYOUT.derived.path(root, **DERIVED | {"modality": FAR["of"]}).exists() == add
