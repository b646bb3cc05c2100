"""Logistic regression on features: a head for a task on a body that stays as it is."""

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn

if TYPE_CHECKING:  # what this room only hands on
    from ftd.measures import Seen

STEPS = 200


def fit(
    features: torch.Tensor, labels: torch.Tensor, outputs: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and biases of the least mean cross entropy plus a penalty ‖s W‖² / 2N.

    s² is the features' mean square, so that their scale does not matter: scikit-learn's
    ``LogisticRegression`` with C = 1, of features divided by s. L-BFGS from zeros, ``STEPS`` at
    most.

    Args:
        features: float32 [N, F].
        labels: int64 [N] in [0, ``outputs``).
        outputs: how many labels there are; those that do not occur get small weights too.

    Returns:
        float32 [outputs, F] and [outputs].
    """
    scale = float(features.double().square().mean().sqrt()) or 1.0
    x = np.hstack([features.double().numpy() / scale, np.ones((len(features), 1))])
    y = np.eye(outputs)[labels.numpy()]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(outputs, -1)
        logits = x @ weights.T
        logits -= logits.max(1, keepdims=True)
        sums = np.exp(logits).sum(1)
        entropy = float(np.log(sums).mean() - (logits * y).sum() / len(x))
        penalised = weights * (np.arange(x.shape[1]) < x.shape[1] - 1) / len(x)  # not the biases
        slope = (np.exp(logits) / sums[:, None] - y).T @ x / len(x) + penalised
        return entropy + 0.5 * float((weights * penalised).sum()), slope.ravel()

    options = {"maxiter": STEPS, "gtol": 1e-6, "ftol": 1e-12}
    start = np.zeros(outputs * x.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    weights = torch.from_numpy(found.reshape(outputs, -1))
    return (weights[:, :-1] / scale).float(), weights[:, -1].float()


def with_head(model: nn.Module, seen: "Seen", outputs: int) -> nn.Module:
    """A copy of a network whose output layer is fitted to what it sees.

    Args:
        model: a network with a layer ``head.linear``, as those of classes have.
        seen: what it makes of the task's images, and their labels.
        outputs: how many labels the task has.
    """
    fitted = copy.deepcopy(model)
    weights, biases = fit(seen.features, seen.labels, outputs)
    linear = nn.Linear(weights.shape[1], outputs, device=fitted.head.linear.weight.device)
    with torch.no_grad():
        linear.weight.copy_(weights)
        linear.bias.copy_(biases)
    fitted.head.linear = linear
    return fitted.eval()
