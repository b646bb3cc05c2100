"""Stage *search*: an architecture for a task, from its nearest learned task's space or from all."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ftd import artifacts, slice
from ftd.config import Search
from ftd.errors import UserError
from ftd.names import METHODS, Method, method_of
from ftd.resume import Resume
from ftd.search import darts, enas, fuse, random_search, te_nas
from ftd.search.ledger import Ledger, SearchResult, Start, trace_table
from ftd.search.space import Genotype, Space, restrict
from ftd.seeds import seed_of
from ftd.training import record, setup

SEARCHERS: dict[str, Callable[..., SearchResult]] = {
    "random": random_search.search,
    "darts-1st": partial(darts.search, order=1),
    "darts-2nd": partial(darts.search, order=2),
    "pc-darts-1st": partial(darts.search, order=1, partial_channels=True),
    "pc-darts-2nd": partial(darts.search, order=2, partial_channels=True),
    "enas": enas.search,
    "te-nas": te_nas.search,
}
SEARCHERS |= {name: fuse.search for name, method in METHODS.items() if method.section == "fuse"}
"""All with one signature: (space, data, settings, seed, start=None, ledger=None) → result."""


def run(
    task_slice: Path,
    images: Path,
    donors: list[Path],
    *,
    method: str,
    seed: int,
    search_seed: int,
    settings: Search,
    genotype_out: Path,
    trace_out: Path,
    weights: Path | None = None,
) -> dict:
    """Search by ``method``; write the architecture with its facts (JSON) and the trace (Parquet).

    A hand-designed network is named in place of a genotype, and its trace is empty.

    Args:
        donors: the selected learned tasks' ``genotype.json``, the nearest first; none: search the
            full space.
        seed: of the experiment.
        search_seed: of this search; ``seed`` and ``search_seed`` together decide its draws.
        weights: the first donor's trained weights, where the method takes them over.

    Raises:
        UserError: unreadable input, an unknown method, or a training loss that is not finite.
    """
    setup()
    try:
        kind = method_of(method)
    except ValueError as error:
        raise UserError(str(error)) from error
    if donors and kind.source is None:
        raise UserError(f"method {method} takes no learned tasks: it searches the full space")
    task = slice.read(task_slice)
    found = [read_architecture(path) for path in donors]
    facts = {
        "task": task.facts["task"],
        "method": method,
        "seed": search_seed,
        "experiment_seed": seed,
        "donors": [donor["task"] for donor in found],
        "slice": artifacts.digest(task_slice),
    }
    decided = record("search", settings.of(method))
    facts["donor_genotypes"] = [donor["genotype"] for donor in found]
    facts["donor_weights"] = artifacts.digest(weights) if weights else None
    resume = Resume.beside(genotype_out, facts | decided)
    trace: list[dict] = []
    if kind.section is None:
        facts |= {"network": method, "genotype": None, "space_log10": 0.0}
        facts |= {"search_macs": 0, "search_seconds": 0.0}
    else:
        what = f"search {facts['task']}, method {method}, seed {search_seed}"
        ledger = Ledger(what, settings.max_macs, resume)
        data = slice.TaskData(task, images, {"train": settings.samples, "val": settings.samples})
        genotypes = [Genotype.from_json(donor["genotype"]) for donor in found]
        start = _start(kind, genotypes, weights)
        chosen = seed_of("search", seed, search_seed)
        facts |= _search(method, data, settings, chosen, genotypes, start, ledger)
        trace = ledger.trace
    about = {key: facts[key] for key in ("task", "method", "seed", "experiment_seed", "slice")}
    artifacts.write_table(trace_out, trace_table(trace), about | decided)
    artifacts.write_json(genotype_out, facts | decided)
    resume.done()
    return facts


def read_architecture(path: Path) -> dict:
    """The facts that ``run`` wrote.

    Raises:
        UserError: missing file, or another one.
    """
    found = artifacts.read_json(path)
    artifacts.expect_stage(path, found, "search")
    return found


def _search(
    method: str,
    data: slice.TaskData,
    settings: Search,
    seed: int,
    donors: list[Genotype],
    start: Start | None,
    ledger: Ledger,
) -> dict:
    """Search in the space that the donors span; returns the facts."""
    full = Space.full(settings.space)
    space = restrict(full, donors, settings.restriction, settings.radius)
    result = SEARCHERS[method](space, data, settings, seed, start=start, ledger=ledger)
    return result.facts | {
        "network": None,
        "genotype": result.genotype.to_json(),
        "space": space.to_json(),
        "space_log10": space.size_log10,
        "full_space_log10": full.size_log10,
        "search_macs": result.macs,
        "search_seconds": result.seconds,
    }


def _start(kind: Method, genotypes: list[Genotype], weights: Path | None) -> Start | None:
    if kind.start is None or not genotypes:
        return None
    if kind.start == "genotype":
        return Start(genotypes[0])
    if weights is None:
        raise UserError("this method starts from a learned task's trained weights; give them")
    return Start(genotypes[0], artifacts.read_tensors(weights, stage="train")[0])
