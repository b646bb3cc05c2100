"""Stage *search*: an architecture for a task, from its nearest learned task's space or from all."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.config import HAND_DESIGNED, LIBRARY, method_of
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.parts import OPERATIONS, SEARCHERS, Searcher, resolve
from ftd.runtime.seeds import seed_of
from ftd.stages import selection
from ftd.stages import task as slices
from ftd.stages.checking import AGAIN, Library, is_of, must
from ftd.stages.experiment import Experiment
from ftd.store.provenance import record

if TYPE_CHECKING:
    from ftd.models.genotype import Genotype
    from ftd.search.ledger import Ledger, Start
    from ftd.tasks.data import TaskData

VERSION = 7


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
    selected: Mapping[str, Mapping[str, list[str]]],
    *,
    method: str,
    task: str,
    seed: int | str,
) -> list[str]:
    """The learned tasks that a task's search by a method starts from.

    Args:
        selected: what ``selection.json`` holds.

    Raises:
        UserError: it does not have the task.
    """
    kind = method_of(method)
    if kind.source is None:
        return []
    if kind.source == "random":
        return selection.drawn(experiment, task, int(seed))
    if task not in selected:
        raise UserError(f"the selection has no task {task!r}; run the stage selection again")
    return selected[task][kind.source]


def run(
    experiment: Experiment, *, method: str, task: str, seed: int, donors: list[str] | None = None
) -> dict:
    """Search by ``method``; write the architecture with its facts (JSON) and the trace (Parquet).

    A hand-designed network is named in place of a genotype, and its trace is empty.

    Args:
        seed: of this search; it and the experiment's decide the draws.
        donors: learned tasks whose architectures span the space, the nearest first; ``None``:
            those of the selection.

    Raises:
        UserError: unreadable input, an unknown method, or a training loss that is not finite.
    """
    # torch: seconds that rules and --help would pay.
    from ftd.runtime.device import default_device
    from ftd.runtime.threads import setup
    from ftd.search.ledger import trace_table
    from ftd.store.resume import Resume

    experiment.expect(method=method, task=task)
    setup()
    names = {"method": method, "task": task, "seed": seed}
    if donors is None:
        donors = sources(experiment, _selected(experiment, method), **names)
    sliced = slices.read(experiment, task=task)
    found, weights = _donors(experiment, method, donors, seed)
    made = decides(experiment, **names)
    facts = names | {
        "experiment_seed": made["seed"],
        "donors": donors,
        "slice": sliced.facts["sha256"],
        "donor_genotypes": [donor["genotype"] for donor in found],
        "donor_weights": weights[1]["sha256"] if weights else None,
    }
    decided = record("search", VERSION, made["settings"], made["parts"])
    decided |= {"device": default_device().type}
    genotype_out = experiment.output(LAYOUT.genotype, **names)
    resume = Resume.beside(genotype_out, facts | decided)
    trace: list[dict] = []
    if method_of(method) is HAND_DESIGNED:
        facts |= {"network": method, "genotype": None, "space_log10": 0.0}
        facts |= {"search_macs": 0, "search_seconds": 0.0}
    else:
        start = weights and weights[0]
        trace, own = _searched(experiment, sliced, names, facts, start, resume)
        facts |= own
    about = {key: facts[key] for key in (*names, "experiment_seed", "slice")}
    trace_out = experiment.output(LAYOUT.trace, **names)
    store.write_table(trace_out, trace_table(trace), about | decided)
    store.write_json(genotype_out, facts | decided)
    resume.done()
    return facts


def _selected(experiment: Experiment, method: str) -> dict[str, Any]:
    """What ``selection.json`` holds, if the method's sources follow from it."""
    if method_of(method).source in (None, "random"):
        return {}
    return store.read_json(experiment.input(LAYOUT.selection))


