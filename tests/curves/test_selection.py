"""Which checkpoint is chosen, for each kind of run."""

from __future__ import annotations

import pytest

from dlm.curves import Checkpoint, CurveRun, Thresholds, select
from made_curves import curves, falls, line, noisy


def sft(valid: dict[int, float], saved: tuple[int, ...] = (), **more: object) -> CurveRun:
    return curves("sft", train_loss=falls(50), valid_loss=valid, saved_steps=saved, **more)


@pytest.mark.parametrize(
    ("valid", "saved", "step", "saved_step"),
    [
        ({10: 2.0, 20: 1.0, 30: 1.5}, (10, 20, 30), 20, 20),
        ({10: 2.0, 20: 1.0, 30: 1.0}, (10, 20, 30), 20, 20),  # ties to the earlier
        ({10: 2.0, 25: 1.0, 40: 1.5}, (10, 20, 30), 25, 20),  # the saved step at or before it
        ({10: 1.0, 20: 2.0}, (15, 30), 10, None),  # nothing was saved by then
        ({10: 2.0, 20: 1.0}, (), 20, None),  # nobody says what was saved
        ({10: 2.0, 20: 0.0, 30: 0.1}, (10, 20, 30), 20, 20),
        ({10: float("nan"), 20: 1.0, 30: float("inf")}, (10, 20, 30), 20, 20),
    ],
)
def test_the_lowest_validation_loss(
    valid: dict[int, float], saved: tuple[int, ...], step: int, saved_step: int | None
) -> None:
    best = select(sft(valid, saved)).best
    assert best is not None
    assert (best.step, best.saved_step, best.role) == (step, saved_step, "lowest validation loss")


def test_a_later_saved_step_that_was_measured_lower_is_offered_besides() -> None:
    found = select(sft({20: 1.5, 30: 1.2, 40: 1.3}, (20, 40))).candidates
    assert [(one.saved_step, one.role) for one in found] == [
        (20, "lowest validation loss"),
        (40, "lowest measured saved step"),
    ]


def test_valid_loss_goes_before_full_valid_loss_and_the_other_is_mentioned() -> None:
    run = sft({10: 2.0, 20: 1.0, 30: 1.5}, full_valid_loss={10: 2.0, 30: 1.0})
    best = select(run).best
    assert best is not None
    assert best.step == 20
    assert "full_valid_loss, over all held-out rows, is lowest at step 30" in best.reason


def test_a_noisy_curve_is_smoothed_and_says_so() -> None:
    valid = noisy([*falls(30, 3, 1), *line(30, 1.0, 1.4)], 0.05)
    best = select(curves("sft", train_loss=falls(60), valid_loss=valid)).best
    assert best is not None
    assert 24 <= best.step <= 40
    assert "smoothed" in best.reason


def test_the_checkpoint_s_own_names_come_along() -> None:
    points = (Checkpoint(10, "ckpt_a", "ft:a"), Checkpoint(20, "ckpt_b", "ft:b"))
    best = select(sft({10: 2.0, 20: 1.0}, (10, 20), checkpoints=points)).best
    assert best is not None
    assert best.checkpoint == points[1]


def test_without_validation_it_is_the_last_and_says_why() -> None:
    selection = select(curves("sft", train_loss=falls(20), saved_steps=(10, 20)))
    assert selection.best is not None
    assert (selection.best.role, selection.best.saved_step) == ("final", 20)
    assert "no validation loss" in selection.reason
    assert select(CurveRun("empty", "sft", {})).candidates == ()


def pairs(accuracy: dict[int, float], **more: object) -> CurveRun:
    return curves(
        "preference",
        method="dpo",
        train_loss=falls(50),
        val_pref_acc=accuracy,
        saved_steps=(10, 20, 30, 40),
        **more,
    )


def test_pairs_are_chosen_by_accuracy() -> None:
    best = select(pairs({10: 0.6, 20: 0.8, 30: 0.7, 40: 0.6})).best
    assert best is not None
    assert (best.saved_step, best.role) == (20, "best held-out accuracy")


def test_of_equal_accuracies_the_larger_margin_then_the_smaller_change_of_length_then_the_earlier() -> None:
    accuracy = {10: 0.70, 20: 0.72, 30: 0.71, 40: 0.70}  # 64 pairs: ± .11
    margins = {10: 0.5, 20: 1.0, 30: 1.02, 40: 0.7}
    counted = {"full_valid_pairs": {40: 200.0}}
    by_margin = select(pairs(accuracy, valid_rewards__margins=margins, **counted)).best
    assert by_margin is not None
    assert by_margin.saved_step == 20  # 1.0 and 1.02 are equal within 5 %, and the earlier one wins
    lengths = {10: 100.0, 20: 180.0, 30: 101.0, 40: 200.0}
    by_length = select(
        pairs(accuracy, valid_rewards__margins=margins, completion_tokens_mean=lengths, **counted)
    ).best
    assert by_length is not None
    assert by_length.saved_step == 30
    assert "± 0.11 over 64 pairs" in by_length.reason
    alone = select(pairs(accuracy, **counted)).best
    assert alone is not None
    assert alone.saved_step == 10


