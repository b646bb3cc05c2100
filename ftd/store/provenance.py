"""What decided a result besides its inputs and seeds: settings, method, plugins, packages."""

import platform
from contextlib import suppress
from importlib import metadata
from typing import TYPE_CHECKING

import ftd

if TYPE_CHECKING:
    from pydantic import BaseModel

_PACKAGES = ("numpy", "scipy", "torch", "torchvision", "scikit-learn", "scikit-image", "pillow")
_PACKAGES += ("pyarrow", "pandas", "safetensors")


def record(
    stage: str, version: int, settings: "BaseModel | dict", parts: dict[str, str] | None = None
) -> dict:
    """What decided a stage's result besides its inputs and seeds, for the facts beside it.

    Args:
        version: of the stage's method.
        settings: those that it used.
        parts: SHA-256 of the plugins that its parts come from, by the part's name.
    """
    return {
        "stage": stage,
        "settings": settings if isinstance(settings, dict) else settings.model_dump(mode="json"),
        "version": version,
        "packages": packages(),
    } | ({"parts": parts} if parts else {})


def packages() -> dict[str, str]:
    """Versions of Python, ftd and those of the packages that decide results that are installed."""
    found = {"python": platform.python_version(), "ftd": ftd.__version__}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
