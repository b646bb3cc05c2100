"""Stage *search*: find an architecture for a task in its nearest learned task's space."""

from pathlib import Path

from ftd import artifacts, slice, versions
from ftd.config import Search
from ftd.search import fuse
from ftd.search.space import Genotype, Space
from ftd.seeds import seed_of
from ftd.training import setup

METHOD = "ftd-nas"


def run(
    task_slice: Path,
    images: Path,
    donors: list[Path],
    *,
    seed: int,
    search_seed: int,
    settings: Search,
    genotype_out: Path,
    trace_out: Path,
) -> dict:
    """Search with FUSE; write the genotype with its facts (JSON) and the trace (Parquet).

    Args:
        donors: the selected tasks' ``genotype.json``; none: search the full space.
        seed: of the experiment.
        search_seed: of this search; ``seed`` and ``search_seed`` together decide its draws.

    Raises:
        UserError: unreadable input, or a training loss that is not finite.
    """
    import pyarrow as pa

    setup()
    task = slice.read(task_slice)
    name = task.facts["task"]
    found = [artifacts.read_json(path) for path in donors]
    full = Space.full(settings.space)
    space = full.restrict(Genotype.from_json(donor["genotype"]) for donor in found)
    data = slice.TaskData(task, images, {"train": settings.samples, "val": settings.samples})
    resume = genotype_out.with_name("resume.json")
    result = fuse.search(
        space,
        data,
        settings,
        seed_of("search", seed, search_seed),
        what=f"search {name}, seed {search_seed}",
        resume=resume,
    )
    facts = {
        "task": name,
        "method": METHOD,
        "seed": search_seed,
        "experiment_seed": seed,
        "genotype": result.genotype.to_json(),
        "space": space.to_json(),
        "space_log10": space.size_log10,
        "full_space_log10": full.size_log10,
        "donors": [donor["task"] for donor in found],
        "generations": result.generations,
        "survived": result.survived,
        "search_macs": result.macs,
        "search_seconds": result.seconds,
        "slice": artifacts.digest(task_slice),
    } | versions.record("search", settings)
    artifacts.write_table(trace_out, pa.Table.from_pylist(result.trace), {"task": name})
    artifacts.write_json(genotype_out, facts)
    resume.unlink(missing_ok=True)
    return facts
