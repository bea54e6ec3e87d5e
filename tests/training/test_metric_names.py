"""The page on training names what runs log, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bases_on_the_spot import make_base
from dlm.recipe import PreferenceRecipe, Recipe
from dlm.training import prepare_preference, score_held_out, score_monitors
from phase_runs import PAIRS, ROWS, chat, prepared_for, run, started

pytestmark = pytest.mark.torch

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
OF_HELD_OUT_PAIRS = re.compile(r"(?:full_valid|valid|pairs)_(.*)")
AT_THE_END = {"probe_exact_match"}  # logged by the workflow, which asks the probes


def named() -> set[str]:
    """Metric names in the table."""
    section = PAGE.read_text(encoding="utf-8").partition("\n## Metrics\n")[2].partition("\n## ")[0]
    return {
        name
        for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        for name in re.findall("`(.*?)`", row)
    }


def logged(base: Path, folder: Path) -> set[str]:
    """Metrics of a step of every phase, and of its end."""
    recipe, found = Recipe(max_steps=1), set()
    runs = [prepared_for(phase, base, recipe, folder) for phase in ("sft", "preference", "reward")]
    policy, model = started(base, recipe)
    rows = [*ROWS, chat("Which?", "This one.", 90, probe=True)]
    orpo = PreferenceRecipe(method="orpo")
    prepared = prepare_preference(PAIRS, rows, policy, model, recipe, orpo, folder)
    for number, (one, _, moved) in enumerate([*runs, (prepared, policy, model)]):
        found |= run(one, moved, recipe, folder / str(number)).history[1].keys()
        found |= {*score_held_out(one, moved), *score_monitors(one, moved)}
    return found


def test_the_page_names_what_is_logged(tmp_path: Path) -> None:
    names, found = named(), logged(make_base(tmp_path / "llama", "llama"), tmp_path / "folder")
    assert names - found == AT_THE_END
    known = names | {name.removeprefix("train_") for name in names}
    unnamed = {name for name in found - names if not _is_a_step_s(name, known)}
    assert unnamed == set()


def _is_a_step_s(name: str, known: set[str]) -> bool:
    """Whether held-out pairs are asked for something that a step logs, as the page says below its table."""
    found = OF_HELD_OUT_PAIRS.fullmatch(name)
    return found is not None and found[1] in known
