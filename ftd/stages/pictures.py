"""Images of tasks, a few of each label, for pages.

Functions import numpy and the drawing's packages: what reading this module does not cost.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftd import store
from ftd.layout import LAYOUT
from ftd.stages.experiment import Experiment

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from ftd.drawing.thumbnails import Samples
    from ftd.tasks.slices import Slice


_ROWS, _IMAGES = 80, 640  # on a page: of many tasks, fewer of each; it would be too large


def samples(
    experiment: Experiment, slices: "Sequence[Slice]", *, images: int, labels: int
) -> "dict[str, Samples]":
    """Images of ``train`` by task, evenly spaced: as many of each of its first labels.

    Of a task without labels, one row of them.

    Args:
        images: so many of a label, or fewer where there are many tasks; ``labels``: likewise.

    Raises:
        UserError: missing or damaged images.
    """
    from ftd.drawing.thumbnails import Samples, strip

    found, by_dataset = {}, defaultdict(list)
    labels = min(labels, max(2, _ROWS // len(slices)))
    images = min(images, max(1, _IMAGES // (len(slices) * labels)))
    for sliced in slices:
        by_dataset[sliced.facts["dataset"]].append(sliced)
    for dataset, own in by_dataset.items():
        file = store.TensorFile(experiment.input(LAYOUT.images, dataset=dataset), stage="dataset")
        for sliced in own:
            rows = _rows(sliced, images, labels)
            strips = [strip(label, file.rows("images", at)) for label, at in rows.items()]
            more = 0 if sliced.label is None else max(0, len(sliced.labels) - labels)
            found[sliced.name] = Samples(sliced.name, strips, more)
    return found


def counted(sliced: "Slice") -> "pd.DataFrame":
    """How many images each label of a task has in each part."""
    import pandas as pd

    from ftd.tasks.cut import PARTS

    labels = enumerate(sliced.labels) if sliced.label is not None else [(None, "")]
    rows = []
    for number, label in labels:
        own = sliced.part if number is None else sliced.part[sliced.label == number]
        parts = {part: int((own == part).sum()) for part in PARTS}
        rows.append({"task": sliced.name, "label": label, **parts})
    return pd.DataFrame(rows)


def _rows(sliced: "Slice", images: int, labels: int) -> "dict[str, np.ndarray]":
    """Rows of the data set's images by label."""
    import numpy as np

    trained = sliced.part == "train"
    if sliced.label is None:
        of = {"images": trained}
    else:
        names = sliced.labels[:labels]
        of = {name: trained & (sliced.label == number) for number, name in enumerate(names)}
    found = {name: sliced.index[mask] for name, mask in of.items() if mask.any()}
    return {
        name: index[np.linspace(0, len(index) - 1, min(images, len(index))).astype(int)]
        for name, index in found.items()
    }
