"""The parts that an experiment is made of, by name, and the plugins that bring more of them.

A part is a network, a loader, an operation, a search method, a measure or a kind of target. Rooms
register their own when they are imported, a user's plugin registers others in the same way.
Registering imports nothing heavy: a factory is a function that imports what it needs when it is
called, or the place of one, ``"package.module:name"``.
"""

import functools
import hashlib
import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ftd.errors import UserError
from ftd.names import did_you_mean, safe_name

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ftd.measures import Combination, Measure

Factory = Callable[..., Any] | str
Entry = TypeVar("Entry")

SOURCES = ("nearest", "farthest", "random", "heaviest")
TAKEN = ("genotype", "candidates")
"""Which learned tasks a search method may start from, and by what of theirs."""
_ROOMS = ("ftd.tasks", "ftd.models", "ftd.measures", "ftd.measures.catalogue", "ftd.search")
"""Packages that register the parts that are always there."""


@dataclass(frozen=True)
class Network:
    """A probe's body.

    Attributes:
        build: (channels, size, width) → module from images [B, channels, size, size] to feature
            maps [B, C, H, W] or features [B, F], with fresh weights of PyTorch's generator.
        pooled: a head for classes averages the map; else it takes all of it.
    """

    build: Factory
    pooled: bool = True


@dataclass(frozen=True)
class Loader:
    """Where a data set's images come from.

    Attributes:
        open: (name, settings, root) → (train, test or ``None``, names of the classes by number).
            Both splits have a length and yield (image, annotation) once: a PIL image or a uint8
            array, and a class number or an array of one shape.
        settings: the keys of a data set that are this loader's own; ``None``: it has none.
    """

    open: Factory
    settings: "type[BaseModel] | None" = None


@dataclass(frozen=True)
class Operation:
    """What an edge of a cell may carry: (channels, stride) → module that keeps the channels."""

    build: Factory


@dataclass(frozen=True)
class Searcher:
    """A search method.

    Attributes:
        search: (space, data, settings, seed, start=None, ledger=None, **options) → SearchResult.
        settings, section: its own keys (``None``: none), and where; methods may share a section.
        source: the learned tasks that it starts from: ``select.nearest`` ``nearest``, ``farthest``
            or ``random`` ones, or the ``select.sources`` ``heaviest``; ``None``: none.
        takes: their ``genotype``, which restricts its space, or their ``candidates``.
        restriction: how, if not as ``search.restriction`` says.
        unused: common keys of ``search`` that it does not use.
        options: further arguments of ``search``: what tells variants of a method apart.

    Raises:
        ValueError: a source that there is not, or such as none has.
    """

    search: Factory
    settings: "type[BaseModel] | None" = None
    section: str | None = None
    source: str | None = None
    takes: str = "genotype"
    restriction: str | None = None
    unused: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, known in (("source", SOURCES), ("takes", TAKEN)):
            value = getattr(self, key)
            if value is not None and value not in known:
                raise ValueError(f"unknown {key} {value!r}{did_you_mean(str(value), known)}")


@dataclass(frozen=True)
class TargetKind:
    """What tasks ask of a network.

    Attributes:
        make: (facts of a task's slice) → ``ftd.Target``.
        settings: the keys of a task that are this kind's own; ``None``: it has none.
        slice: (task, settings, cut, seed) → ``ftd.tasks.slices.Sliced``: a task's images and
            labels; ``None``: all that have a part, each with its annotation or its modality ``of``.
        describe: (settings, its values [N, …], the rows of each part) → the fact ``measured``.
    """

    make: Factory
    settings: "type[BaseModel] | None" = None
    slice: Factory | None = None
    describe: Factory | None = None


@dataclass(frozen=True)
class Plugin:
    """A user's file or module, by the name that the configuration gives it."""

    name: str
    digest: str


