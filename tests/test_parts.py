"""Parts by name, and plugins that bring more of them."""

import copy
import dataclasses
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pydantic
import pytest
from conftest import TINY

import ftd
from ftd import config, parts
from ftd.config import Section
from ftd.errors import UserError
from ftd.measures import FISHER

REGISTRIES = {
    "network": parts.NETWORKS,
    "loader": parts.LOADERS,
    "operation": parts.OPERATIONS,
    "method": parts.SEARCHERS,
    "measure": parts.MEASURES,
    "target": parts.TARGETS,
}
REGISTER = {
    "network": lambda name: parts.register_network(name, "somewhere:build"),
    "loader": lambda name: parts.register_loader(name, "somewhere:open"),
    "operation": lambda name: parts.register_operation(name, "somewhere:build"),
    "method": lambda name: parts.register_searcher(name, "somewhere:search"),
    "measure": lambda name: parts.register_measure(name, FISHER),
    "target": lambda name: parts.register_target(name, "somewhere:make"),
}
THERE = {
    "network": "small-cnn",
    "loader": "imagefolder",
    "operation": "none",
    "method": "ftd-nas",
    "measure": "fisher",
    "target": "classes",
}


@pytest.mark.parametrize("kind", REGISTRIES)
def test_a_name_that_is_taken_is_refused(kind):
    before = REGISTRIES[kind].get(THERE[kind])
    message = f"{kind} '{THERE[kind]}' is registered already; give it another name"
    with pytest.raises(UserError, match=message):
        REGISTER[kind](THERE[kind])
    assert REGISTRIES[kind].get(THERE[kind]) is before


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a b", "x.", "a/b", "ü"])
@pytest.mark.parametrize("kind", REGISTRIES)
def test_a_name_that_cannot_be_part_of_a_path_is_refused(kind, name):
    before = REGISTRIES[kind].names()
    with pytest.raises(UserError, match=f"^{kind}: expected a name of letters"):
        REGISTER[kind](name)
    assert REGISTRIES[kind].names() == before


@pytest.mark.parametrize("kind", REGISTRIES)
def test_an_unknown_name_is_told_with_one_that_is_near(kind):
    known = THERE[kind]
    with pytest.raises(ValueError, match=f"^unknown {kind} '{known}x'; did you mean '{known}'"):
        REGISTRIES[kind].get(f"{known}x")


def test_factories_are_functions_or_places_of_some():
    assert parts.resolve(len) is len
    assert parts.resolve("ftd.names:safe_name").__name__ == "safe_name"
    for registry, factory in (
        (parts.NETWORKS, "build"),
        (parts.LOADERS, "open"),
        (parts.OPERATIONS, "build"),
        (parts.SEARCHERS, "search"),
        (parts.TARGETS, "make"),
    ):
        for name in registry.names():
            assert callable(parts.resolve(getattr(registry.get(name), factory))), name


class Needed(Section):
    must: int


MEASURE = ftd.Measure("a:b", ("facts",), ("facts",), 0.0, 1.0)
MISTAKES = {
    "a measure that is none": (
        lambda: parts.register_measure("x", "x"),
        r"measure 'x': expected an ftd\.Measure or an ftd\.Combination, got 'x'",
    ),
    "the class of measures": (
        lambda: parts.register_measure("x", ftd.Measure),
        r"measure 'x': expected an ftd\.Measure or .*, got <class",
    ),
    "a measure's needed key": (
        lambda: parts.register_measure("x", dataclasses.replace(MEASURE, settings=Needed)),
        "measure 'x': settings: every key needs a fitting default value .*must",
    ),
    "a method's needed key": (
        lambda: parts.register_searcher("x", "a:b", settings=Needed),
        "method 'x': settings: every key needs a fitting default value .*must",
    ),
    "an unknown source": (
        lambda: parts.register_searcher("x", "a:b", source="neerest"),
        "method 'x': unknown source 'neerest'; did you mean 'nearest'",
    ),
    "an unknown thing to take": (
        lambda: parts.register_searcher("x", "a:b", source="nearest", takes="candidate"),
        "method 'x': unknown takes 'candidate'; did you mean 'candidates'",
    ),
    "an unknown attribute": (
        lambda: parts.register_searcher("x", "a:b", sorce="nearest"),
        "method 'x': .*sorce",
    ),
}
NO_SECTIONS = {"no class": 3, "no section": dict, "a model": pydantic.BaseModel, "one": Section()}


