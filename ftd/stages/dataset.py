"""Stage *dataset*: decode a data set once and cut it into the parts that all its tasks share."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.config.datasets import loader_of
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.names import listed
from ftd.parts import LOADERS
from ftd.runtime.progress import log
from ftd.stages.checking import Library, must
from ftd.stages.experiment import Experiment
from ftd.store.provenance import record

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ftd.tasks.decoding import Decoded
    from ftd.tasks.loaders import Counted

VERSION = 4


def decides(experiment: Experiment, *, dataset: str) -> dict[str, Any]:
    """All that decides a data set's artifacts, besides the raw data."""
    settings = experiment.config.datasets[dataset]
    return {
        # a modality that is derived of the images has an artifact of its own
        "settings": settings.model_dump(mode="json", exclude={"derive"}),
        "image": experiment.config.image.model_dump(),
        "seed": experiment.config.seed,
        "version": VERSION,
        "parts": LOADERS.digests(loader_of(settings.loader)[0]),
    }


def run(experiment: Experiment, *, dataset: str) -> None:
    """Decode a data set and write its images and its cut.

    Where a loader knows what a cut needs before it reads images, those without a part are not read.

    Images: safetensors, ``images`` uint8 [N, channels, size, size], official test last, and
    ``annotations`` [N, …], where they are no class numbers; of frames, their modalities by name,
    as ``ftd.tasks.frames.Values`` has them. Cut: Parquet with ``index`` (row of
    ``images``), ``class`` (the data set's own number, if images have one) and ``part`` (null:
    unused); facts: class names, mean and standard deviation of the train part per channel in
    [0, 1], settings, seed, versions; ``read``: by official split, ``images``, their number, and
    ``left out``, numbers by reason; ``noted``: to how many images something was done; ``equal
    images``: see ``tasks.twins``; ``modalities``: the kind of each, if there are any.

    Raises:
        UserError: missing, damaged or unfitting data; images that are all equal; a cut that
            leaves a part empty.
    """
    # Decoders and torch: what reading this module does not cost.
    import numpy as np

    from ftd.tasks.cut import check_classes, moments, parts_of
    from ftd.tasks.decoding import decode
    from ftd.tasks.twins import check_different

    experiment.expect(dataset=dataset)
    settings, image = experiment.config.datasets[dataset], experiment.config.image
    splits, names, parts = _splits(experiment, dataset)
    shape = (sum(map(len, splits.values())), image.channels, image.size, image.size)
    out, trained = experiment.output(LAYOUT.images, dataset=dataset), len(splits["train"])
    made = decides(experiment, dataset=dataset)
    decided = record("dataset", VERSION, made["settings"], made["parts"])
    about = {"dataset": dataset, "image": image.model_dump(), "seed": made["seed"]}
    with ExitStack() as arrays:

        def new(shape: tuple[int, ...], kind: str = "uint8") -> np.ndarray:
            return arrays.enter_context(store.scratch_array(out.parent, shape, kind))

        images = new(shape)
        pairs = (pair for split in splits.values() for pair in split)
        decoded = decode(dataset, pairs, images, settings, new)
        labels = decoded.labels
        if labels is not None:
            seen = len(labels) if settings.parts.pooled else trained
            check_classes(dataset, labels, seen, names)
        if parts is None:
            of = decoded.strata, trained if "test" in splits else None
            parts = parts_of(dataset, settings.parts, *of, made["seed"], decoded.groups)
        check_different(dataset, decoded.prints, settings.background)
        read = _what_was_read(dataset, splits, decoded, parts)
        mean, std = moments(images, np.flatnonzero(parts == "train"))
        store.write_tensors(out, _tensors(images, decoded), about | decided)
    numbers = () if labels is None else np.unique(labels)
    classes = {int(c): names.get(int(c), str(c)) for c in numbers}
    facts = {"images": store.checksum(out), "classes": classes, "mean": mean, "std": std}
    facts |= about | read
    _say(dataset, facts)
    _write_cut(experiment.output(LAYOUT.cut, dataset=dataset), labels, parts, facts | decided)


