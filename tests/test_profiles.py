"""The profiles parse and plan the workflow; memory grows by attempt; the Dockerfile is sound."""

import re

import pytest
import yaml
from conftest import ROOT, TINY, Workflow

PROFILES = sorted(path.parent.name for path in (ROOT / "profiles").glob("*/config.yaml"))
GPU_RULES = (
    *("probe", "fisher", "embedding", "distance", "search", "training", "genotypes"),
    *("finetuning", "few"),
)
NO_GPU = [f"{rule}:gpu=0" for rule in GPU_RULES]


@pytest.fixture
def workflow(tmp_path) -> Workflow:
    return Workflow(tmp_path, TINY)


def with_profile(name: str, *arguments: str) -> list[str]:
    if name in ("slurm", "kubernetes"):
        pytest.importorskip(f"snakemake_executor_plugin_{name}")
    if name == "kubernetes":
        pytest.importorskip("snakemake_storage_plugin_fs")
    return ["--profile", str(ROOT / "profiles" / name), *arguments]


def resources(output: str) -> dict[str, str]:
    """The resources of (the last printed job of) each rule in Snakemake's output."""
    found, rule = {}, None
    for line in map(str.strip, output.splitlines()):  # jobs of a group are indented
        if match := re.match(r"(?:local)?(?:rule|checkpoint) (\w+):", line):
            rule = match[1]
        elif line.startswith("resources: "):
            found[rule] = line.partition(": ")[2]
    return found


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_plans_the_whole_workflow(workflow, name):
    output = workflow.run("--dry-run", *with_profile(name))
    planned = resources(output)
    assert {"dataset", "task", "probe", "fisher", "distance", "selection", "all"} <= planned.keys()
    for rule in set(GPU_RULES) & planned.keys():
        assert "gpu=1" in planned[rule] and "mem_mb=4000" in planned[rule]
    assert "runtime=240" in planned["probe"]
    assert not any("gpu=" in planned[rule] for rule in ("dataset", "task", "selection"))


def test_the_kubernetes_profile_gives_what_the_plugin_asks_for(workflow):
    output = workflow.run("--dry-run", *with_profile("kubernetes"))
    probe = resources(output)["probe"]
    assert "gpu_manufacturer=nvidia" in probe and "scale=0" in probe
    assert "/ftd/results/tiny/distances.parquet (send to storage)" in output


def test_one_option_plans_the_workflow_without_gpus(workflow):
    output = workflow.run("--dry-run", *with_profile("slurm", "--set-resources", *NO_GPU))
    planned = resources(output)
    assert "gpu=0" in planned["probe"] and "gpu=1" not in output
    assert f"--set-resources {' '.join(NO_GPU)}" in (ROOT / "docs" / "clusters.md").read_text()


def test_every_gpu_rule_is_named_there():
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    asking = [rule for rule in re.split(r"^rule ", rules, flags=re.M) if "gpu=1" in rule]
    assert sorted(rule.partition(":")[0] for rule in asking) == sorted(GPU_RULES)


@pytest.mark.slow
def test_memory_grows_with_every_attempt(tmp_path):
    task = {"zero": TINY["tasks"]["zero"]}
    diverging = {"epochs": 1, "learning_rate": 1e30}
    workflow = Workflow(tmp_path, TINY | {"tasks": task, "probe": diverging})
    output = workflow.run("probes", "--retries", "2", "--verbose", ok=False)
    asked = [line for line in output.splitlines() if "resources: " in line and "gpu=1" in line]
    found = [re.search(r"\bmem_mb=(\d+)", line)[1] for line in asked]
    assert found == ["4000", "8000", "12000"]


def test_only_the_profiles_of_clusters_retry():
    """A wrong input would fail three times."""
    settings = {
        name: yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())
        for name in PROFILES
    }
    assert {name for name, found in settings.items() if "retries" in found} == {
        *("slurm", "kubernetes")
    }


def test_the_dockerfile_installs_exact_versions_before_the_sources_change():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    order = [
        "COPY requirements.lock ./",
        "RUN pip install --no-cache-dir --requirement requirements.lock",
        "COPY . ./",
        "RUN pip install --no-cache-dir --no-deps .",
    ]
    assert [line for line in lines if line in order] == order
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {"data", "results", ".*"} <= set(ignored)
