"""NCE: how much the source's decisions leave open about the target's labels.

Tran, Nguyen and Hassner, *Transferability and Hardness of Supervised Classification Tasks*, ICCV
2019: the negative conditional entropy −H(Y | Z) of the target's labels Y given the source's Z,
which are here those that its network says (its largest outputs), as images of the target have no
others:

    NCE = 1/n Σ_i log (n(y_i, z_i) / n(z_i))

Range: (−∞, 0], from −log K of K labels; 0 for one label. Higher is nearer. Cost: a forward pass.
"""

import torch

from ftd.measures.of_seen import OfSeen, one_hot


def nce(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """−H(Y | Z) in nats, in [−log K, 0].

    Args:
        outputs: logits [N, C] of the source's C labels; the largest is Z, the first of equal ones.
        labels: the target's, Y, int64 [N].
    """
    counts = one_hot(labels).T @ one_hot(outputs.argmax(1))  # no column is empty
    return float(torch.xlogy(counts, counts / counts.sum(0)).sum() / len(labels))


NCE = OfSeen(lambda seen: nce(seen.outputs, seen.labels))