class Registry(Generic[Entry]):
    """Parts of one kind by name."""

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, Entry] = {}
        self._plugins: dict[str, Plugin] = {}
        self._files: dict[str, str | None] = {}

    def add(self, name: str, entry: Entry) -> None:
        """Register a part.

        What a file registered when it was imported, not as this plugin, it may register again.

        Raises:
            UserError: a name that cannot be part of a path, or is taken.
        """
        try:
            safe_name(name)
        except ValueError as error:
            raise UserError(f"{self.kind}: {error}") from error
        file = _registering_file()
        if name in self._entries and not self._is_again(name, file):
            raise UserError(f"{self.kind} {name!r} is registered already; give it another name")
        self._entries[name], self._files[name] = entry, file
        if _loading:
            self._plugins[name] = _loading[-1]

    def _is_again(self, name: str, file: str | None) -> bool:
        """Whether a plugin's file registers what it did when something else imported it."""
        same = file is not None and file == self._files.get(name)
        return same and bool(_loading) and self._plugins.get(name) != _loading[-1]

    def get(self, name: str) -> Entry:
        """The part of a name; ``ValueError`` if there is none."""
        self._complete()
        if name not in self._entries:
            known = did_you_mean(name, self._entries)
            raise ValueError(f"unknown {self.kind} {name!r}{known}")
        return self._entries[name]

    def names(self) -> list[str]:
        """All names, those that are always there first."""
        self._complete()
        return list(self._entries)

    def digests(self, *names: str) -> dict[str, str]:
        """SHA-256 of the plugins of those of the parts that come from one, by kind and name."""
        self._complete()
        return {
            f"{self.kind} {name}": self._plugins[name].digest
            for name in names
            if name in self._plugins
        }

    def forget(self, plugin: Plugin) -> None:
        """Take away what a plugin registered."""
        for name in [name for name, of in self._plugins.items() if of == plugin]:
            del self._plugins[name], self._entries[name], self._files[name]

    def _complete(self) -> None:
        if not _loading:  # else a room asks while it registers its own
            load_rooms()


NETWORKS: Registry[Network] = Registry("network")
LOADERS: Registry[Loader] = Registry("loader")
OPERATIONS: Registry[Operation] = Registry("operation")
SEARCHERS: Registry[Searcher] = Registry("method")
MEASURES: "Registry[Measure | Combination]" = Registry("measure")
TARGETS: Registry[TargetKind] = Registry("target")
_ALL = (NETWORKS, LOADERS, OPERATIONS, SEARCHERS, MEASURES, TARGETS)


def register_network(name: str, build: Factory, *, pooled: bool = True) -> None:
    """Add a probe network; see ``ftd.parts.Network``.

    Raises:
        UserError: a name that is taken or unfit; so do all ``register_…``.
    """
    NETWORKS.add(name, Network(build, pooled))


def register_loader(name: str, open: Factory, *, settings: "type[BaseModel] | None" = None) -> None:
    """Add a loader of data sets; see ``ftd.parts.Loader``."""
    if settings is not None:
        _expect_section(LOADERS.kind, name, settings)
    LOADERS.add(name, Loader(open, settings))


def register_operation(name: str, build: Factory) -> None:
    """Add an operation of cells; see ``ftd.parts.Operation``."""
    OPERATIONS.add(name, Operation(build))


def register_searcher(
    name: str, search: Factory, *, settings: "type[BaseModel] | None" = None, **more: Any
) -> None:
    """Add a search method; ``more``: the other attributes of ``ftd.parts.Searcher``.

    Its settings stand in the section of its name (``-`` becomes ``_``), if no other is given.

    Raises:
        UserError: also settings without a default value, or attributes that there are not.
    """
    if settings is not None:
        _expect_section(SEARCHERS.kind, name, settings, defaults=True)
    section = more.pop("section", str(name).replace("-", "_")) if settings else None
    try:
        method = Searcher(search, settings, section, **more)
    except (TypeError, ValueError) as error:
        raise UserError(f"{SEARCHERS.kind} {name!r}: {error}") from error
    SEARCHERS.add(name, method)


def register_measure(name: str, measure: "Measure | Combination") -> None:
    """Add a measure or a combination of measures; see ``ftd.measures``.

    Raises:
        UserError: also neither of the two, or settings without a default value.
    """
    # By what they have: their room lies above this one.
    if isinstance(measure, type) or not hasattr(measure, "bounds"):
        raise UserError(
            f"measure {name!r}: expected an ftd.Measure or an ftd.Combination, got {measure!r}"
        )
    if hasattr(measure, "settings"):
        _expect_section(MEASURES.kind, name, measure.settings, defaults=True)
    MEASURES.add(name, measure)


def register_target(
    name: str,
    make: Factory,
    *,
    settings: "type[BaseModel] | None" = None,
    slice: Factory | None = None,
    describe: Factory | None = None,
) -> None:
    """Add a kind of target; see ``ftd.parts.TargetKind`` and ``ftd.Target``."""
    if settings is not None:
        _expect_section(TARGETS.kind, name, settings)
    TARGETS.add(name, TargetKind(make, settings, slice, describe))


def _expect_section(kind: str, name: str, settings: Any, *, defaults: bool = False) -> None:
    """Raises a ``UserError`` for settings that are no section, or cannot all be left out."""
    # By what all sections have: their room lies above this one.
    of_section = getattr(settings, "model_config", {}).get("extra") == "forbid"
    if not isinstance(settings, type) or not of_section:
        raise UserError(
            f"{kind} {name!r}: settings: expected a subclass of ftd.Section, got {settings!r}"
        )
    if not defaults:
        return
    try:
        settings()
    except Exception as error:  # whatever a user's class raises
        reason = " ".join(str(error).split())
        raise UserError(
            f"{kind} {name!r}: settings: every key needs a fitting default value ({reason})"
        ) from error