def _splits(
    experiment: Experiment, dataset: str
) -> "tuple[Mapping[str, Counted], dict[int, str], np.ndarray | None]":
    """The images to be read by official split, the names of classes, the parts if known by now."""
    from ftd.tasks.first_cut import cut_first  # as in run
    from ftd.tasks.loaders import open_splits

    settings, root = experiment.config.datasets[dataset], Path(experiment.config.data_root)
    train, test, names = open_splits(dataset, settings, root)
    if not len(train):
        raise UserError(f"data set {dataset}: no images found; check datasets.{dataset}.train")
    splits = {"train": train} if test is None else {"train": train, "test": test}
    splits, parts = cut_first(dataset, splits, settings.parts, experiment.config.seed)
    return splits, names, parts


def _tensors(images: "np.ndarray", decoded: "Decoded") -> "dict[str, torch.Tensor]":
    import torch  # as in run

    tensors = {"images": images, **decoded.modalities}
    if decoded.labels is None and decoded.annotations is not None:
        tensors["annotations"] = decoded.annotations
    return {key: torch.from_numpy(array) for key, array in tensors.items()}


def _what_was_read(
    name: str, splits: "Mapping[str, Counted]", decoded: "Decoded", parts: "np.ndarray"
) -> dict[str, Any]:
    """The facts ``read``, ``noted``, ``equal images`` and ``modalities``, once all were read."""
    from ftd.tasks.loaders import counts  # as in run
    from ftd.tasks.twins import twins

    read = {
        split: {"images": len(images), "left out": counts(name, [images.left_out])}
        for split, images in splits.items()
    }
    modalities = {"modalities": decoded.kinds} if decoded.kinds else {}
    return modalities | {
        "read": read,
        "noted": counts(name, [decoded.noted, *(images.noted for images in splits.values())]),
        "equal images": twins(decoded.prints, parts, decoded.labels),
    }


def _say(name: str, facts: Mapping[str, Any]) -> None:
    """In the log: a line for each split, and for what is to be known of its images."""
    for split, found in facts["read"].items():
        left_out = listed(found["left out"])
        more = f"; left out: {left_out}" if left_out else ""
        log(f"data set {name}, {split}: {found['images']} images read{more}")
    if facts["noted"]:
        log(f"data set {name}: of these {listed(facts['noted'])}")
    if facts["equal images"]:
        log(f"data set {name}: images that are equal: {listed(facts['equal images'])}")


def _write_cut(
    path: Path, classes: "np.ndarray | None", parts: "np.ndarray", facts: dict[str, Any]
) -> None:
    import numpy as np  # as in run
    import pyarrow as pa

    columns = {"index": pa.array(np.arange(len(parts)), pa.int64())}
    if classes is not None:
        columns["class"] = pa.array(classes, pa.int64())
    names = pa.array([part or None for part in parts], pa.string())
    store.write_table(path, pa.table(columns | {"part": names.dictionary_encode()}), facts)


# Checks -----------------------------------------------------------------------------------------


def _check_images(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    from safetensors import safe_open  # a check's alone

    facts = store.read_tensor_facts(path, stage="dataset")
    yield from library.made_by(facts, VERSION, decides, **names)
    with safe_open(path, framework="numpy") as file:
        images = file.get_slice("images")
        shape, kind = images.get_shape(), images.get_dtype()
    image = facts["image"]
    wanted = [image["channels"], image["size"], image["size"]]
    yield from must(kind == "U8" and shape[1:] == wanted, f"images {kind} {shape}")


def _check_cut(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    table = store.read_table(path, stage="dataset")
    facts, columns = store.table_facts(table), table.to_pydict()
    yield from library.made_by(facts, VERSION, decides, **names)
    yield from library.same(library.path(LAYOUT.images, **names), facts["images"], "images")
    yield from must(columns["index"] == list(range(len(table))), "rows are not numbered")
    classes = {str(number) for number in columns.get("class", ())}
    yield from must(classes <= facts["classes"].keys(), "classes without a name")
    found = set(columns["part"]) - {None}
    yield from must(found == {"train", "fisher", "val", "test"}, "parts are missing or unknown")
    yield from must(all(value > 0 for value in facts["std"]), "a deviation that is not positive")


CHECKS = [(LAYOUT.images, _check_images), (LAYOUT.cut, _check_cut)]
