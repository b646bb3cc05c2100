"""Stage *task*: slice a data set's cut: which images a task has, and their labels."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.stages.checking import AGAIN, Library, expect_asked, must
from ftd.stages.experiment import Experiment
from ftd.store.provenance import record

if TYPE_CHECKING:
    import numpy as np

    from ftd.config import Task
    from ftd.tasks.data import TaskData
    from ftd.tasks.slices import Slice

VERSION = 3


def decides(experiment: Experiment, *, task: str) -> dict[str, Any]:
    """All that decides a slice, besides its data set's cut."""
    settings = experiment.config.tasks[task]
    aside = {"weights", "epsilon", *getattr(settings, "for_figures", ())}
    return {
        "settings": settings.model_dump(mode="json", exclude=aside),
        "seed": experiment.config.seed,
        "version": VERSION,
        "parts": experiment.digests(task=task),
    }


def run(experiment: Experiment, *, task: str) -> None:
    """Filter and relabel a data set's cut as a task says; write the slice.

    Parquet with ``index`` (row of the data set's images), ``label`` (where the target is no
    annotation of the data set's) and ``part``; facts: names of the labels, and the cut's; of a
    modality ``of``, its file's checksum (``annotations``), whether it was ``derived``, and what was
    ``measured`` of it.
    Beside it a file that is no declared output, so that nothing deletes it, keeps what classes the
    numbers in ``labels`` meant.

    Raises:
        UserError: unknown class, a class in two labels, a part or label without images, a number
            that meant another class when the task was sliced before, or a modality that is missing,
            of other images, or has values that the target does not take.
    """
    # Numbers and tables: what reading this module does not cost.
    import pyarrow as pa

    from ftd.tasks.slices import check_parts, measured, slice_cut, with_values

    experiment.expect(task=task)
    settings, made = experiment.config.tasks[task], decides(experiment, task=task)
    cut = store.read_table(experiment.input(LAYOUT.cut, dataset=settings.dataset), stage="dataset")
    facts = store.table_facts(cut)
    meant = _meant(settings, facts.get("classes", {}))
    kept = experiment.output(LAYOUT.meant, task=task)
    _expect_the_same(task, meant, kept)
    sliced = slice_cut(task, settings, cut, facts, made["seed"])
    of, found = getattr(settings, "of", None), {}
    if of is not None:
        values, found = _modality(experiment, task, facts["images"])
        sliced = with_values(sliced, values)
    check_parts(task, sliced)
    columns = {"index": pa.array(sliced.rows, pa.int64())}
    if sliced.label is not None:
        columns["label"] = pa.array(sliced.label, pa.int64())
    columns["part"] = pa.array(sliced.part, pa.string()).dictionary_encode()
    about = {key: facts[key] for key in ("dataset", "image", "images", "mean", "std")}
    target = {"kind": settings.target, "labels": sliced.names, "settings": made["settings"]}
    if of is not None:
        target["measured"] = measured(task, settings, values, sliced)
    about |= {"task": task, "target": target, "labels": sliced.names} | found
    about |= {"seed": made["seed"], "cut": facts["sha256"]}
    decided = record("task", VERSION, made["settings"], made["parts"])
    out = experiment.output(LAYOUT.slice, task=task)
    store.write_table(out, pa.table(columns), about | decided)
    if meant["classes"]:
        store.write_json(kept, meant)
    else:
        kept.unlink(missing_ok=True)


def _modality(experiment: Experiment, task: str, images: str) -> "tuple[np.ndarray, dict]":
    """A task's modality of all images of its data set, mapped, and what the slice records of it.

    Args:
        images: the checksum of these images.

    Raises:
        UserError: a file that is missing, damaged or of other images, or lacks the modality.
    """
    derived, settings = experiment.derived_of(task), experiment.config.tasks[task]
    stage = "dataset" if derived is None else "derive"
    file = store.TensorFile(derived or experiment.images_of(task), stage=stage)
    if file.facts["sha256" if derived is None else "images"] != images:
        raise UserError(
            f"{file.path}: of other images than the cut of data set {settings.dataset!r}; run the "
            f"stage {stage} again"
        )
    values = file.tensors().get(settings.of)
    if values is None:
        raise UserError(
            f"{file.path}: it has no modality {settings.of!r}, which tasks.{task}.of names and the "
            "configuration gives the data set now; run the stage dataset again"
        )
    about = {"of": settings.of, "derived": derived is not None}
    return values.numpy(), about | {"annotations": file.facts["sha256"]}


