"""Measures: what says how near one task is to another.

A measure compares two sides, the task that a network comes from (source) and the task that it
would go to (target); a combination is made of the finished numbers of measures. Both say what a
number of theirs means, and no stage assumes more of it.
"""

import math
import reprlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from ftd.config.base import Section
from ftd.errors import UserError
from ftd.parts import register_measure, resolve

if TYPE_CHECKING:  # torch: seconds that registering a measure would pay
    import torch
    from torch import nn

    from ftd.tasks.targets import Target

_SHORT = reprlib.Repr()
ROUNDING = 1e-6
"""How far rounding may take a number out of its measure's range."""
NEEDS = ("weights", "start", "fisher", "embedding", "data", "features", "facts")
"""What a measure may ask of a side."""
Nearer = Literal["lower", "higher"]


@dataclass(frozen=True)
class Measure:
    """A measure of tasks.

    Attributes:
        make: () → object with ``prepare`` and ``compare`` (see ``Comparison``), or the place of
            one, ``"package.module:name"``.
        source: what it needs of the task that a network comes from, out of ``NEEDS``.
        target: what it needs of the task that the network goes to. A number depends on what these
            two name, on the settings and the version, and on nothing else.
        lowest: no number of its is smaller; ``-math.inf`` if there is no such bound.
        highest: no number of its is larger; ``math.inf`` if there is no such bound.
        nearer: whether the ``"lower"`` or the ``"higher"`` of two numbers is the nearer source's.
        zero_to_itself: a task's number to itself is 0, and need not be computed.
        squared: parts sum to the square of the distance; else to the distance.
        common_start: it compares weights by place, so all must come from one start.
        layers: parts are layers of the network; else there is one, the whole.
        kinds: kinds of target that it fits; ``None``: all.
        answers: the source's network, head and all, has to answer the target's question: not where
            one is a class for a whole image, and the other one a map.
        group: one job makes the columns of all measures of a group, which share what they see (see
            ``Side.seen``); ``None``: each has jobs of its own.
        settings: the keys of its own section.
        version: to be raised when equal inputs give other numbers than before.
        cost: what a pair takes, in one phrase.
        reference: where it comes from: paper, equation.

    Raises:
        ValueError: a need that there is not, an empty range, another direction, or a group that
            is no plain name.
    """

    make: "Callable[[], Comparison] | str"
    source: tuple[str, ...]
    target: tuple[str, ...]
    lowest: float
    highest: float
    nearer: Nearer = "lower"
    zero_to_itself: bool = False
    squared: bool = False
    common_start: bool = False
    layers: bool = False
    kinds: tuple[str, ...] | None = None
    answers: bool = False
    group: str | None = None
    settings: type[Section] = Section
    version: int = 1
    cost: str = ""
    reference: str = ""

    def __post_init__(self) -> None:
        _expect_order(self.lowest, self.highest, self.nearer)
        if self.group is not None and not self.group.isidentifier():
            raise ValueError(f"group {self.group!r}: expected letters, digits and '_'")
        for need in (*self.source, *self.target):
            if need not in NEEDS:
                raise ValueError(f"unknown need {need!r}; known: {', '.join(NEEDS)}")
        if self.layers and "fisher" not in self.target:
            raise ValueError("layers are those of the target's fisher; it must be needed")

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which numbers parts sum to: ``lowest`` and ``highest``, or their squares."""
        if not self.squared:
            return self.lowest, self.highest
        return max(0.0, self.lowest) ** 2, self.highest**2

    def total(self, parts: Iterable[float], what: str = "a measure") -> float:
        """The number (its square, if ``squared``) of these parts, in its range but for rounding.

        Raises:
            UserError: it is not finite, or out of the range; ``what`` names measure and pair.
        """
        found, (lowest, highest) = math.fsum(parts), self.bounds
        if not math.isfinite(found) or not lowest - ROUNDING <= found <= highest + ROUNDING:
            raise UserError(
                f"{what}: {found} is no number of its range, from {lowest:g} to {highest:g}"
            )
        return min(highest, max(lowest, found))


@dataclass(frozen=True)
class Combination:
    """A function of finished measures: several in one, or a baseline such as a source's mean.

    Attributes:
        of: the measures that it is made of.
        combine: ({measure: array [N, N]}) → array [N, N], float64, of one network and trial:
            sources in rows, targets in columns, both all N tasks in the same order. Of a measure
            that is ``squared``, such as ``fisher``, they are the squares of its distances. A
            number is NaN where there is none, as of a new task that is placed: it is a target
            alone.
        lowest: no number of its is smaller.
        highest: no number of its is larger.
        nearer: as of a ``Measure``; so is ``reference``.

    Raises:
        ValueError: an empty range, another direction, or no measure.
    """

    of: tuple[str, ...]
    combine: Callable[[dict[str, Any]], Any]
    lowest: float
    highest: float
    nearer: Nearer = "lower"
    reference: str = ""

    def __post_init__(self) -> None:
        _expect_order(self.lowest, self.highest, self.nearer)
        if not self.of:
            raise ValueError("a combination of no measures; name at least one")

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which numbers it lies."""
        return self.lowest, self.highest


def _expect_order(lowest: float, highest: float, nearer: str) -> None:
    if not lowest <= highest:
        raise ValueError(f"no number lies between lowest {lowest} and highest {highest}")
    if nearer not in get_args(Nearer):
        raise ValueError(f"nearer {nearer!r}: expected {' or '.join(get_args(Nearer))}")


