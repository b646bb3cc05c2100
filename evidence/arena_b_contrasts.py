"""The contrasts of arena B, and whether its bars are met, from the table of its rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from evidence import contrasts
from evidence.arena_b_plan import Budget, Plan
from ftd.config import method_of


@dataclass(frozen=True)
class Contrast:
    """A method at a budget against another.

    Attributes:
        test: ``not worse`` than the other by the margin, or ``better``.
    """

    method: str
    budget: Budget
    other: str
    other_budget: Budget
    test: Literal["not worse", "better"]

    @property
    def text(self) -> str:
        """Its name on the page."""
        same = self.other_budget == self.budget
        return f"{self.method} − {self.other}" + ("" if same else f" at {self.other_budget}")


@dataclass(frozen=True)
class Found:
    """A contrast of one set, or pooled.

    Attributes:
        seeds: how many both methods have; ``mean``: of the differences, in [−1, 1].
        low, high: of the interval; ``deviation`` of a difference over seeds, ``None`` of one alone.
        p: one-sided, of its test; of a pooled one adjusted for the number of contrasts.
    """

    seeds: int
    mean: float
    low: float
    high: float
    deviation: float | None
    p: float


def planned(plan: Plan) -> list[Contrast]:
    """All contrasts, those of bars first."""
    found = [
        Contrast(plan.method, "B/4", other, "B/4", "not worse")
        for other in [*plan.full_space, *plan.restricted]
    ]
    found.append(Contrast(plan.method, "B/4", "darts-1st", "B", "not worse"))
    for other in [*plan.full_space, *plan.restricted]:
        test = "better" if other == "random" else "not worse"
        found.append(Contrast(plan.method, "B", other, "B", test))
    for budget in ("B/4", "B"):
        for other in plan.donors.others:
            found.append(Contrast(plan.donors.method, budget, other, budget, "better"))
    return found


def differences(rows: pd.DataFrame, contrast: Contrast) -> dict[str, np.ndarray]:
    """By set: the differences of accuracies, one for each seed that both methods have."""
    found = {}
    for name, own in rows.groupby("set", sort=True):
        one, other = (
            own[(own["method"] == method) & (own["budget"] == budget)].set_index("seed")["accuracy"]
            for method, budget in (
                (contrast.method, contrast.budget),
                (contrast.other, contrast.other_budget),
            )
        )
        pairs = (one - other).dropna().sort_index()
        if len(pairs):
            found[name] = pairs.to_numpy()
    return found


def found(rows: pd.DataFrame, plan: Plan) -> dict[Contrast, dict[str, Found]]:
    """By contrast and set, and ``pooled`` over all sets that have it, what rows say.

    Args:
        rows: of seeds that are confirmed; see ``evidence.arena_b.COLUMNS``.
    """
    result = {}
    for contrast in planned(plan):
        by_set = differences(rows, contrast)
        if by_set:
            result[contrast] = {name: _one([of], contrast, plan) for name, of in by_set.items()}
            result[contrast]["pooled"] = _one([*by_set.values()], contrast, plan)
    adjusted = contrasts.holm([each["pooled"].p for each in result.values()])
    for each, p in zip(result.values(), adjusted, strict=True):
        each["pooled"] = Found(**vars(each["pooled"]) | {"p": p})
    return result


def _one(by_set: list[np.ndarray], contrast: Contrast, plan: Plan) -> Found:
    means = contrasts.resampled(by_set, plan.statistics.draws)
    low, high = contrasts.interval(means, plan.statistics.confidence)
    null = 0.0 if contrast.test == "better" else -plan.margin
    every = np.concatenate([of - of.mean() for of in by_set])
    free = len(every) - len(by_set)
    deviation = float(np.sqrt((every**2).sum() / free)) if free else None
    mean = float(np.mean([of.mean() for of in by_set]))
    return Found(len(every), mean, low, high, deviation, contrasts.p_not_above(means, null))


# Bars -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """What was to be reached; ``met``: ``None`` as long as seeds are missing."""

    text: str
    met: bool | None
    why: str


def bars(rows: pd.DataFrame, plan: Plan, sets: list[str]) -> list[Bar]:
    """The three bars, by the pooled contrasts.

    Args:
        sets: those that have passed the gate: all of their seeds must be there.
    """
    by_contrast = found(rows[rows["set"].isin(sets)], plan)
    asked = len(plan.seeds.confirmation) * len(sets)
    whole = bool(sets) and all(
        contrast in by_contrast and by_contrast[contrast]["pooled"].seeds == asked
        for contrast in planned(plan)
    )
    quarter = [
        (contrast.text, each["pooled"].low)
        for contrast, each in by_contrast.items()
        if contrast.budget == "B/4"
        and contrast.method == plan.method
        and contrast.other not in plan.restricted
    ]
    quarter += [(f"{text} (described)", mean) for text, mean in _described(rows, plan, sets)]
    worse = [f"{text} {100 * low:+.1f}" for text, low in quarter if low <= -plan.margin]
    first = Bar(
        f"At B/4, not worse by {100 * plan.margin:g} point than every full-space method at B/4 and "
        "than DARTS-1st at B",
        not worse if whole else None,
        "below the margin: " + ", ".join(worse) if worse else "no interval reaches the margin",
    )
    better = next(c for c in planned(plan) if c.test == "better" and c.method == plan.method)
    pooled = by_contrast.get(better, {}).get("pooled")
    said = f"{100 * pooled.low:+.2f} to {100 * pooled.high:+.2f} points" if pooled else "no seed"
    second = Bar(
        "At B, better than random search pooled over the sets",
        pooled.low > 0 if whole and pooled else None,
        f"interval {said}",
    )
    most = rows["parameters"].max() if len(rows) else 0
    third = Bar(
        f"No network has more than {plan.max_parameters:,} parameters",
        bool(most <= plan.max_parameters) if whole else None,
        f"the largest has {most:,}",
    )
    return [first, second, third]


def _described(rows: pd.DataFrame, plan: Plan, sets: list[str]) -> list[tuple[str, float]]:
    """Mean differences at B/4 to the full-space methods that have few seeds."""
    own = rows[rows["set"].isin(sets)]
    names = [
        name
        for name in sorted(set(own["method"]) - set(plan.contrasted))
        if method_of(name).source is None
    ]
    result = []
    for name in names:
        contrast = Contrast(plan.method, "B/4", name, "B/4", "not worse")
        by_set: Mapping[str, np.ndarray] = differences(own, contrast)
        if by_set:
            result.append((contrast.text, float(np.mean([of.mean() for of in by_set.values()]))))
    return result
