"""Which libraries a run computed with: kept with it, so that a difference can be explained."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["library_versions"]

_LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")


def library_versions() -> dict[str, str]:
    """Name → version of what results depend on."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
