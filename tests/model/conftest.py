"""The four bases on the spot, made once, and a policy of each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bases_on_the_spot import ARCHITECTURES, make_base, spec_of
from dlm.model import Policy, load_policy


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # tiny models lose time to threads


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {kind: make_base(root / kind, kind) for kind in ARCHITECTURES}


@pytest.fixture(scope="session")
def policies(bases: dict[str, Path]) -> dict[str, Policy]:
    return {kind: load_policy(spec_of(folder), device="cpu") for kind, folder in bases.items()}


@pytest.fixture(params=ARCHITECTURES)
def policy(request: pytest.FixtureRequest, policies: dict[str, Policy]) -> Policy:
    return policies[request.param]


@pytest.fixture
def llama(policies: dict[str, Policy]) -> Policy:
    return policies["llama"]
