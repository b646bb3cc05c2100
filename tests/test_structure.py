"""How the code is built: rooms in order, imports, sizes, names."""

import ast
import builtins
import itertools
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

ROOMS = [
    *("errors", "names", "runtime", "store", "parts", "layout", "config", "tasks", "models"),
    *("fisher", "measures", "search", "transfer", "drawing", "stages", "library", "cli", "api"),
]
"""Low to high: a room imports from itself and from those before it."""
STAGES = [
    *("dataset", "derive", "task", "probe", "fisher", "embedding", "distance", "selection"),
    *("search", "training", "genotypes", "transfer", "few", "agreement", "comparison", "figures"),
    *("overview", "report"),
]
"""Their modules, in ``ftd/stages``, have their names, which rooms may have too."""
MODULES = sorted([*(ROOT / "ftd").rglob("*.py"), *(ROOT / "evidence").rglob("*.py")])
PATHS = {path.relative_to(ROOT).as_posix(): path for path in MODULES}
TREES = {name: ast.parse(path.read_text()) for name, path in PATHS.items()}
TOP = {"ftd/__init__.py", "ftd/__main__.py"}


def is_for_types(node: ast.AST) -> bool:
    """Whether it is ``if TYPE_CHECKING:``, whose imports never run."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def walk(node: ast.AST):
    """All nodes that may run."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not is_for_types(child):
            yield from walk(child)


def module_file(name: str) -> str | None:
    """The file of a module's dotted name, if it is one of ours."""
    base = name.replace(".", "/")
    return next((file for file in (f"{base}.py", f"{base}/__init__.py") if file in PATHS), None)


def imported(node: ast.AST) -> list[str]:
    """Our modules, as files, that an import statement asks for by name."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, "imports are absolute"
        below = [f"{node.module}.{alias.name}" for alias in node.names]
        names = [name if module_file(name) else node.module for name in below]
    else:
        return []
    return [file for file in map(module_file, names) if file]


def imports_of(file: str) -> set[str]:
    return {found for node in walk(TREES[file]) for found in imported(node)} - {file}


def room(file: str) -> str:
    return Path(file).parts[1].removesuffix(".py")


@pytest.mark.parametrize("file", [f for f in PATHS if f.startswith("ftd/") and f not in TOP])
def test_rooms_import_downwards(file):
    own = ROOMS.index(room(file))
    for found in imports_of(file) - TOP:  # the version
        assert found.startswith("ftd/") and ROOMS.index(room(found)) <= own, found


def test_no_modules_import_each_other_in_a_circle():
    TopologicalSorter({file: imports_of(file) for file in PATHS}).prepare()


def says_why(file: str, function: ast.AST, node: ast.AST, block: list[ast.AST]) -> bool:
    """Whether a comment at an import, or a docstring, tells why a function has it."""
    lines = PATHS[file].read_text().splitlines()
    first = block[0].lineno
    near = lines[first - 2 : block[-1].end_lineno]
    texts = (ast.get_docstring(function), ast.get_docstring(TREES[file]))
    return any("#" in line for line in near) or any("import" in (text or "") for text in texts)


def blocks(function: ast.AST):
    """Runs of import statements in a function."""
    for node in ast.walk(function):
        for body in (getattr(node, "body", None), getattr(node, "orelse", None)):
            if not isinstance(body, list):
                continue
            kind = lambda item: isinstance(item, ast.Import | ast.ImportFrom)  # noqa: E731
            for is_import, run in itertools.groupby(body, kind):
                if is_import:
                    yield list(run)


def functions(file: str):
    for node in ast.walk(TREES[file]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("file", PATHS)
def test_imports_in_functions_say_what_they_save(file):
    silent = [
        f"{file}:{block[0].lineno}"
        for function in functions(file)
        for block in blocks(function)
        if not says_why(file, function, block[0], block)
    ]
    assert not silent


@pytest.mark.parametrize("file", PATHS)
def test_modules_and_functions_are_short(file):
    assert len(PATHS[file].read_text().splitlines()) <= 450
    long = [f.name for f in functions(file) if f.end_lineno - f.lineno >= 60]
    assert not long


def names_of_modules() -> dict[str, list[str]]:
    """Files by their module's name: a package has that of its folder."""
    found: dict[str, list[str]] = {}
    for file in PATHS:
        path = Path(file)
        own = path.parent.name if path.stem == "__init__" else path.stem
        if path.stem != "__main__":
            found.setdefault(own, []).append(file)
    return found


def test_no_two_modules_have_one_name():
    """But for the stages', which have their stage's."""
    stages = {f"ftd/stages/{stage}.py" for stage in STAGES}
    assert stages < set(PATHS)
    twice = {
        name: files
        for name, files in names_of_modules().items()
        if len([file for file in files if file not in stages]) > 1
    }
    assert not twice


def test_no_module_is_named_like_a_builtin_or_one_of_python_s_own():
    taken = sys.stdlib_module_names | set(dir(builtins))
    assert not taken & set(names_of_modules())
