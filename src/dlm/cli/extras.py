"""Which optional parts of dlm are installed, found out without importing any of them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from dlm.errors import MissingExtraError

__all__ = ["TRAIN_PACKAGES", "install_train", "installed_versions", "require_training", "require_web"]

TRAIN_PACKAGES = ("torch", "transformers", "peft", "safetensors", "tokenizers")
WEB_PACKAGES = ("fastapi", "uvicorn", "jinja2", "multipart")

_INSTALL_TORCH = "pip install torch==2.13.0"
_INSTALL_EXTRA = "pip install 'dlm[train]'"
_INSTALL_SOURCE = "pip install '.[train]'"


def install_train() -> str:
    """What to type to get the training extra."""
    return (
        f"{_INSTALL_TORCH}   (first, where no GPU build is wanted), then: {_INSTALL_EXTRA}"
        f"   (from a source checkout: {_INSTALL_SOURCE})"
    )


def installed_versions(packages: tuple[str, ...] = TRAIN_PACKAGES) -> dict[str, str | None]:
    """Package name → installed version, None where it is missing."""
    found: dict[str, str | None] = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def require_training(command: str) -> None:
    """Call before importing anything that needs torch.

    Raises:
        MissingExtraError: a package of the training extra cannot be imported here.
    """
    missing = [name for name in TRAIN_PACKAGES if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{command} needs the training extra, which is not installed",
            found=f"no {', no '.join(missing)}",
            next_step=install_train(),
        )


def require_web(command: str) -> None:
    """Call before importing anything of the web room.

    Raises:
        MissingExtraError: a package of the web extra cannot be imported here.
    """
    missing = [name for name in WEB_PACKAGES if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{command} needs the web extra, which is not installed",
            found=f"no {', no '.join(missing)}",
            next_step="pip install 'dlm[web]'   (from a source checkout: pip install '.[web]')",
        )
