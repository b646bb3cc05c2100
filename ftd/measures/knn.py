"""kNN: the accuracy of the nearest neighbours among the other images, by the source's features.

After Cover and Hart, *Nearest neighbor pattern classification*, 1967, and, as a check of
representations, Wu, Xiong, Yu and Lin, *Unsupervised Feature Learning via Non-Parametric Instance
Discrimination*, CVPR 2018: each image is left out, its five most similar others by the cosine of
their features vote; of labels with as many votes, the one whose voters are more similar wins.

Range: [0, 1]. Higher is nearer. Cost: a forward pass, and similarities [N, N].
"""

import torch
import torch.nn.functional as F

from ftd.measures.of_seen import OfSeen, expect_two_labels, one_hot

NEIGHBOURS = 5
_ROWS = 1024


def knn(features: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of images whose label their neighbours say, in [0, 1].

    Args:
        features: float32 [N, F]; a row of zeros is at cosine 0 from all.
        labels: int64 [N].

    Raises:
        UserError: one label alone.
    """
    expect_two_labels(labels)
    x, y = F.normalize(features.double()), one_hot(labels)
    neighbours = min(NEIGHBOURS, len(x) - 1)
    right = 0
    for rows in torch.arange(len(x)).split(_ROWS):
        cosines = x[rows] @ x.T
        cosines[torch.arange(len(rows)), rows] = -torch.inf
        near, at = cosines.topk(neighbours)
        # Similarities decide between equal votes alone: all together they are less than one.
        votes = ((1 + near / (2 * NEIGHBOURS + 1))[..., None] * y[at]).sum(1)
        right += int((votes.argmax(1) == y[rows].argmax(1)).sum())
    return right / len(x)


KNN = OfSeen(lambda seen: knn(seen.features, seen.labels))