@pytest.mark.parametrize(("register", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_wrong_part_is_refused_where_it_is_registered(register, message):
    before = parts.registered()
    with pytest.raises(UserError, match=f"^{message}"):
        register()
    assert parts.registered() == before


@pytest.mark.parametrize("settings", NO_SECTIONS.values(), ids=NO_SECTIONS)
def test_settings_that_are_no_section_are_refused(settings):
    before = parts.registered()
    for kind, register in (
        ("method", lambda: parts.register_searcher("x", "a:b", settings=settings)),
        ("loader", lambda: parts.register_loader("x", "a:b", settings=settings)),
        ("target", lambda: parts.register_target("x", "a:b", settings=settings)),
        (
            "measure",
            lambda: parts.register_measure("x", dataclasses.replace(MEASURE, settings=settings)),
        ),
    ):
        with pytest.raises(UserError, match=rf"^{kind} 'x': settings: expected a .* ftd\.Section"):
            register()
    assert parts.registered() == before


@pytest.mark.parametrize("place", ["nowhere:Thing", "ftd.names:nothing", "ftd.names", "", ".a:b"])
def test_a_place_where_there_is_nothing_is_named(place):
    with pytest.raises(UserError, match=f"^{place}: cannot be found"):
        parts.resolve(place)


@pytest.mark.parametrize("name", ["layers", "of", "model_dump"])
def test_a_measure_named_like_a_key_of_all_measures_is_refused(name, registered):
    registered(parts.MEASURES, name, MEASURE)
    with pytest.raises(UserError, match=rf"measure '{name}': distance\.{name} means something"):
        config.parse(TINY)


def test_registering_imports_nothing_heavy():
    code = (
        "import ftd, sys\n"
        "ftd.register_network('x', 'a:b'); ftd.register_loader('x', 'a:b')\n"
        "ftd.register_operation('x', 'a:b'); ftd.register_searcher('x', 'a:b')\n"
        "ftd.register_target('x', 'a:b'); keys = {'lowest': 0.0, 'highest': 1.0}\n"
        "ftd.register_measure('x', ftd.Measure('a:b', ('facts',), ('facts',), **keys))\n"
        "print({'torch', 'numpy', 'pandas', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Plugins ------------------------------------------------------------------------------------------

NETWORK = "import ftd\nftd.register_network({!r}, {!r})\n"


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A function (text, name) → the name; what plugins registered goes with the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(text: str, name: str = "mine.py") -> str:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
        return name

    yield write
    for name in list(parts._loaded):
        parts._forget(parts._loaded.pop(name))
    for name in [name for name in sys.modules if name.startswith(("ftd_plugin_", "package"))]:
        del sys.modules[name]


def test_a_plugin_is_imported_once_and_known_by_its_digest(plugin):
    name = plugin("open('count', 'a').write('x')\n" + NETWORK.format("mine", "a:b"))
    digests = parts.load([name])
    assert parts.load([name]) == digests and Path("count").read_text() == "x"
    assert parts.NETWORKS.get("mine").build == "a:b"
    assert parts.NETWORKS.digests("mine", "vgg16") == {"network mine": digests[name]}
    assert len(digests[name]) == 64


def test_a_changed_file_takes_the_place_of_what_it_was(plugin):
    name = plugin(NETWORK.format("mine", "a:b") + NETWORK.format("other", "a:b"))
    before = parts.load([name])
    plugin(NETWORK.format("mine", "a:c"))
    after = parts.load([name])
    assert before != after and parts.NETWORKS.get("mine").build == "a:c"
    assert parts.NETWORKS.digests("mine") == {"network mine": after[name]}
    assert "other" not in parts.NETWORKS.names() and "vgg16" in parts.NETWORKS.names()


def test_a_module_is_a_plugin_too(plugin):
    plugin("", "package/__init__.py")
    plugin(NETWORK.format("mine", "a:b"), "package/module.py")
    digests = parts.load(["package.module"])
    assert parts.NETWORKS.digests("mine") == {"network mine": digests["package.module"]}


IMPORTED = {
    "by a script": lambda plugin: importlib.import_module("package.module"),
    "by its package": lambda plugin: plugin("import package.module", "package/__init__.py"),
    "by another plugin": lambda plugin: parts.load([plugin("import package.module", "other.py")]),
}


@pytest.mark.parametrize("already", IMPORTED.values(), ids=IMPORTED)
def test_a_module_that_was_imported_before_is_a_plugin_too(plugin, already):
    plugin("", "package/__init__.py")
    plugin(NETWORK.format("mine", "a:b"), "package/module.py")
    sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()
    already(plugin)
    digests = parts.load(["package.module"])
    assert parts.NETWORKS.digests("mine") == {"network mine": digests["package.module"]}
    module = sys.modules["package.module"]
    plugin(NETWORK.format("other", "a:b") + "# longer", "package/module.py")
    assert parts.load(["package.module"]) != digests
    assert sys.modules["package.module"] is module and parts.NETWORKS.get("other")
    assert "mine" not in parts.NETWORKS.names()


def test_a_file_that_was_imported_before_is_a_plugin_too(plugin):
    name = plugin(NETWORK.format("mine", "a:b"), "package_of_mine.py")
    sys.path.insert(0, str(Path.cwd()))
    importlib.import_module("package_of_mine")
    digests = parts.load([name])
    assert parts.NETWORKS.digests("mine") == {"network mine": digests[name]}
    plugin((Path(name).read_text() + "\n") * 2, name)  # but not twice in one
    with pytest.raises(UserError, match="network 'mine' is registered already"):
        parts.load([name])


def test_a_package_that_fails_is_one_error(plugin):
    plugin("1 / 0", "package/__init__.py")
    plugin("", "package/module.py")
    with pytest.raises(UserError, match=r"^plugins: package\.module: cannot be found \(ZeroDiv"):
        parts.load(["package.module"])


def test_a_plugin_may_use_what_python_s_own_modules_may(plugin):
    """Such as data classes, which look their module up."""
    text = "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\n"
    parts.load([plugin(text + "class A:\n    x: dataclasses.InitVar[int]\n")])


def test_a_plugin_leaves_the_folder_as_it_was(plugin, tmp_path):
    before = os.getcwd()
    parts.load([plugin("import os\nos.chdir('/')\n")])
    assert os.getcwd() == before


def test_a_signal_during_an_import_is_not_the_plugin_s(plugin):
    with pytest.raises(SystemExit):
        parts.load([plugin("import sys\nsys.exit(128 + 15)\n")])


BROKEN = {
    "an exception": ("1 / 0", r"cannot be imported \(ZeroDivisionError: division by zero\)"),
    "no Python": ("def", r"cannot be imported \(SyntaxError: "),
    "an unknown module": (
        "import nothing_of_this",
        r"cannot be imported \(ModuleNotFoundError: No module named",
    ),
    "an end of the program": (
        "import sys\nsys.exit(0)",
        r"cannot be imported: it ends the",
    ),
    "a program's options": (
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('x')\np.parse_args([])",
        r"cannot be imported: it ends the program \(status 2\)",
    ),
    "a name that is taken": (NETWORK.format("vgg16", "a:b"), "network 'vgg16' is registered al"),
    "a bad name": (NETWORK.format("a/b", "a:b"), "network: expected a name of letters"),
    "a bad measure": (
        "import ftd\nftd.Measure('a:b', ('weight',), (), 0.0, 1.0)",
        r"cannot be imported \(ValueError: unknown need 'weight'",
    ),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_a_plugin_that_cannot_be_imported_leaves_nothing_behind(plugin, text, message):
    before = parts.registered()
    plugin(NETWORK.format("early", "a:b") + text)
    with pytest.raises(UserError, match=rf"^plugins: mine\.py: {message}"):
        parts.load(["mine.py"])
    assert parts.registered() == before
    plugin(NETWORK.format("early", "a:b"))
    parts.load(["mine.py"])
    assert parts.NETWORKS.get("early")


def test_a_change_that_breaks_a_plugin_leaves_none_of_the_old(plugin):
    parts.load([plugin(NETWORK.format("mine", "a:b"))])
    with pytest.raises(UserError, match="ZeroDivisionError"):
        parts.load([plugin("1 / 0")])
    assert "mine" not in parts.NETWORKS.names()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.py", r"none\.py: cannot be read \(No such file"),
        ("package.none", r"package\.none: (no such module; give a file|cannot be found)"),
        ("nothing_of_this", "nothing_of_this: no such module; give a file, 'my_parts.py', or"),
        ("..", r"\.\.: (no such module|cannot be found)"),
        ("sys", "sys: no such module"),
    ],
)
def test_a_plugin_that_is_not_there(plugin, name, message):
    with pytest.raises(UserError, match=rf"^plugins: {message}"):
        parts.load([name])


def test_two_plugins_of_one_name_are_told(plugin):
    plugin(NETWORK.format("mine", "a:b"), "first.py")
    plugin(NETWORK.format("mine", "a:b"), "second.py")
    with pytest.raises(UserError, match=r"^plugins: second\.py: network 'mine' is registered al"):
        parts.load(["first.py", "second.py"])


# Names in a configuration -------------------------------------------------------------------------

BRINGS = """
import ftd

class Keys(ftd.Section):
    more: int = 1

ftd.register_network("new", "a:b")
ftd.register_loader("new", "a:b", settings=Keys)
ftd.register_operation("new", "a:b")
ftd.register_searcher("new", "a:b", settings=Keys)
ftd.register_measure("new", ftd.Measure("a:b", (), (), 0.0, 1.0, settings=Keys))
ftd.register_target("new", "a:b", settings=Keys)
"""
USED = {
    "networks": ["new-x0.5"],
    "measures": ["fisher", "new"],
    "search/methods": ["new"],
    "search/space/operations": ["none", "new"],
    "search/new": {"more": 3},
    "distance/new": {"more": 4},
    "datasets/own": {"loader": "new", "more": 5},
    "tasks/own": {"dataset": "digits", "target": "new", "more": 6},
}


def using(*names: str) -> dict:
    raw = copy.deepcopy(TINY)
    for name in names:
        *parents, last = name.split("/")
        place = raw
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = USED[name]
    return raw


@pytest.mark.parametrize("place", USED)
def test_a_plugin_s_names_are_known_once_it_is_loaded(plugin, place):
    with pytest.raises(UserError, match=r"(unknown|search|distance).*new"):
        config.parse(using(place))
    config.parse(using(place) | {"plugins": [plugin(BRINGS)]})


def test_a_plugin_s_parts_have_sections_and_keys_of_their_own(plugin):
    found = config.parse(using(*USED) | {"plugins": [plugin(BRINGS)]})
    assert found.search.of("new").own.more == 3 and found.search.decides("new")["new"]["more"] == 3
    assert found.distance.of("new").more == 4 and found.distance.of("fisher").align == "index"
    assert found.datasets["own"].more == 5 and found.tasks["own"].more == 6
    raw = using(*USED) | {"plugins": ["mine.py"]}
    raw["datasets"]["own"] = {"loader": "new", "mor": 5}
    raw["search"]["new"] = {"more": "x"}
    with pytest.raises(UserError) as error:
        config.parse(raw)
    assert "datasets.own.mor: unknown key; did you mean 'more'?" in str(error.value)
    assert "search.new.more: input should be a valid integer" in str(error.value)


def test_a_changed_plugin_s_settings_are_the_new_ones(plugin):
    config.parse(using("search/new") | {"plugins": [plugin(BRINGS)]})
    other = BRINGS.replace("more: int", "less: int")
    with pytest.raises(UserError, match=r"search\.new\.more: unknown key; .*less"):
        config.parse(using("search/new") | {"plugins": [plugin(other)]})


def test_methods_that_disagree_on_a_section_are_told(plugin):
    text = BRINGS + "ftd.register_searcher('two', 'a:b', settings=ftd.Section, section='new')\n"
    with pytest.raises(UserError, match=r"method 'two': search\.new means something else"):
        config.parse(TINY | {"plugins": [plugin(text)]})
    text = BRINGS.replace('searcher("new"', 'searcher("samples"')
    with pytest.raises(UserError, match=r"method 'samples': search\.samples means something else"):
        config.parse(TINY | {"plugins": [plugin(text)]})


def test_plugins_that_are_no_list_are_one_error(plugin):
    for value in ("mine.py", [3], {"mine.py": 1}):
        with pytest.raises(UserError, match=r"plugins"):
            config.parse(TINY | {"plugins": value})
