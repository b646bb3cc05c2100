"""The section ``tasks``; the keys of a kind of target are its part's."""

from typing import Annotated, Any

from pydantic import Field, field_validator

from ftd.config.base import Expanded, Section
from ftd.config.datasets import union
from ftd.parts import TARGETS

CLASSES = "classes"
"""The kind of target of tasks that name no other."""


class Task(Section):
    """A data set, and what its images are to be mapped to.

    ``weights``: a trained network (safetensors, named as the experiment's network) that stands in
    place of the task's probes; by network, where the experiment has several. ``epsilon``: in
    place of ``probe.epsilon``.
    """

    dataset: str
    target: str = CLASSES
    weights: Annotated[str | dict[str, str], Expanded] | None = None
    epsilon: float | None = Field(None, gt=0, lt=1)

    @field_validator("target")
    @classmethod
    def _known(cls, value: str) -> str:
        TARGETS.get(value)
        return value

    def weights_of(self, network: str) -> str | None:
        """The file that stands in place of a network's probes of this task."""
        if isinstance(self.weights, dict):
            return self.weights.get(network)
        return self.weights


def task_schema() -> Any:
    """A task's type: the one of its kind of target."""
    kinds = {name: TARGETS.get(name).settings for name in TARGETS.names()}
    kinds = {name: own for name, own in kinds.items() if own}

    def tag(value: Any) -> str:
        if not isinstance(value, dict):
            return getattr(value, "target", "")
        target = value.get("target", CLASSES)
        return target if isinstance(target, str) and target in kinds else ""

    return union(Task, kinds, tag)
