"""Probe networks and their common start.

All probes of one trial share one architecture and start from the same weights: the body is
built from the trial's seed alone, then the target puts on a head that it draws such that heads of
different sizes agree in what they share.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ftd.config.network_names import TORCHVISION, split_network
from ftd.errors import UserError
from ftd.models.bodies import torchvision_body
from ftd.models.strides import without_narrow_strides
from ftd.parts import NETWORKS, resolve
from ftd.tasks.targets import Target


def build(
    network: str, *, image_shape: tuple[int, int, int], target: Target, seed: int
) -> nn.Sequential:
    """A probe in its common start: images [B, C, H, W] → the target's outputs [B, outputs, …].

    Its parts are ``body`` (features) and ``head`` (the target's); its attribute ``pooled`` says
    whether a head for classes averages the features, as other heads on this body are to do too.

    Args:
        network: a registered one, such as ``resnet18``, with ``-x0.25`` behind it for a quarter
            of the channels, or ``torchvision-<model>``.
        image_shape: of the images, (channels, height, width), which is square.

    Raises:
        UserError: unknown network, one that fails, or one that does not take such images.
    """
    try:
        name, width = split_network(network)
    except ValueError as error:
        raise UserError(str(error)) from error
    channels, *size = image_shape
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's alone, which is put back
        if name.startswith(TORCHVISION):
            body, pooled = _torchvision(network, image_shape), True
        else:
            entry = NETWORKS.get(name)
            pooled = entry.pooled
            with _named(network, "cannot be built"):
                body = resolve(entry.build)(channels, size[0], width)
        head = target.head(_features(network, body, image_shape), tuple(size), pooled=pooled)
        _expect_kept(network, body)
    target.start(head, seed)
    probe = without_narrow_strides(nn.Sequential(OrderedDict(body=body, head=head)))
    probe.pooled = pooled
    return probe


def _torchvision(network: str, image_shape: tuple[int, int, int]) -> nn.Module:
    try:
        body, features = torchvision_body(network.removeprefix(TORCHVISION), image_shape[0])
    except (ValueError, ImportError) as error:
        raise UserError(f"network {network}: {error}") from error
    if _features(network, body, image_shape) != (features,):
        raise UserError(f"network {network}: its last linear layer is not its last step")
    return body


@torch.no_grad()
def _features(network: str, body: nn.Module, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Shape of a body's features of an image: (C, H, W) or (F,); its batch norms stay fresh."""
    _, height, width = image_shape
    with _named(network, f"no images of {height}×{width}"):
        shape = tuple(body.eval()(torch.zeros(1, *image_shape)).shape)
    body.train()
    if len(shape) not in (2, 4) or shape[0] != 1:
        raise UserError(
            f"network {network}: its body makes {shape} of one image; expected feature maps "
            "[1, C, H, W] or features [1, F]"
        )
    return shape[1:]


def _expect_kept(network: str, body: nn.Module) -> None:
    """Raises a ``UserError`` for a body whose state cannot be kept as tensors and put back."""
    state = body.state_dict()
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(
                f"network {network}: its state {name!r} is a {type(value).__name__}, but networks "
                "are kept as tensors; hold it in a buffer, or leave it out of the state"
            )
    with _named(network, "its state cannot be put back"):
        body.load_state_dict({name: value.clone() for name, value in state.items()})


@contextmanager
def _named(network: str, what: str) -> Iterator[None]:
    """Say which network it was; whatever a user's one raises is theirs to put right."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(f"network {network}: {what} ({type(error).__name__}: {reason})") from error
