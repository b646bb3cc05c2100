"""Where a long job was when it was stopped: kept beside its result, gone with its end."""

import time
from pathlib import Path

import torch
from torch import nn

from ftd import store
from ftd.errors import UserError
from ftd.runtime.progress import log

KEEP_EVERY = 60.0  # seconds of work that a kill may cost


class Resume:
    """A job's state on disk: networks, optimisers' moments, random state, and plain data.

    Args:
        path: the file; ``None`` keeps nothing.
        decides: all that decides the result; a state kept under other facts is not used.
    """

    def __init__(self, path: Path | None, decides: dict):
        self.path, self.decides = path, store.canonical(decides)
        self.kept = time.monotonic()

    @classmethod
    def beside(cls, result: Path, decides: dict) -> "Resume":
        """The state of the training that makes ``result``."""
        return cls(result.with_name(f"{result.stem}.resume"), decides)

    def load(
        self,
        models: dict[str, nn.Module],
        optimizers: dict[str, torch.optim.Optimizer],
        generator: torch.Generator,
    ) -> dict:
        """Put a kept state back; returns what ``keep`` got as ``done``, or nothing."""
        if self.path is None or not self.path.exists():
            return {}
        try:
            tensors, facts = store.read_tensors(self.path)
        except UserError as error:
            log(f"{error}; starting anew")
            return {}
        if facts.get("decides") != self.decides:
            return {}
        before = {k: v.clone() for k, v in _state(models, optimizers, generator).items()}
        try:
            _put_back(tensors, models, optimizers, generator)
            done = facts["done"]
        except (RuntimeError, ValueError, TypeError, LookupError) as error:
            reason = str(error).partition("\n")[0]
            log(f"{self.path}: not a state of this job ({reason}); starting anew")
            _put_back(before, models, optimizers, generator)
            return {}
        log(f"going on from {self.path}")
        return done

    def keep(
        self,
        models: dict[str, nn.Module],
        optimizers: dict[str, torch.optim.Optimizer],
        generator: torch.Generator,
        done: dict,
    ) -> None:
        """Write the state, unless it was written a moment ago. ``done`` is plain data."""
        if self.path is None or time.monotonic() - self.kept < KEEP_EVERY:
            return
        tensors = _state(models, optimizers, generator)
        store.write_tensors(self.path, tensors, {"decides": self.decides, "done": done})
        self.kept = time.monotonic()

    def done(self) -> None:
        """The result is written: forget the state."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _state(
    models: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Everything that a job's course depends on, by name."""
    tensors = {"random": generator.get_state(), "random_cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random_cuda"] = torch.cuda.get_rng_state()
    for name, model in models.items():
        tensors |= {f"model {name}.{key}": v for key, v in model.state_dict().items()}
    for name, optimizer in optimizers.items():
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer {name}.{index}.{key}": v for key, v in moments.items()}
    return tensors


def _put_back(
    tensors: dict[str, torch.Tensor],
    models: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
    generator: torch.Generator,
) -> None:
    """The opposite of ``_state``; names or shapes that do not fit are some built-in error."""
    for name, model in models.items():
        model.load_state_dict(_below(tensors, f"model {name}"))
    for name, optimizer in optimizers.items():
        moments = _below(tensors, f"optimizer {name}")
        state = optimizer.state_dict()
        state["state"] = {
            index: _below(moments, str(index))
            for index in {int(key.split(".")[0]) for key in moments}
        }
        _check_moments(optimizer, state["state"])
        optimizer.load_state_dict(state)
    generator.set_state(tensors["random"])
    torch.set_rng_state(tensors["random_cpu"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random_cuda"])


def _check_moments(optimizer: torch.optim.Optimizer, moments: dict[int, dict]) -> None:
    """``ValueError`` where a moment has not its parameter's shape: PyTorch takes any."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, named in moments.items():
        for name, value in named.items():
            if value.dim() and value.shape != parameters[index].shape:
                raise ValueError(f"shape of {name} {index}")


def _below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    start = f"{prefix}."
    return {key[len(start) :]: v for key, v in tensors.items() if key.startswith(start)}
