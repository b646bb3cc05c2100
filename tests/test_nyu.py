"""Taskonomy's ten dense tasks on NYU Depth v2's real frames, a short version: ten minutes."""

import pandas as pd
import pytest
import yaml
from conftest import ROOT, Workflow

from ftd import store
from ftd.library import verify

NYU = ROOT.parent / "shared" / "data"
DEPTHS = ("euclidean-distance", "z-depth")


@pytest.mark.slow
@pytest.mark.skipif(not (NYU / "nyu_depth_v2").is_dir(), reason="needs NYU Depth v2's frames")
def test_ten_dense_tasks_of_real_frames(tmp_path):
    raw = yaml.safe_load((ROOT / "config" / "taskonomy.yaml").read_text())
    raw |= {"experiment": "tiny", "data_root": str(NYU), "trials": 1}
    raw |= {"image": {"size": 48, "channels": 3}, "fisher": {"samples": 100}}
    raw["probe"] |= {"epochs": 6}
    raw |= {"measures": ["fisher", "displacement"]}
    workflow = Workflow(tmp_path, raw)
    sheets = [f"results/tiny/figures/examples-resnet18-x0.25-{task}.svg" for task in raw["tasks"]]
    workflow.run("selection", *sheets)
    probes = workflow.results / "probes" / "resnet18-x0.25" / "0"
    facts = {task: store.read_json(probes / f"{task}.json") for task in raw["tasks"]}
    better = [task for task, own in facts.items() if own["val_accuracy"] > own["val_most_frequent"]]
    assert len(facts) == 10 and len(better) >= 6, facts
    assert all(own["val_metric"] != own["val_metric_constant"] for own in facts.values())
    nearest = pd.read_parquet(workflow.results / "nearest.parquet")
    first = nearest[(nearest["measure"] == "displacement") & (nearest["rank"] == 1)]
    by = dict(zip(first["target"], first["source"], strict=True))
    assert (by[DEPTHS[0]], by[DEPTHS[1]]) == DEPTHS[::-1]
    assert [line for line in verify.run(workflow.results).problems if "not there" not in line] == []
