"""Stage *search*: an architecture for a task, from its nearest learned task's space or from all."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.config import HAND_DESIGNED, method_of
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.parts import OPERATIONS, SEARCHERS, resolve
from ftd.runtime.seeds import seed_of
from ftd.stages import selection
from ftd.stages import task as slices
from ftd.stages.checking import AGAIN, Library, is_of, must
from ftd.stages.experiment import Experiment
from ftd.store.provenance import record

if TYPE_CHECKING:
    import pyarrow as pa

    from ftd.search.ledger import Start
    from ftd.store.resume import Resume
    from ftd.tasks.slices import Slice

VERSION = 9


def decides(experiment: Experiment, *, method: str, task: str, seed: int | str) -> dict[str, Any]:
    """All that decides a search, besides its slice and the donors' architectures."""
    settings, own = experiment.config.search.decides(method), SEARCHERS.digests(method)
    if "space" in settings:
        own |= OPERATIONS.digests(*settings["space"]["operations"])
    network = method if method_of(method) is HAND_DESIGNED else ""
    return {
        "settings": settings,
        "seed": experiment.config.seed,
        "version": VERSION,
        "parts": experiment.digests(task=task, network=network, others=own),
    }


def sources(
    experiment: Experiment,
    selected: Mapping[str, Mapping[str, Any]],
    *,
    method: str,
    task: str,
    seed: int | str,
) -> dict[str, float]:
    """The learned tasks that a task's search by a method starts from, with their weights.

    These are the selection's where the method takes their candidates, and otherwise all alike.

    Args:
        selected: what ``selection.json`` holds.

    Raises:
        UserError: it does not have the task.
    """
    kind = method_of(method)
    if kind.source is None:
        return {}
    if kind.source == "random":
        return dict.fromkeys(selection.drawn(experiment, task, int(seed)), 1.0)
    if task not in selected:
        raise UserError(f"the selection has no task {task!r}; run the stage selection again")
    own = selected[task]
    weights = own["weights"] if kind.takes == "candidates" else None
    return {source: weights[source] if weights else 1.0 for source in own[kind.source]}


def run(
    experiment: Experiment,
    *,
    method: str,
    task: str,
    seed: int,
    donors: Mapping[str, float] | None = None,
) -> dict:
    """Search by ``method``; write what it found.

    That is the architecture with its facts (JSON), the trace and the candidates (Parquet). A
    hand-designed network is named in place of a genotype, and both tables are empty.

    Args:
        seed: of this search; it and the experiment's decide the draws.
        donors: learned tasks whose architectures span the space, or whose candidates are taken up,
            with their weights, the nearest first; ``None``: those of the selection.

    Raises:
        UserError: unreadable input, an unknown method, or a training loss that is not finite.
    """
    # torch: seconds that rules and --help would pay.
    from ftd.runtime.device import default_device
    from ftd.runtime.threads import setup
    from ftd.store.resume import Resume

    experiment.expect(method=method, task=task)
    setup()
    names = {"method": method, "task": task, "seed": seed}
    if donors is None:
        donors = _donors(experiment, names)
    sliced = slices.read(experiment, task=task)
    made = decides(experiment, **names)
    facts = names | {
        "experiment_seed": made["seed"],
        "donors": list(donors),
        "slice": sliced.facts["sha256"],
    }
    facts |= _taken(experiment, method, donors, seed)
    decided = record("search", VERSION, made["settings"], made["parts"])
    decided |= {"device": default_device().type}
    genotype_out = experiment.output(LAYOUT.genotype, **names)
    resume = Resume.beside(genotype_out, facts | decided)
    if method_of(method) is HAND_DESIGNED:
        own, trace, candidates = _given(method)
    else:
        own, trace, candidates = _searched(experiment, sliced, names, facts, resume)
    facts |= own
    about = {key: facts[key] for key in (*names, "experiment_seed", "slice")} | decided
    store.write_table(experiment.output(LAYOUT.trace, **names), trace, about)
    store.write_table(experiment.output(LAYOUT.candidates, **names), candidates, about)
    store.write_json(genotype_out, facts | decided)
    resume.done()
    return facts


def _donors(experiment: Experiment, names: Mapping[str, Any]) -> dict[str, float]:
    """The learned tasks that a search starts from, by the selection that is there."""
    selected = {}
    if method_of(names["method"]).source not in (None, "random"):
        selected = store.read_json(experiment.input(LAYOUT.selection))
    return sources(experiment, selected, **names)


def _taken(
    experiment: Experiment, method: str, donors: Mapping[str, float], seed: int
) -> dict[str, Any]:
    """What a search takes over from its donors, as facts: architectures, or tables and weights."""
    kind = method_of(method)
    if donors and kind.source is None:
        raise UserError(f"method {method} takes no learned tasks: it searches the full space")
    place = {"method": experiment.config.search.library, "seed": seed}
    paths = [experiment.input(getattr(LAYOUT, kind.takes), task=donor, **place) for donor in donors]
    if kind.takes == "genotype":
        return {"donor_genotypes": [read_architecture(path)["genotype"] for path in paths]}
    total = sum(donors.values())
    weights = [weight / total if total else 1 / len(donors) for weight in donors.values()]
    return {
        "donor_candidates": [store.table_checksum(path) for path in paths],
        "donor_weights": [round(weight, 6) for weight in weights],
    }


def read_architecture(path: Path) -> dict:
    """The facts that ``run`` wrote.

    Raises:
        UserError: missing file, or another one.
    """
    found = store.read_json(path)
    store.expect_stage(path, found, "search")
    return found


