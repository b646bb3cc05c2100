"""A surrogate of architectures' scores on a new task: learned tasks' scores, and own trials.

A Gaussian process (Rasmussen and Williams 2006, section 2.7) with learned tasks as features. What
architecture x scores on the new task is taken to be

    f(x) = c + Σ_s (w_s + u_s) S_s(x) + r(x)

S_s(x): its score on the learned task s; w: the weights that tasks have beforehand; u_s of variance
``doubt``: by how much these are wrong; r: what no learned task tells, of covariance
``residual`` · exp(−h / ``length``), h the number of edges in which two architectures differ; c of
any size. Trials of the new task have the variance ``noise``. Without trials, the ranking is that by
Σ_s w_s S_s; each trial moves the weights, and the expectation of what is alike.

All scores are normal scores of ranks, as tasks' accuracies have no common scale.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri


@dataclass(frozen=True)
class Surrogate:
    """Variances, in units of normal scores, and the length in edges.

    The defaults are those that published tables chose most often (``docs/arena.md``).
    """

    doubt: float = 0.05
    residual: float = 1.0
    length: float = 2.0
    noise: float = 1.0

    def expected(
        self,
        weights: np.ndarray,
        scores: np.ndarray,
        differing: np.ndarray,
        tried: np.ndarray,
        values: np.ndarray,
    ) -> np.ndarray:
        """What is expected of each architecture, [N]; scale and offset mean nothing.

        Args:
            weights: of the learned tasks, [S]; S may be 0.
            scores: normal scores of the N architectures on them, [N, S].
            differing: in how many edges each differs from each of those tried, [N, n].
            tried: rows of the architectures tried on the new task, [n].
            values: what they scored, [n], the larger the better; only their order counts.
        """
        prior = scores @ weights
        if not len(tried):
            return prior
        covariance = self.doubt * scores @ scores[tried].T
        covariance = covariance + self.residual * np.exp(-differing / self.length)
        own = covariance[tried] + self.noise * np.eye(len(tried))
        one = np.ones(len(tried))
        less = normal_scores(values) - prior[tried]
        of_one, of_less = np.linalg.solve(own, np.stack([one, less], 1)).T
        offset = (one @ of_less) / (one @ of_one)
        return prior + offset + covariance @ (of_less - offset * of_one)


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Normal scores of ranks in each column (van der Waerden): the larger, the higher.

    Equal values share theirs; a single one has 0.
    """
    return ndtri((np.apply_along_axis(_ranks, 0, values) - 0.5) / len(values))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks [N] from 1, equal values their mean; importing scipy.stats takes two seconds."""
    ordered = np.sort(values)
    below, with_equal = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return (below + with_equal + 1) / 2