def _donors(
    experiment: Experiment, method: str, donors: list[str], seed: int
) -> tuple[list[dict], tuple[dict, dict] | None]:
    """The donors' architectures; the first one's weights and facts, where they are taken over."""
    kind = method_of(method)
    if donors and kind.source is None:
        raise UserError(f"method {method} takes no learned tasks: it searches the full space")
    same = {"method": LIBRARY, "seed": seed}
    found = [
        read_architecture(experiment.input(LAYOUT.genotype, task=donor, **same)) for donor in donors
    ]
    if not donors or kind.start != "weights":
        return found, None
    weights = experiment.input(LAYOUT.weights, task=donors[0], **same)
    return found, store.read_tensors(weights, stage="training")


def read_architecture(path: Path) -> dict:
    """The facts that ``run`` wrote.

    Raises:
        UserError: missing file, or another one.
    """
    found = store.read_json(path)
    store.expect_stage(path, found, "search")
    return found


def _searched(
    experiment: Experiment,
    sliced: Any,
    names: dict[str, Any],
    facts: dict[str, Any],
    weights: dict | None,
    resume: Any,
) -> tuple[list[dict], dict]:
    """Search in the space that the donors span; returns the trace, and facts of the result."""
    from ftd.models.genotype import Genotype  # torch, as in run
    from ftd.search.ledger import Ledger, Start

    settings = experiment.config.search.of(names["method"])
    what = "search {task}, method {method}, seed {seed}".format(**names)
    ledger = Ledger(what, settings.max_macs, resume)
    parts = {"train": settings.samples, "val": settings.samples}
    data = slices.data_of(experiment, sliced, parts)
    donors = [Genotype.from_json(genotype) for genotype in facts["donor_genotypes"]]
    kind = method_of(names["method"])
    seed, start = seed_of("search", facts["experiment_seed"], names["seed"]), None
    if kind.start and donors:
        start = Start(donors[0], weights)
    return ledger.trace, _search(kind, data, settings, seed, donors, start, ledger)


def _search(
    kind: Searcher,
    data: "TaskData",
    settings: Any,
    seed: int,
    donors: "list[Genotype]",
    start: "Start | None",
    ledger: "Ledger",
) -> dict:
    # torch, as in run
    from ftd.models.genotype import Genotype
    from ftd.search.ledger import SearchResult
    from ftd.search.space import Space, restrict

    full = Space.full(settings.space)
    space = restrict(full, donors, settings.restriction, settings.radius)
    search = resolve(kind.search)
    result = search(space, data, settings, seed, start=start, ledger=ledger, **kind.options)
    if not isinstance(result, SearchResult) or not isinstance(result.genotype, Genotype):
        raise UserError(
            f"{ledger.what}: the method's function gave {type(result).__name__}; expected what "
            "ledger.result(genotype) makes"
        )
    return result.facts | {
        "network": None,
        "genotype": result.genotype.to_json(),
        "space": space.to_json(),
        "space_log10": space.size_log10,
        "full_space_log10": full.size_log10,
        "search_macs": result.macs,
        "search_seconds": result.seconds,
    }


# Checks -----------------------------------------------------------------------------------------


def _check_genotype(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    from ftd.models.genotype import Genotype  # a check's alone

    facts = read_architecture(path)
    yield from library.made_by(facts, VERSION, decides, **names)
    yield from is_of(facts, names)
    yield from library.same(library.path(LAYOUT.slice, **names), facts["slice"], "slice")
    if facts["network"] is None:
        Genotype.from_json(facts["genotype"])
    for donor, genotype in zip(facts["donors"], facts["donor_genotypes"], strict=True):
        place = {"method": LIBRARY, "task": donor, "seed": names["seed"]}
        yield from same_genotype(library.path(LAYOUT.genotype, **place), genotype)
    if facts["donor_weights"]:
        place = {"method": LIBRARY, "task": facts["donors"][0], "seed": names["seed"]}
        source = library.path(LAYOUT.weights, **place)
        yield from library.same(source, facts["donor_weights"], "weights")


def same_genotype(source: Path, genotype: dict) -> list[str]:
    """A recorded genotype beside that of the file that is there."""
    if not source.exists():
        return [f"made from {source}, which is not there; run snakemake {source}"]
    same = store.read_json(source)["genotype"] == genotype
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


CHECKS = [(LAYOUT.genotype, _check_genotype), (LAYOUT.trace, _check_trace)]
