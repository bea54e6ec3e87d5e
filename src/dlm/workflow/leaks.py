"""What is trained on although versions are proven on it: a score on it says nothing."""

from __future__ import annotations

from collections.abc import Sequence

from dlm.errors import DlmError
from dlm.evaluation import read_suite
from dlm.workflow.material import Material
from dlm.workflow.views import Phase, TrainView

__all__ = ["warn_of_leaks"]

_SHOWN = 3


def warn_of_leaks(material: Material, phases: Sequence[Phase], view: TrainView) -> None:
    """Name what these phases train on of the cases of the document's suites: its own rows and pairs, those of files, those of
    the store. (Prompts of the rft phase that prove versions are refused where they are read; of probes the document warns.)
    """
    trained = _trained(material, phases)
    for name in material.document.header.evals if trained else ():
        try:
            suite = read_suite(material.document, material.path.parent, name)
        except DlmError as error:
            view.warn(
                f"whether anything trained on is a case of the suite {name} is not known: {error.message}"
            )
            continue
        prompts = set() if suite.practice else {case.prompt.strip() for case in suite.cases}
        places = [place for prompt, place in trained if prompt.strip() in prompts]
        if places:
            more = f" and {len(places) - _SHOWN:,} more" if len(places) > _SHOWN else ""
            view.warn(
                f"versions are proven on what is trained on: cases of the suite {name} stand at "
                f"{', '.join(places[:_SHOWN])}{more}; what they score there after this says nothing"
            )


def _trained(material: Material, phases: Sequence[Phase]) -> list[tuple[str, str]]:
    """Prompts with their places."""
    found: list[tuple[str, str]] = []
    if "sft" in phases:
        found += [
            (row.prompt, row.place) for row in material.rows if row.prompt is not None and not row.probe
        ]
    if "preference" in phases or "reward" in phases:
        found += [(pair.prompt, f"{pair.origin}:{pair.line}") for pair in material.pairs if not pair.reverted]
    if "reward" in phases:
        found += [(one.prompt, f"{one.origin}:{one.line}") for one in material.scalars]
    return found