@dataclass(frozen=True)
class Seen:
    """What one task's network makes of another's images: a forward pass, on the CPU.

    Attributes:
        features: float32 [N, F], what its output layer takes: the body's features, flattened, and
            averaged over their places where the head does so.
        outputs: float32 [N, C], one for each of its own C labels.
        labels: int64 [N], the other task's.
    """

    features: "torch.Tensor"
    outputs: "torch.Tensor"
    labels: "torch.Tensor"


class Side(Protocol):
    """A task as one measure sees it: what it declared, and nothing else.

    Attributes:
        name: the task.
        what: for messages, such as ``probe zero, network vgg16, trial 0``.
        weights: the task's network, in evaluation mode on the CPU.
        start: the network as it was before training, at the common start.
        fisher: float64, the network's Fisher information on its own task, by parameter.
        fisher_settings: the ``fisher`` section that it was made with, on either side.
        embedding: float64 [filters], what the common start makes of the task: see ``task2vec``.
        data: the ``fisher`` part of the task's images.
        features: float32 [N, F], what the network's body makes of its own data, flattened.
        facts: of the task's slice and network: its labels, its accuracy, ….
        brought: whether other code than this package's, a plugin's or torchvision's, makes its
            network or its data's target; for measures that need ``weights`` or ``data``.
    """

    name: str
    what: str
    weights: "nn.Module"
    start: "nn.Module"
    fisher: "dict[str, torch.Tensor]"
    fisher_settings: "FisherSettings"
    embedding: "torch.Tensor"
    data: "Data"
    features: "torch.Tensor"
    facts: dict[str, Any]
    brought: bool

    def seen(self, target: "Side") -> Seen:
        """What the task's network makes of the target's ``fisher`` images.

        For measures that need ``weights`` of this side and ``data`` of the target's. All measures
        of a job share one pass, so nothing of it is to be written into.

        Raises:
            UserError: a target or a network without classes, or outputs that are not finite.
        """


class FisherSettings(Protocol):
    """How Fisher information is taken: the keys of ``fisher``."""

    estimator: str
    microbatch: int
    pool_first_dimension: bool
    structure: str
    samples: int | None


class Data(Protocol):
    """A task's images and targets, on one device.

    Attributes:
        device: where batches live.
        target: what the task asks of a network.
        task: its slice, with ``image_shape`` (channels, height, width).
    """

    device: "torch.device"
    target: "Target"
    task: Any

    def batches(
        self, part: str, size: int, generator: "torch.Generator | None" = None
    ) -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
        """Float32 images [B, C, H, W] and targets [B, …]; shuffled by ``generator``.

        Asked for again, with every source, they are copies of those made once, if there is room.
        """

    def count(self, part: str) -> int:
        """Number of images in a part."""


class Comparison(Protocol):
    """How a measure compares: what ``Measure.make`` makes, once for many sources."""

    def prepare(self, target: Side, settings: Section) -> Any:
        """What is computed once for a target, for ``compare`` to use with every source."""

    def compare(self, source: Side, prepared: Any) -> dict[str, float]:
        """Parts of the number by name, in order: layers, or one whole.

        Raises:
            UserError: sides that have no number, named by their ``what``.
        """


def comparison_of(name: str, measure: Measure) -> Comparison:
    """What a measure makes.

    Raises:
        UserError: it lacks ``prepare`` or ``compare``.
    """
    made = resolve(measure.make)
    made = made() if callable(made) else made
    for method in ("prepare", "compare"):
        if not callable(getattr(made, method, None)):
            raise UserError(
                f"measure {name!r}: makes {_SHORT.repr(made)}, which has no method {method!r}; "
                "expected an object with prepare(target, settings) and compare(source, prepared)"
            )
    return made


def numbers_of(found: Any, what: str, layers: list[str] | None) -> dict[str, float]:
    """What ``compare`` gave, as numbers by part.

    Args:
        what: measure and pair, for messages.
        layers: the parts that are kept; ``None``: their sum alone is.

    Raises:
        UserError: it is no mapping of numbers, or one of other parts.
    """
    try:
        numbers = {part: float(value) for part, value in found.items()}
    except (AttributeError, TypeError, ValueError, RuntimeError):  # the last: tensors
        numbers = {}
    if not numbers:
        raise UserError(
            f"{what}: compare gave {_SHORT.repr(found)}; expected a mapping of numbers by part, "
            "such as {'whole': 0.5}"
        )
    if layers is not None and set(numbers) != set(layers):
        raise UserError(
            f"{what}: compare gave the parts {', '.join(map(str, numbers))}; expected the layers "
            f"{', '.join(layers)}"
        )
    return numbers


class FisherTask(Section):
    """The Fisher task distance: which output of a source's network stands for which label."""

    align: Literal["index", "matching"] = "index"


FISHER = Measure(
    "ftd.measures.fisher_task:FisherTaskDistance",
    source=("weights",),
    target=("fisher", "data"),
    lowest=0.0,
    highest=1.0,
    zero_to_itself=True,
    squared=True,
    common_start=True,
    layers=True,
    answers=True,
    settings=FisherTask,
    cost="a forward and a backward pass, and the target's own probe",
    reference="Le, Soltani, Dong, Tarokh 2022, section III",
)
register_measure("fisher", FISHER)