def resolve(factory: Factory) -> Any:
    """The function that a factory is, or the object at the place that it names.

    Raises:
        UserError: there is nothing at the place.
    """
    if not isinstance(factory, str):
        return factory
    module, _, name = factory.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{factory}: cannot be found ({error}); expected 'package.module:name', as it was "
            "registered"
        ) from error


def is_own(factory: Factory) -> bool:
    """Whether a factory is the package's own code, and none that a user brings."""
    return isinstance(factory, str) and factory.startswith(f"{__package__}.")


def registered() -> tuple[tuple[str, str, str], ...]:
    """All parts there are, by kind, name and their plugin's digest: equal ones, equal parts."""
    load_rooms()
    return tuple(
        (registry.kind, name, registry.digests(name).get(f"{registry.kind} {name}", ""))
        for registry in _ALL
        for name in registry.names()
    )


# Plugins ----------------------------------------------------------------------------------------

_loading: list[Plugin | None] = []
_loaded: dict[str, Plugin] = {}


@functools.cache
def load_rooms() -> None:
    """Import the packages whose parts are always there."""
    for room in _ROOMS:
        importlib.import_module(room)


def load(plugins: Iterable[str]) -> dict[str, str]:
    """Import the user's files (``….py``) and modules, once; their SHA-256 by name.

    A file that has changed since is imported anew, in place of what it registered before.

    Raises:
        UserError: one that is not there, cannot be imported, or registers what is there already.
    """
    load_rooms()
    for name in plugins:
        path = _source(name)
        try:
            plugin = Plugin(name, hashlib.sha256(path.read_bytes()).hexdigest())
        except OSError as error:
            raise UserError(f"plugins: {name}: cannot be read ({error.strerror})") from error
        if _loaded.get(name) != plugin:
            if name in _loaded:
                _forget(_loaded.pop(name))
            _import(plugin, path)
            _loaded[name] = plugin
    return {name: _loaded[name].digest for name in plugins}


def _source(name: str) -> Path:
    """The file that a plugin's name stands for."""
    if name.endswith(".py"):
        return Path(name)
    if os.getcwd() not in sys.path:  # like files, modules may lie where the program was started
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()
    with _user_code(name, "cannot be found"):  # it imports the packages above it
        found = importlib.util.find_spec(name)
    if found is None or not found.origin or not found.origin.endswith(".py"):
        raise UserError(f"plugins: {name}: no such module; give a file, 'my_parts.py', or a module")
    return Path(found.origin)


def _import(plugin: Plugin, path: Path) -> None:
    try:
        with _registering(plugin), _user_code(plugin.name, "cannot be imported"):
            if plugin.name.endswith(".py"):
                _execute(f"ftd_plugin_{plugin.digest[:16]}", path)
            elif plugin.name in sys.modules:  # in place: others hold what it has defined
                importlib.reload(sys.modules[plugin.name])
            else:
                importlib.import_module(plugin.name)
    except UserError:
        _forget(plugin)
        raise


@contextmanager
def _user_code(name: str, what: str) -> Iterator[None]:
    """Run a plugin's module, which ends no program and leaves the working folder as it was.

    Raises:
        UserError: in place of whatever is raised inside.
    """
    folder = os.getcwd()
    try:
        yield
    except UserError as error:
        raise UserError(f"plugins: {name}: {error}") from error
    except SystemExit as end:
        if end.code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            raise  # a signal's, not the module's
        raise UserError(
            f"plugins: {name}: {what}: it ends the program (status {end.code}); put what it does "
            "as a program of its own under: if __name__ == '__main__'"
        ) from end
    except Exception as error:  # whatever a user's file raises
        raise UserError(f"plugins: {name}: {what} ({type(error).__name__}: {error})") from error
    finally:
        os.chdir(folder)


def _execute(module_name: str, path: Path) -> None:
    """Import a file as a module of this name."""
    spec = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)


def _registering_file() -> str | None:
    """The file that calls this module's functions; ``None`` where it is none's code."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals is globals():
        frame = frame.f_back
    file = frame and frame.f_globals.get("__file__")
    return file and os.path.realpath(file)


@contextmanager
def _registering(plugin: Plugin) -> Iterator[None]:
    _loading.append(plugin)
    try:
        yield
    finally:
        _loading.pop()


def _forget(plugin: Plugin) -> None:
    for registry in _ALL:
        registry.forget(plugin)
