"""The house from outside: every room's surface is what it says, and no room stands empty."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import dlm

pytestmark = pytest.mark.torch
ROOMS = sorted(module.name for module in pkgutil.iter_modules(dlm.__path__, "dlm.") if module.ispkg)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_hands_on_what_it_names(room: str) -> None:
    module = importlib.import_module(room)
    assert module.__doc__
    for name in getattr(module, "__all__", ()):
        assert hasattr(module, name), f"{room}.{name}"
    assert list(pkgutil.iter_modules(module.__path__)), f"{room} is empty"


def test_every_module_says_what_it_offers() -> None:
    for found in pkgutil.walk_packages(dlm.__path__, "dlm."):
        if found.ispkg or found.name == "dlm.__main__":
            continue
        module = importlib.import_module(found.name)
        assert module.__doc__, found.name
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{found.name}.{name}"
