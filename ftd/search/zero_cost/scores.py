"""Scores of an untrained network: the larger, the better it is expected to be."""

import copy

import torch
from torch import nn

CORRELATION = 1e-5
"""What ``jacobian_covariance`` adds to eigenvalues (Mellor et al. 2021)."""
MIXED = 1e-2
"""By how much ``zen`` disturbs its input (Lin et al. 2021)."""


def synflow(net: nn.Module, images: torch.Tensor, generator: torch.Generator) -> float:
    """log Σ |w · ∂R/∂w| (Tanaka et al. 2020; as a score, Abdelfattah et al. 2021).

    R: the sum of the outputs for an image of ones, with all weights replaced by their magnitude and
    without batch norms, in double precision. The logarithm keeps it finite and the order.

    Args:
        images: for their shape alone.
    """
    linear = _without_batch_norm(copy.deepcopy(net)).double()
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.abs_()
    linear(torch.ones_like(images[:1], dtype=torch.float64)).sum().backward()
    flow = sum(
        float((parameter * parameter.grad).detach().abs().sum())
        for parameter in linear.parameters()
        if parameter.grad is not None
    )
    return float(torch.tensor(flow, dtype=torch.float64).log())


def _without_batch_norm(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.Identity())
        else:
            _without_batch_norm(child)
    return module


def jacobian_covariance(net: nn.Module, images: torch.Tensor, generator: torch.Generator) -> float:
    """−Σ (log(λ + k) + 1 / (λ + k)), λ: eigenvalues of the correlation of images' Jacobians.

    Mellor et al. 2021, first version. A Jacobian: the gradient of the sum of an image's outputs by
    its pixels, batch norms in the batch's own statistics.
    """
    given = images.clone().requires_grad_()
    net.train()
    (jacobian,) = torch.autograd.grad(net(given).sum(), given, materialize_grads=True)
    correlation = torch.corrcoef(jacobian.flatten(1).double())  # none, where outputs are constant
    if not correlation.isfinite().all():
        return float("nan")
    values = torch.linalg.eigvalsh(correlation).clamp(min=0) + CORRELATION
    return -float((values.log() + 1 / values).sum())


@torch.no_grad()
def zen(net: nn.Module, images: torch.Tensor, generator: torch.Generator) -> float:
    """log E‖f(x + αε) − f(x)‖ + Σ log σ (Lin et al. 2021).

    f: the maps before the head, of Gaussian weights and inputs x and ε, batch norms in the batch's
    own statistics; σ: each batch norm's root mean variance, which it divides by. The norm is the
    mean over images of the sum of magnitudes.

    Args:
        net: a ``Stack``.
        images: for their shape alone.
    """
    gaussian = copy.deepcopy(net).train()
    for module in gaussian.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.copy_(torch.randn(module.weight.shape, generator=generator))
    seen: list[torch.Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        for module in gaussian.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    one, other = (torch.randn(images.shape, generator=generator).to(images) for _ in range(2))
    first = gaussian.features(one)
    for hook in hooks:
        hook.remove()
    second = gaussian.features(one + MIXED * other)
    distance = (first - second).abs().flatten(1).sum(1).mean()
    scales = [values.var((0, 2, 3), unbiased=False).mean().sqrt() for values in seen]
    return float(distance.log() + sum(scale.log() for scale in scales))