def _meant(settings: "Task", classes: Mapping[str, str]) -> dict[str, Any]:
    """The data set, and the names behind the class numbers that a task lists, where it has any."""
    labels = getattr(settings, "labels", None)
    lists = labels.values() if isinstance(labels, dict) else ()
    listed = {str(item) for items in lists for item in items if type(item) is int}
    named = {number: classes[number] for number in sorted(listed) if number in classes}
    return {
        "dataset": settings.dataset,
        "classes": {number: name for number, name in named.items() if name != number},
    }


def _expect_the_same(task: str, meant: Mapping[str, Any], kept: Path) -> None:
    """Raises a ``UserError`` if a number means another class than when the task was sliced last."""
    if not kept.exists():
        return
    before = store.read_json(kept)
    if before["dataset"] != meant["dataset"]:
        return
    for number, name in meant["classes"].items():
        known = before["classes"].get(number, name)
        if known != name:
            raise UserError(
                f"tasks.{task}.labels: class {number} of data set {meant['dataset']!r} was "
                f"{known!r} when this task was sliced last, and is {name!r} now; write the name "
                f"that you mean in quotes, or delete {kept} to go on with the new one"
            )


def data_of(experiment: Experiment, sliced: "Slice", parts: Mapping[str, int | None]) -> "TaskData":
    """Images and targets of some parts of a task, for the stages that follow.

    Args:
        parts: see ``ftd.tasks.data.TaskData``.

    Raises:
        UserError: missing or damaged files, or others than those that the slice was made of.
    """
    from ftd.tasks.data import TaskData  # torch: seconds that rules and --help would pay

    images, derived = experiment.images_of(sliced.name), experiment.derived_of(sliced.name)
    return TaskData(sliced, images, parts, derived=derived)


def read(experiment: Experiment, *, task: str) -> "Slice":
    """A task's slice, for the stages that follow.

    Raises:
        UserError: missing or damaged file, one of another task, or made otherwise than the
            configuration asks for.
    """
    from ftd.tasks.slices import read_slice  # numbers, as in run

    found = read_slice(experiment.input(LAYOUT.slice, task=task))
    if found.name != task:
        raise UserError(f"{found.path}: is of task {found.name}; {AGAIN}")
    expect_asked(found.path, found.facts, decides(experiment, task=task))
    return found


def _check(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    table = store.read_table(path, stage="task")
    facts, columns = store.table_facts(table), table.to_pydict()
    cut = library.path(LAYOUT.cut, dataset=facts["dataset"])
    images = library.path(LAYOUT.images, dataset=facts["dataset"])
    yield from library.made_by(facts, VERSION, decides, **names)
    yield from library.same(cut, facts["cut"], "cut")
    yield from library.same(images, facts["images"], "images")
    if "of" in facts:
        derived = library.path(LAYOUT.derived, dataset=facts["dataset"], modality=facts["of"])
        file = derived if facts["derived"] else images
        yield from library.same(file, facts["annotations"], "modality")
    yield from must(facts["task"] == names["task"], f"is of task {facts['task']}")
    index, parts = columns["index"], columns["part"]
    yield from must(len(set(index)) == len(index), "an image is listed twice")
    found = set(parts)
    yield from must(found == {"train", "fisher", "val", "test"}, "parts are missing or unknown")
    if facts["target"]["kind"] == "classes":
        labels = set(columns["label"]) == set(range(len(facts["labels"])))
        yield from must(labels, "labels out of range, or without an image")
    if cut.exists():
        whole = store.read_table(cut, ["part"])["part"].to_pylist()
        inside = min(index) >= 0 and max(index) < len(whole)
        yield from must(inside, "names images that the data set does not have")
        same = inside and [whole[row] for row in index] == parts
        yield from must(same, "parts differ from the cut's")


def _check_meant(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    yield from must({"dataset", "classes"} <= store.read_json(path).keys(), "has no classes")


CHECKS = [(LAYOUT.slice, _check), (LAYOUT.meant, _check_meant)]