def _given(network: str) -> "tuple[dict[str, Any], pa.Table, pa.Table]":
    """A hand-designed network's facts, trace and candidates."""
    from ftd.search.candidates import table  # torch, as in run
    from ftd.search.ledger import trace_table

    facts = {"network": network, "genotype": None, "space_log10": 0.0}
    return facts | {"search_macs": 0, "search_seconds": 0.0}, trace_table([]), table([], None)


def _searched(
    experiment: Experiment,
    sliced: "Slice",
    names: dict[str, Any],
    facts: dict[str, Any],
    resume: "Resume",
) -> "tuple[dict[str, Any], pa.Table, pa.Table]":
    """Search in the space that the donors span, or from their candidates.

    Returns:
        What is found as facts, the trace, the candidates.
    """
    from ftd.models.genotype import Genotype  # torch, as in run
    from ftd.search.candidates import table
    from ftd.search.ledger import Ledger, trace_table
    from ftd.search.space import Space, restrict

    kind, settings = method_of(names["method"]), experiment.config.search.of(names["method"])
    what = "search {task}, method {method}, seed {seed}".format(**names)
    ledger = Ledger(what, settings.max_macs, resume)
    data = slices.data_of(experiment, sliced, dict.fromkeys(("train", "val"), settings.samples))
    full = Space.full(settings.space)
    donors = [Genotype.from_json(value) for value in facts.get("donor_genotypes", ())]
    space = restrict(full, donors, kind.restriction or settings.restriction, settings.radius)
    seed = seed_of("search", facts["experiment_seed"], names["seed"])
    start = _start(experiment, facts) if facts.get("donor_candidates") else None
    search = resolve(kind.search)
    result = search(space, data, settings, seed, start=start, ledger=ledger, **kind.options)
    _expect_result(result, what)
    found = result.facts | {
        "network": None,
        "genotype": result.genotype.to_json(),
        "space": space.to_json(),
        "space_log10": space.size_log10,
        "full_space_log10": full.size_log10,
        "search_macs": result.macs,
        "search_seconds": result.seconds,
    }
    return found, trace_table(result.trace), table(result.candidates, data)


def _start(experiment: Experiment, facts: Mapping[str, Any]) -> "Start":
    """The learned tasks that a search takes up."""
    # torch, as in run
    from ftd.search.candidates import learned
    from ftd.search.ledger import Start

    same, found = {"method": experiment.config.search.library, "seed": facts["seed"]}, []
    for donor, weight in zip(facts["donors"], facts["donor_weights"], strict=True):
        path = experiment.input(LAYOUT.candidates, task=donor, **same)
        found.append(learned(store.read_table(path, stage="search"), weight))
    return Start(tuple(found))


def _expect_result(result: Any, what: str) -> None:
    from ftd.models.genotype import Genotype  # torch, as in run
    from ftd.search.ledger import SearchResult

    if not isinstance(result, SearchResult) or not isinstance(result.genotype, Genotype):
        raise UserError(
            f"{what}: the method's function gave {type(result).__name__}; expected what "
            "ledger.result(genotype) makes"
        )


# Checks -----------------------------------------------------------------------------------------


def _check_genotype(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    from ftd.models.genotype import Genotype  # a check's alone

    facts = read_architecture(path)
    yield from library.made_by(facts, VERSION, decides, **names)
    yield from is_of(facts, names)
    yield from library.same(library.path(LAYOUT.slice, **names), facts["slice"], "slice")
    if facts["network"] is None:
        Genotype.from_json(facts["genotype"])
    same = {"method": library.searcher, "seed": names["seed"]}
    if "donor_candidates" in facts:
        for donor, checksum in zip(facts["donors"], facts["donor_candidates"], strict=True):
            source = library.path(LAYOUT.candidates, task=donor, **same)
            yield from library.same(source, checksum, "table of candidates")
        return
    for donor, genotype in zip(facts["donors"], facts["donor_genotypes"], strict=True):
        yield from same_genotype(library.path(LAYOUT.genotype, task=donor, **same), genotype)


def same_genotype(
    source: Path, genotype: dict, as_used: Callable[[dict], dict] = lambda found: found
) -> list[str]:
    """A recorded genotype beside that of the file that is there, as it was used."""
    if not source.exists():
        return [f"made from {source}, which is not there; run snakemake {source}"]
    same = as_used(store.read_json(source)["genotype"]) == genotype
    return [] if same else [f"made from another genotype than {source}; {AGAIN}"]


def _check_trace(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    import numpy as np  # a check's alone

    read = store.read_table(path, stage="search")
    facts, table = store.table_facts(read), read.to_pandas()
    yield from library.made_by(facts, VERSION, decides, **names)
    yield from library.same(library.path(LAYOUT.slice, **names), facts["slice"], "slice")
    yield from must(list(table["step"]) == list(range(len(table))), "steps are not numbered")
    numbers = table[["loss", "score", "macs", "seconds"]].to_numpy(float)
    yield from must(not np.isinf(numbers).any(), "values that are not finite")
    yield from must(table["macs"].is_monotonic_increasing, "macs that fall")


def _check_candidates(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    from ftd.search.candidates import learned  # a check's alone

    read = store.read_table(path, stage="search")
    facts, rows = store.table_facts(read), read.to_pandas()
    yield from library.made_by(facts, VERSION, decides, **names)
    yield from library.same(library.path(LAYOUT.slice, **names), facts["slice"], "slice")
    yield from must(list(rows["rank"]) == list(range(1, len(rows) + 1)), "ranks out of order")
    learned(read, 1.0)


CHECKS = [
    (LAYOUT.genotype, _check_genotype),
    (LAYOUT.trace, _check_trace),
    (LAYOUT.candidates, _check_candidates),
]
