"""The wheel, installed where the repository is not; what its version may not change."""

import inspect
import os
import subprocess
import sys
import sysconfig
import zipfile
from importlib import import_module

import pytest
import yaml
from conftest import ROOT, TINY, experiment_of

import ftd
from ftd import store
from ftd.layout import LAYOUT


def run(*command, **more) -> str:
    """Standard output; fails the test if the command fails."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of what it is made of: a build leaves files where it runs."""
    source = tmp_path_factory.mktemp("source")
    for name in ("ftd", "pyproject.toml", "README.md", "LICENSE"):
        run("cp", "-R", ROOT / name, source / name)
    out = source / "dist"
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
    assert [path.suffix for path in sorted(out.iterdir())] == [".whl", ".gz"]
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A fresh environment with the wheel; other packages are those that are here."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--quiet", wheel)
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    with open(os.path.join(packages, "here.pth"), "w") as others:
        others.write(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_the_wheel_has_the_package_its_data_and_its_licence(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        about = next(name for name in names if name.endswith("/METADATA"))
        metadata = file.read(about).decode()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"ftd", about.split("/")[0]}
    assert "ftd/transfer/trust.json" in names and any(n.endswith("/LICENSE") for n in names)
    assert f"Version: {ftd.__version__}\n" in metadata and "License-Expression: MIT" in metadata


@pytest.mark.slow
def test_it_runs_in_a_fresh_environment(installed, tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    elsewhere = {"cwd": tmp_path, "env": {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}}
    assert "recommend" in run(installed / "ftd", "--help", **elsewhere)
    code = "import ftd; ftd.distance, ftd.fisher_diagonal; print(ftd.__file__)"
    found = run(installed / "python", "-c", code, **elsewhere)
    assert found.startswith(str(installed.parent))
    run(installed / "ftd", "dataset", "--config=tiny.yaml", "--dataset=digits", **elsewhere)
    run(installed / "ftd", "task", "--config=tiny.yaml", "--task=six", **elsewhere)
    run(installed / "ftd", "probe", "--config=tiny.yaml", "--task=six", "--trial=0", **elsewhere)
    names = {"network": "small-cnn", "trial": 0, "task": "six"}
    facts = store.read_json(LAYOUT.probe_facts.path(tmp_path / "results" / "tiny", **names))
    assert facts["packages"]["ftd"] == ftd.__version__


NAMES = {
    **{"dataset": "digits", "modality": "normals", "task": "six", "network": "small-cnn"},
    **{"trial": 0, "measure": "fisher", "method": "ftd-nas", "seed": 0, "repeat": 0},
    **{"truth": "weights", "figure": "probes"},
}


def decided(experiment) -> dict:
    """What every stage's ``decides`` gives, by the stage."""
    found = {}
    for path in sorted((ROOT / "ftd" / "stages").glob("*.py")):
        stage = import_module(f"ftd.stages.{path.stem}")
        if hasattr(stage, "decides"):
            asked = inspect.signature(stage.decides).parameters
            names = {name: value for name, value in NAMES.items() if name in asked}
            if path.stem == "distance":
                names |= {name: NAMES[name] for name in ("network", "trial", "task")}
            found[path.stem] = stage.decides(experiment, **names)
    return found


def test_a_new_version_of_the_package_reruns_nothing(tmp_path, monkeypatch):
    """It is said in what is made from then on; what decides a job is its stage's version."""
    before = decided(experiment_of(tmp_path))
    assert {"dataset", "probe", "distance", "search", "report"} < set(before)
    monkeypatch.setattr(ftd, "__version__", "99.0.0")
    assert decided(experiment_of(tmp_path)) == before
