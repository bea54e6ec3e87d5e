"""What a run says of itself against what its curves say: steps, repeats, stated finals."""

from __future__ import annotations

from dlm.curves.findings import Evidence, Final
from dlm.curves.thresholds import Thresholds
from dlm.curves.trend import Curve, mean_level
from dlm.curves.view import QUIET, Fires, Outcome, View, at_steps, number

__all__ = ["final_of", "more_steps_than_planned", "stated_final_differs", "steps_logged_twice"]

_TAIL = 0.1  # of a curve, that its smoothed end is the mean of
_STATED = {"final_loss": "train_loss", "final_token_accuracy": "train_accuracy"}
_WORDS = {"final_loss": "loss", "final_token_accuracy": "token accuracy"}


def final_of(curve: Curve) -> Final:
    """The last value beside the mean of the last tenth (at least five points), with its standard error."""
    count = min(len(curve), max(5, -(-len(curve) // 10)))
    tail = mean_level(Curve(curve.name, curve.steps[-count:], curve.values[-count:]))
    return Final(float(curve.values[-1]), tail.value, tail.error)


def more_steps_than_planned(view: View, t: Thresholds) -> Outcome:
    """More steps are logged, or stated, than were planned."""
    planned = view.run.planned_steps
    if not planned:
        return None
    stated = int(view.run.stated.get("steps", 0))
    rows = view.run.logged_rows if view.run.repeats else 0
    most = max(view.run.last_step, stated, rows)
    if most <= planned:
        return QUIET
    parts = [f"{planned} steps were planned"]
    parts += [f"{stated} are stated as done"] if stated > planned else []
    parts += [f"the last logged one is {view.run.last_step}"] if view.run.last_step > planned else []
    parts += [f"{rows} rows were logged"] if rows > planned else []
    epochs = view.run.stated.get("num_epochs")
    at_most = f"; rounding {number(epochs)} epochs up explains {int(epochs)} steps at most" if epochs else ""
    return Fires(
        "warn",
        f"{most} steps logged of {planned} planned",
        (Evidence(", ".join(parts) + at_most, "", (planned, most), (float(planned), float(most))),),
        "the log was probably appended to when the run was resumed: count each step once, and see from which step the"
        " weights really went on",
    )


def steps_logged_twice(view: View, t: Thresholds) -> Outcome:
    """Steps stand in the source more than once."""
    repeats = view.run.repeats
    if repeats is None:
        return QUIET if view.run.logged_rows else None
    return Fires(
        "warn",
        f"{repeats.steps} steps are logged more than once",
        (
            Evidence(
                f"steps {repeats.first} to {repeats.last}, {repeats.rows} rows too many; the last row of each was used",
                "",
                (repeats.first, repeats.last),
                (),
            ),
        ),
        "a resumed run logged again what it did again: let a step replace the one before it, or begin a new file",
    )


def stated_final_differs(view: View, t: Thresholds) -> Outcome:
    """A stated final figure is not where the curve ends, or is that of a single batch."""
    looked = False
    evidence = []
    for figure, role in _STATED.items():
        curve, value = view.curve(role), view.run.stated.get(figure)
        if curve is None or value is None or len(curve) < 5:
            continue
        looked = True
        final = final_of(curve)
        allowed = max(t.stated_difference * abs(final.smoothed), 3 * final.standard_error)
        if abs(value - final.smoothed) <= allowed:
            continue
        text = (
            f"{_WORDS[figure]} {number(value)} is stated; the curve's last tenth has {number(final.smoothed)}"
        )
        last = abs(value - final.last) <= 1e-3 * max(abs(value), abs(final.last))
        text += " (it is the last batch's)" if last and curve.noise > 0 else ""
        evidence.append(at_steps(text, curve, [-1]))
    if not evidence:
        return QUIET if looked else None
    return Fires(
        "warn",
        "a stated final figure is not where its curve ends",
        tuple(evidence),
        "compare runs by their smoothed ends; a last value is one batch and says little",
    )
