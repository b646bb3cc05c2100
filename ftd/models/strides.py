"""1×1 convolutions with a stride, computed so that their gradients are right on a CPU.

For the gradient of such ones with fewer than 8 input channels (16 with AVX-512) that come last in
memory, oneDNN writes where it must not (uxlfoundation/oneDNN#6035, PyTorch 2.14): the program ends,
or weights are wrong.
"""

from functools import partial

import torch
from torch import nn

_BLOCK = 16


def without_narrow_strides(module: nn.Module) -> nn.Module:
    """The module, whose 1×1 convolutions of few channels have no stride.

    They are given every so-manieth pixel, by a hook: the same numbers. Parameters keep their names.
    """
    for layer in module.modules():
        if type(layer) is nn.Conv2d and _is_narrow(layer):
            layer.register_forward_pre_hook(partial(_thinned, layer.stride))
            layer.stride = (1, 1)
    return module


def _is_narrow(layer: nn.Conv2d) -> bool:
    plain = layer.kernel_size == (1, 1) and layer.padding in ((0, 0), "valid")
    return plain and layer.groups == 1 and layer.in_channels < _BLOCK and max(layer.stride) > 1


def _thinned(stride: tuple[int, int], layer: nn.Module, inputs: tuple) -> tuple[torch.Tensor, ...]:
    image, *others = inputs
    return image[..., :: stride[0], :: stride[1]], *others
