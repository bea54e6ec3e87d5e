"""A home in a temporary folder, and adapters of a few bytes: the store never looks inside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlm.store import Home, RunSpec, Store, Version, VersionSpec

DLM_ID = "01J9Z3W5E8RT2Y4VQ7NDPXK6MA"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    with home.store(DLM_ID) as opened:
        yield opened


Publish = Callable[..., Version]


@pytest.fixture
def publish(store: Store) -> Publish:
    """Start a run, publish a version of it; `weights` is what its safetensors file holds."""

    def make(
        parent: str | None = None,
        *,
        promote: bool = True,
        weights: bytes = b"weights",
        run_id: int | None = None,
    ) -> Version:
        with store.lock("test"):
            run = store.runs.get(run_id) if run_id else store.runs.start(RunSpec("sft"))
            staging = store.versions.staging()
            (staging / "adapter_config.json").write_text("{}")
            (staging / "adapter_model.safetensors").write_bytes(weights)
            spec = VersionSpec(run.id, parent, "sft", 10, "pocket", "fingerprint", {"lora_r": 8}, "data")
            return store.versions.publish(staging, spec, promote, "test")

    return make
