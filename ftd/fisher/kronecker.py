"""Kronecker-factored Fisher information, and the Fréchet distance of two of them.

Beside the exact diagonal, each linear layer and each ungrouped convolution has factors A (of its
inputs, the bias as one more input that is 1) and B (of its output's gradients); A ⊗ B stands for
the layer's block, rescaled to the trace of its exact diagonal (KFAC-expand: Martens and Grosse
2015, Eschenhagen et al. 2023). Everything else, normalisation layers among it, stays diagonal.
"""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from ftd.fisher import convolutions, layers
from ftd.fisher.batches import Batches
from ftd.fisher.engine import Diagonal, fisher_diagonal
from ftd.fisher.estimators import LabelsOf, Spread
from ftd.fisher.general import Loss

Information = dict[str, torch.Tensor]


def information(
    model: nn.Module,
    batches: Batches,
    *,
    loss: Loss,
    estimator: str = "empirical",
    labels_of: LabelsOf | None = None,
    check: str | bool = "first",
    spread: Spread | None = None,
) -> Information:
    """The Fisher diagonal, and ``<layer>:A`` [I, I] and ``<layer>:B`` [O, O] beside it, float64.

    Arguments and errors are those of ``fisher_diagonal``. Factors are sums over positions and
    means over samples; only their shape matters, their scale is that of the diagonal.
    """
    formulas = {
        kind: replace(layers.FORMULAS[kind], squares=squares)
        for kind, squares in ((nn.Linear, _linear), (nn.Conv2d, _conv2d))
    }
    same = {"estimator": estimator, "labels_of": labels_of, "check": check, "spread": spread}
    return fisher_diagonal(model, batches, loss=loss, formulas=formulas, **same)


def _linear(
    layer: nn.Linear, x: torch.Tensor, g: torch.Tensor, units: int, budget: int
) -> layers.Squares:
    found = layers.linear(layer, x, g, units, budget)
    return found | _factors(layer, x.reshape(-1, layer.in_features), g)


def _conv2d(
    layer: nn.Conv2d, x: torch.Tensor, g: torch.Tensor, units: int, budget: int
) -> layers.Squares:
    found = convolutions.convolution(layer, x, g, units, budget)
    if layer.groups > 1:
        return found
    size = math.prod(layer.kernel_size)
    for xs, gs in zip(x.split(-(-len(x) // size)), g.split(-(-len(x) // size)), strict=True):
        inputs = convolutions.unfolded(layer, xs)
        factors = _factors(layer, inputs.reshape(-1, inputs.shape[-1]), gs.movedim(1, -1))
        for key, value in factors.items():
            found[key] = found[key] + value if key in found else value
    return found


def _factors(layer: nn.Module, x: torch.Tensor, g: torch.Tensor) -> layers.Squares:
    if layer.bias is not None:
        x = F.pad(x, (0, 1), value=1.0)
    g = g.reshape(-1, g.shape[-1])
    return {"A": x.T @ x, "B": g.T @ g}


def diagonal_of(information: Information) -> Diagonal:
    """The entries that belong to parameters."""
    return {name: value for name, value in information.items() if ":" not in name}


def layer_of(name: str) -> str:
    """The layer that an entry belongs to: ``body.0`` of ``body.0.weight`` and of ``body.0:A``."""
    return name.partition(":")[0] if ":" in name else name.rpartition(".")[0] or name


def layers_of(information: Information) -> list[str]:
    """The layers that entries belong to, in the network's order."""
    return list(dict.fromkeys(map(layer_of, information)))


def contributions(f_ab: Information, f_bb: Information) -> dict[str, float]:
    """Each layer's share of d² = ½ Tr(F₁ + F₂ − 2 (F₁^½ F₂ F₁^½)^½), block by block.

    Diagonals are of unit trace over the network; shapes agree. The root of a block of factors is
    the product of its factors' roots, and its trace the product of their traces. A layer without
    factors is a diagonal block: ½ Σ (√F₁ − √F₂)².
    """
    found: dict[str, float] = {}
    for layer in layers_of(f_ab):
        names = [name for name in diagonal_of(f_ab) if layer_of(name) == layer]
        if f"{layer}:A" in f_bb:
            first, second = (float(sum(f[name].sum() for name in names)) for f in (f_ab, f_bb))
            fidelity = 1.0
            for factor in "AB":
                fidelity *= _fidelity(f_ab[f"{layer}:{factor}"], f_bb[f"{layer}:{factor}"])
            found[layer] = 0.5 * (first + second) - (first * second) ** 0.5 * fidelity
        else:
            roots = ((f_ab[name].double().sqrt(), f_bb[name].double().sqrt()) for name in names)
            found[layer] = sum(0.5 * float((one - two).square().sum()) for one, two in roots)
    return found


def _fidelity(first: torch.Tensor, second: torch.Tensor) -> float:
    """Tr (X^½ Y X^½)^½ = ‖X^½ Y^½‖_* of two matrices scaled to unit trace; 0 if one is 0."""
    roots = []
    for matrix in (first, second):
        trace = matrix.trace()
        if trace == 0:
            return 0.0
        values, vectors = torch.linalg.eigh(matrix / trace)
        roots.append((vectors * values.clamp_min(0).sqrt()) @ vectors.T)
    return min(1.0, float(torch.linalg.svdvals(roots[0] @ roots[1]).sum()))
