"""Other packages' sums of squared per-sample gradients, to measure ours beside.

Each works on a copy of the network, changed where the package could not run at all; the packages
themselves are taken as they are. What one cannot take, it says by an error of its own.
"""

import copy
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import nn

from ftd.runtime.progress import log

Squares = Callable[[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]
"""(images, labels) → sums over the images of the squares of each one's gradients, by parameter."""
Way = Callable[[nn.Module], Squares]


def installed() -> dict[str, Way]:
    """Those that are there, by name; a line in the log for each that is not."""
    found = {}
    for name, (module, package, way) in RIVALS.items():
        if find_spec(module):
            found[name] = way
        else:
            log(f"{name} is not installed: left out (pip install {package})")
    return found


def versions() -> dict[str, str]:
    """Of the packages that are there."""
    there = {package for module, package, _ in RIVALS.values() if find_spec(module)}
    return {package: metadata.version(package) for package in sorted(there)}


# Copies that they can work on ------------------------------------------------------------------


class _Copy(nn.Module):
    """So that what follows, e.g. torchvision's ``out += identity``, does not change a norm's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clone()


class _Norm(nn.Module):
    """A batch norm in evaluation mode, without the buffers that Opacus refuses."""

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.statistics = norm.running_mean, norm.running_var

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x, *self.statistics, self.weight, self.bias, eps=self.eps)


def _twin(model: nn.Module, norm: Callable[[nn.Module], nn.Module] | None = None) -> nn.Module:
    """A copy whose layers' outputs stay as they were; ``norm``: what each batch norm becomes."""
    twin = copy.deepcopy(model)
    for parent in list(twin.modules()):
        if isinstance(parent, nn.ReLU):
            parent.inplace = False
        for name, layer in list(parent.named_children()):
            if norm and isinstance(layer, nn.BatchNorm2d):
                setattr(parent, name, nn.Sequential(norm(layer), _Copy()))
    return twin


def _by_name(
    model: nn.Module, twin: nn.Module, found: Callable[[nn.Parameter], torch.Tensor]
) -> dict[str, torch.Tensor]:
    names = dict(model.named_parameters())
    return {name: found(own) for name, own in zip(names, twin.parameters(), strict=True)}


def _taken(parameter: nn.Parameter) -> torch.Tensor:
    """The sum over its per-sample gradients, which are let go of, as is its gradient."""
    gradients = parameter.grad_sample.square_()
    parameter.grad_sample = parameter.grad = None
    return gradients.sum(0)


# The packages, imported where they are used: not everyone has them -------------------------------


def _backpack(model: nn.Module) -> Squares:
    """BackPACK's SumGradSquared; its converter where layers are not torch's own."""
    from backpack import backpack, extend  # see above
    from backpack.extensions import SumGradSquared

    twin = _twin(model)
    plain = all(type(layer).__module__.startswith("torch.nn") for layer in twin.modules())
    twin = extend(twin, use_converter=not plain)
    loss_of = extend(nn.CrossEntropyLoss(reduction="sum"))

    def squares(images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        with backpack(SumGradSquared()):
            loss_of(twin(images), labels).backward()
        return _by_name(model, twin, lambda parameter: parameter.sum_grad_squared)

    return squares


def _opacus(model: nn.Module) -> Squares:
    """Opacus' GradSampleModule.

    Its hooks look away in evaluation mode, so layers with parameters are said to train; batch
    norms, which it refuses, go through its general way as layers that do not depend on the mode.
    It takes convolutions' tensors for contiguous ones, and is wrong, silently, where they are not.
    """
    from opacus import GradSampleModule  # see above

    twin = _twin(model, _Norm).to(memory_format=torch.contiguous_format)
    for layer in twin.modules():
        layer.training = any(True for _ in layer.parameters(recurse=False))
    wrapped = GradSampleModule(twin, loss_reduction="sum")

    def squares(images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = wrapped(images.contiguous())
        F.cross_entropy(outputs, labels, reduction="sum").backward()
        return _by_name(model, twin, _taken)

    return squares


def _nngeometry(model: nn.Module) -> Squares:
    """nngeometry's PMatDiag of the log-likelihood of the data's labels: the empirical Fisher.

    Its own helpers make that of drawn labels, or of all. It works on contiguous tensors alone,
    and counts a grouped convolution's parameters as an ordinary one's.
    """
    from nngeometry.backend import TorchHooksJacobianBackend  # see above
    from nngeometry.layercollection import LayerCollection
    from nngeometry.object import PMatDiag

    twin = _twin(model).to(memory_format=torch.contiguous_format)
    layers = LayerCollection.from_model(twin)
    parameters = {
        f"{layer}.{name}": value
        for layer in layers.layers
        for name, value in twin.get_submodule(layer).named_parameters()
    }
    sizes = [value.numel() for value in parameters.values()]
    if layers.numel() != sum(sizes):
        raise ValueError("it does not know grouped convolutions")

    def likelihood(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.log_softmax(twin(images), dim=1).gather(1, labels[:, None])

    def squares(images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        generator = TorchHooksJacobianBackend(twin, likelihood, layer_collection=layers)
        found = PMatDiag(generator, examples=(images, labels)).get_diag()
        parts = zip(parameters.items(), (found * len(images)).split(sizes), strict=True)
        return {name: part.view(value.shape) for (name, value), part in parts}

    return squares


def _expanded(model: nn.Module) -> Squares:
    """torch's own expanded weights, of contiguous tensors; they have no batch norm."""
    from torch.nn.utils._per_sample_grad import call_for_per_sample_grads  # private: may go

    twin = _twin(model).to(memory_format=torch.contiguous_format)
    outputs_of = call_for_per_sample_grads(twin)

    def squares(images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        F.cross_entropy(outputs_of(images.contiguous()), labels, reduction="sum").backward()
        return _by_name(model, twin, _taken)

    return squares


def _asdl(model: nn.Module) -> Squares:
    """ASDL's diagonal of the empirical Fisher.

    Not exact: for a convolution of few positions it sums squares over positions, not the square
    of the sum. It takes no dilation.
    """
    import asdl  # see above

    twin = _twin(model, lambda norm: norm)
    config = asdl.FisherConfig(asdl.FISHER_EMP, [asdl.SHAPE_DIAG], data_size=1)
    maker = asdl.get_fisher_maker(twin, config)

    def squares(images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = maker.setup_model_call(twin, images)
        maker.setup_loss_call(F.cross_entropy, outputs, labels, reduction="sum")
        maker.forward_and_backward()
        found = {
            parameter: getattr(layer.fisher.diag, name)
            for layer in twin.modules()
            if hasattr(layer, "fisher")
            for name, parameter in layer.named_parameters(recurse=False)
        }
        return _by_name(model, twin, found.__getitem__)

    return squares


RIVALS: dict[str, tuple[str, str, Way]] = {
    "BackPACK": ("backpack", "backpack-for-pytorch", _backpack),
    "Opacus": ("opacus", "opacus", _opacus),
    "nngeometry": ("nngeometry", "nngeometry", _nngeometry),
    "expanded weights": ("torch.nn.utils._per_sample_grad", "torch", _expanded),
    "ASDL (not exact)": ("asdl", "asdfghjkl", _asdl),
}
"""By name: the module to import, the package on PyPI, the way."""
