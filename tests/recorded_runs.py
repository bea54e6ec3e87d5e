"""Runs written into a store by hand: the shapes of real ones, in a fraction of a second and without torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from dlm.store import GateVerdict, RunSpec, Store, VersionSpec

__all__ = [
    "DLM_ID",
    "HOSTILE",
    "record_rft",
    "record_run",
    "record_runs",
    "record_verdict",
    "recorded_document",
    "values_of",
]

DLM_ID = "01J9Z3W5E8RT2Y4VQ7NDPXK6MA"
HOSTILE = '<script>document.title="owned"</script><img src=x onerror="document.title=1">\x1b[31mred\x1b[0m \u202eturned'


def recorded_document() -> str:
    return (
        f"---\ndlm_id: {DLM_ID}\ndlm_version: 15\nbase_model: pocket\n---\n\n::instruction::\n"
        "### Q\nHow do notes read?\n### A\nShort.\n### Q !probe\nWho reads notes?\n### A\nPeople.\n"
    )


def record_run(
    store: Store,
    kind: str = "sft",
    steps: int = 120,
    *,
    method: str = "",
    parent: str | None = None,
    status: str = "complete",
    saved: tuple[int, ...] = (),
    promote: bool = True,
    answer: str = "People who use it.",
) -> int:
    """One run with the metrics of its kind, and (complete) a version. Returns its number."""
    pairs = kind == "preference"
    with store.lock("dlm train notes.dlm"):
        recipe: dict[str, Any] = {"learning_rate": 2e-4 if pairs else 5e-3, "lora_r": 16, "seed": 42}
        if pairs:
            recipe["preference"] = {"beta": 0.1, "loss_type": "sigmoid"}
        run = store.runs.start(
            RunSpec(
                kind,
                method or ("dpo" if pairs else "sft"),
                recipe,
                parent,
                "data",
                "pocket",
                "fingerprint",
                planned_steps=steps,
                document_sha256="0" * 64,
            )
        )
        with store.metrics.writer(run.id) as writer:
            for step in range(1, steps + 1):
                writer.log(step, values_of(step, steps, pairs))
        for stage, text in (("start" if pairs else "base", HOSTILE), ("version", answer)):
            told = {
                "prompt": "Who reads notes?",
                "reference": "People.",
                "answer": text,
                "exact": False,
                "finish_reason": "stop",
            }
            store.runs.event(run.id, "probe_answers", {"stage": stage, "answers": [told]})
        for step in saved:
            _adapter(store.checkpoints(run.id) / f"step-{step:08d}")
        store.remember_checkpoints(run.id, saved)
        if status != "complete":
            store.runs.finish(
                run.id, status, "stopped by SIGTERM" if status == "interrupted" else "a loss was NaN"
            )
            return run.id
        staging = store.versions.staging()
        _adapter(staging)
        spec = VersionSpec(run.id, parent, kind, steps, "pocket", "fingerprint", recipe, "data")
        store.versions.publish(staging, spec, promote, "training completed, no gate declared")
    return run.id


def record_runs(store: Store) -> None:
    """SFT, then DPO on its version, then one that was interrupted."""
    record_run(store, saved=(60, 90, 120))
    record_run(store, "preference", 40, parent="v0001", saved=(20, 40))
    record_run(store, "sft", 30, status="interrupted", saved=(20,))


def record_rft(store: Store, steps: int = 6) -> int:
    """A reinforcement run; its last step learnt nothing, since no group's answers differed, and so has no loss."""
    with store.lock("dlm train notes.dlm --phase rft"):
        run = store.runs.start(RunSpec("rft", "grpo", {"seed": 42}, base="pocket", planned_steps=steps))
        with store.metrics.writer(run.id) as writer:
            for step in range(1, steps + 1):
                values = {
                    "train_mean_reward": 0.5 + 0.05 * step,
                    "completion_tokens_mean": 9.0 - step,
                    "train_sample_parse_error_count": float(step == 2),
                    "train_other_error_count": 0.0,
                    "mean_unresponsive_rewards": 0.25 * (step == 1),
                    "learning_rate": 2e-3,
                    "num_tokens": 100.0 * step,
                    "skipped_groups": 4.0 * (step == steps),
                }
                if step % 2 == 0:
                    values["full_valid_mean_reward"] = 0.4 + 0.1 * step
                if step < steps:
                    values |= {"train_loss": 1e-4 * step, "grad_norm": 0.5}
                writer.log(step, values)
        store.remember_checkpoints(run.id, (steps,))
        store.runs.finish(run.id, "complete")
        return run.id


def record_verdict(
    store: Store, candidate: str, verdict: str = "fail", baseline: str = "base"
) -> GateVerdict:
    """A gate's verdict with a condition that holds, one that does not, and one whose text would like to be markup."""
    status = {"pass": "PASS", "fail": "FAIL", "unreachable": "UNREACHABLE", "missing": "MISSING"}[verdict]
    difference = {"value": -0.125, "low": -0.25, "high": 0.0, "n": 8}
    numbers = {"metric": "tables.score", "value": 0.625, "baseline": 0.75, "ceiling": 1.0}
    none = dict.fromkeys(("value", "baseline", "needed", "ceiling", "difference"))
    conditions = [
        {"text": "tables.score >= 0.5", "status": "PASS", **numbers, "needed": 0.5, "difference": difference, "detail": ""},
        {"text": "tables.score >= 0.875", "status": status, **numbers, "needed": 0.875, "difference": difference, "detail": ""},
        {"text": HOSTILE, "status": "MISSING", "metric": "stress.score", **none, "detail": f"why: {HOSTILE}"},
    ]  # fmt: skip
    told = GateVerdict(
        candidate, baseline, verdict, f"of 3 conditions {HOSTILE}", "hash", {"conditions": conditions}
    )
    return store.evaluations.record_verdict(told)


def values_of(step: int, steps: int, pairs: bool = False) -> dict[str, float]:
    """What a run logs of a step."""
    done = step / steps
    wave = 0.05 * math.sin(step)
    values = {
        "train_loss": (0.69 if pairs else 2.0) * math.exp(-3 * done) + abs(wave),
        "train_mean_token_accuracy": 0.5 + 0.3 * done + wave / 5,
        "grad_norm": 2.0 - done + wave,
        "learning_rate": 2e-4 * (1 - done),
        "num_tokens": 100.0 * step,
        "tokens_per_second": 900.0,
    }
    if step % 10 == 0:
        values |= {
            "valid_loss": 0.8 * math.exp(-2 * done) + 0.2,
            "valid_mean_token_accuracy": 0.5 + 0.2 * done,
        }
    if pairs:
        values |= {
            "rewards/accuracies": min(1.0, 0.5 + done),
            "rewards/margins": 2 * done,
            "logps/chosen": -20 - done,
            "logps/rejected": -30 - 10 * done,
        }
    return values


def _adapter(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
