"""LEEP: how well the source's outputs, taken as they are, predict the target's labels.

Nguyen, Hassner, Seeger and Archambeau, *LEEP: A New Measure to Evaluate Transferability of Learned
Representations*, ICML 2020, section 3. With θ(x) the softmax of the source's outputs:

    P(y, z) = 1/n Σ_{i: y_i = y} θ(x_i)_z,    LEEP = 1/n Σ_i log Σ_z P(y_i | z) θ(x_i)_z

Range: (−∞, 0]; 0 for one label. Higher is nearer. Cost: a forward pass.
"""

import torch

from ftd.measures.of_seen import OfSeen, one_hot


def leep(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """The mean logarithm of the expected empirical prediction, in (−∞, 0].

    Args:
        outputs: logits [N, C] of the source's C labels.
        labels: the target's, int64 [N].
    """
    shares = outputs.double().softmax(1)
    of_label = one_hot(labels)
    joint = of_label.T @ shares
    # A source's label that no image has a share in says nothing: 0 / 0.
    given = joint / joint.sum(0).clamp_min(torch.finfo(torch.float64).tiny)
    return float(((of_label @ given) * shares).sum(1).log().mean())


LEEP = OfSeen(lambda seen: leep(seen.outputs, seen.labels))
