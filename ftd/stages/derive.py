"""Stage *derive*: a modality of frames out of their colours and depths, once for all tasks."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftd import store
from ftd.errors import UserError
from ftd.layout import LAYOUT
from ftd.stages.checking import Library, must, tensors_of
from ftd.stages.experiment import Experiment
from ftd.store.provenance import record
from ftd.tasks.derived import DERIVED

if TYPE_CHECKING:
    import numpy as np

VERSION = 1


def decides(experiment: Experiment, *, dataset: str, modality: str) -> dict[str, Any]:
    """All that decides a modality, besides its data set's images."""
    return {"settings": {"modality": modality}, "version": VERSION}


def run(experiment: Experiment, *, dataset: str, modality: str) -> None:
    """Derive a modality of all frames of a data set.

    Safetensors with one tensor of the modality's name, float32 [N, C, H, W], NaN where it is not
    defined; rows are those of the data set's images.

    Raises:
        UserError: missing or damaged images, or a modality that the configuration does not derive.
    """
    # Numbers and pictures: what reading this module does not cost.
    import torch

    from ftd.tasks.deriving import derive

    experiment.expect(dataset=dataset)
    if modality not in getattr(experiment.config.datasets[dataset], "derive", ()):
        raise UserError(f"datasets.{dataset}.derive: does not name {modality!r}")
    made = decides(experiment, dataset=dataset, modality=modality)
    file = store.TensorFile(experiment.input(LAYOUT.images, dataset=dataset), stage="dataset")
    arrays = {name: tensor.numpy() for name, tensor in file.tensors().items()}
    about = {"dataset": dataset, "modality": modality, "images": file.facts["sha256"]}
    out = experiment.output(LAYOUT.derived, dataset=dataset, modality=modality)
    decided = record("derive", VERSION, made["settings"])
    with ExitStack() as scratch:

        def new(shape: tuple[int, ...], kind: str) -> "np.ndarray":
            return scratch.enter_context(store.scratch_array(out.parent, shape, kind))

        values = derive(modality, arrays, f"deriving {modality} of {dataset}", new)
        store.write_tensors(out, {modality: torch.from_numpy(values)}, about | decided)


def _check(path: Path, names: Mapping[str, str], library: Library) -> Iterator[str]:
    facts = store.read_tensor_facts(path, stage="derive")
    yield from library.made_by(facts, VERSION, decides, **names)
    images, modality = library.path(LAYOUT.images, **names), names["modality"]
    yield from library.same(images, facts["images"], "images")
    found = tensors_of(path)
    yield from must(set(found) == {modality}, f"holds {', '.join(sorted(found))}")
    if images.exists() and modality in found:
        rows, _, *size = tensors_of(images)["images"][1]
        wanted = "F32", [rows, DERIVED[modality].channels, *size]
        told = "{} {}, expected {} {}".format(*found[modality], *wanted)
        yield from must(found[modality] == wanted, f"{modality}: {told}")


CHECKS = [(LAYOUT.derived, _check)]
