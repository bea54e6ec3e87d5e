"""The page on reinforcement fine-tuning names what its runs log, and every knob and flag that it speaks of exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bases_on_the_spot import make_base
from dlm.recipe import RftRecipe
from dlm.training import answer_held_out, score_monitors
from phase_runs import ROWS, chat
from rft_runs import RECIPE, prepared_rft, run_rft

pytestmark = pytest.mark.torch
PAGE = Path(__file__).parents[2] / "docs" / "rft.md"
OF_EVERY_PHASE = {"learning_rate", "epoch", "num_tokens", "tokens_per_second", "peak_memory_mb"}
SPARSE = {"flags/<flag>/train_share", "flags/<flag>/valid_share"}  # only where a grader sets flags


def named() -> set[str]:
    section = PAGE.read_text(encoding="utf-8").partition("\n## Metrics\n")[2].partition("\n## ")[0]
    return {
        name
        for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        for name in re.findall("`(.*?)`", row)
    }


def test_the_page_names_what_is_logged(tmp_path: Path) -> None:
    base = make_base(tmp_path / "llama")
    recipe = RECIPE.model_copy(update={"val_fraction": 0.3})
    rows = [*ROWS, chat("Which?", "This one.", 90, probe=True)]
    prepared, _, model = prepared_rft(base, rows=rows, recipe=recipe, steps=1)
    logged = {
        *run_rft(prepared, model, recipe, tmp_path / "run").history[1],
        *answer_held_out(prepared, model).values,
        *score_monitors(prepared, model),
    }
    general = {
        name.replace("test/letters/letters", "<type>/<name>/<dimension>").replace(
            "test/letters", "<type>/<name>"
        )
        for name in logged
    }
    unnamed = {name for name in general - named() if not name.endswith("_mean_token_accuracy")}
    assert unnamed == OF_EVERY_PHASE
    assert named() - general == SPARSE


def test_every_knob_that_the_page_speaks_of_exists() -> None:
    spoken_of = set(re.findall(r"`rft\.([a-z_]+)", PAGE.read_text(encoding="utf-8")))
    assert spoken_of <= set(RftRecipe.model_fields)
    assert len(spoken_of) > 8