def test_without_a_count_of_pairs_only_the_best_is_equal_to_itself() -> None:
    best = select(pairs({10: 0.70, 20: 0.72, 30: 0.71, 40: 0.70})).best
    assert best is not None
    assert best.saved_step == 20


def rft(valid: dict[int, float], tokens: dict[int, float]) -> CurveRun:
    return curves(
        "rft",
        train_mean_reward=line(40, 0.3, 0.7),
        full_valid_mean_reward=valid,
        completion_tokens_mean=tokens,
        saved_steps=(10, 20, 30, 40),
    )


def test_a_reward_never_decides_alone() -> None:
    found = select(rft({10: 0.4, 20: 0.5, 30: 0.7, 40: 0.6}, {10: 100, 20: 100, 30: 100, 40: 100}))
    assert [(one.saved_step, one.role) for one in found.candidates] == [
        (30, "peak validation reward"),
        (40, "final"),
        (20, "middle"),
    ]
    assert "try these on the task itself" in found.reason


def test_of_equal_rewards_the_shorter_answers() -> None:
    found = select(rft({10: 0.4, 20: 0.695, 30: 0.7, 40: 0.6}, {10: 100, 20: 110, 30: 300, 40: 320}))
    assert found.best is not None
    assert found.best.saved_step == 20
    assert "shortest answers" in found.best.reason
    assert [one.saved_step for one in found.candidates] == [20, 40]  # the middle is the same checkpoint


def test_without_validation_the_training_reward_peaks() -> None:
    run = curves("rft", train_mean_reward=[0.1, 0.5, 0.4, 0.3], saved_steps=(1, 2, 3, 4))
    found = select(run)
    assert found.best is not None
    assert (found.best.saved_step, found.best.role) == (2, "peak training reward")
    assert select(curves("rft", train_loss=falls(9))).best is not None


NAN = float("nan")


@pytest.mark.parametrize(
    ("train", "step", "saved_step", "role"),
    [
        (falls(40) + [NAN] * 60, 40, 30, "last sound step"),
        (falls(40) + [float("inf")] * 60, 40, 30, "last sound step"),
        ([*falls(50), NAN, *falls(49)], 100, 90, "final"),  # one overflow, and on
        (falls(40, 2, 1.2) + line(60, 1.4, 13), 40, 30, "lowest training loss"),
        (falls(40, 2, 1.2) + line(40, 1.4, 13) + [NAN] * 20, 40, 30, "lowest training loss"),
    ],
)
def test_no_checkpoint_of_broken_weights(train: list[float], step: int, saved_step: int, role: str) -> None:
    best = select(curves("sft", train_loss=train, saved_steps=(30, 90))).best
    assert best is not None
    assert (best.step, best.saved_step, best.role) == (step, saved_step, role)


def test_what_counts_as_divergence_is_the_thresholds_to_say() -> None:
    rising = curves("sft", train_loss=falls(40, 2, 1.2) + line(60, 1.4, 13), saved_steps=(30, 90))
    assert select(rising, Thresholds()) == select(rising)
    best = select(rising, Thresholds(divergence=50)).best
    assert best is not None
    assert (best.step, best.role) == (100, "final")


def test_without_a_finite_number_there_is_nothing_to_keep() -> None:
    assert select(curves("sft", train_loss=[NAN] * 9, valid_loss=[NAN] * 9)).candidates == ()
    assert (
        select(curves("rft", train_mean_reward=[NAN] * 9, full_valid_mean_reward=[0.5] * 9)).candidates == ()
    )


def test_the_middle_and_the_end_of_a_reward_are_of_its_finite_stretch() -> None:
    found = select(
        curves(
            "rft",
            train_mean_reward=line(60, 0.2, 0.4) + [NAN] * 40,
            full_valid_mean_reward={20: 0.3, 40: 0.4, 60: 0.3, 80: NAN, 100: NAN},
            saved_steps=(30, 60, 90),
        )
    )
    assert [(one.step, one.role) for one in found.candidates] == [
        (40, "peak validation reward"),
        (60, "last sound step"),
    ]  # the middle is step 30 as well, the saved step before the peak
