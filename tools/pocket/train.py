"""Train pocket from scratch, resumable, and write it into the package.

    python -m tools.pocket.train [--steps N] [--fresh] [--threads N] [--no-publish]

Work files go to `tools/pocket/work/`; the finished checkpoint goes to `src/dlm/bases/pocket/`. A killed run
goes on where it last saved. The rate is constant to two thirds of the run, then falls linearly to zero.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from tools.pocket import checkpoint
from tools.pocket.muon import Muon
from tools.pocket.network import check_forward, make_model, pack_loss
from tools.pocket.packing import PackReader
from tools.pocket.probe import probe
from tools.pocket.tokenizer import train_tokenizer, write_tokenizer

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "tools" / "pocket" / "work"
POCKET = ROOT / "src" / "dlm" / "bases" / "pocket"
SEED = 7
STEPS = 8800
PACK_TOKENS = 4096
MATRIX_RATE, VECTOR_RATE = 0.02, 4e-3
WARMUP_STEPS, CONSTANT_UNTIL = 60, 0.66
SAVE_EVERY, PROBE_EVERY, SAY_EVERY = 250, 500, 50


def rate_factor(step: int, steps: int) -> float:
    """The learning rate at a step as a share of its peak."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    progress = step / steps
    return 1.0 if progress < CONSTANT_UNTIL else (1 - progress) / (1 - CONSTANT_UNTIL)


def _tokenizer() -> Tokenizer:
    file = WORK / "tokenizer" / "tokenizer.json"
    if not file.exists():
        write_tokenizer(train_tokenizer(), file.parent)
    return Tokenizer.from_file(str(file))


def _write_curve(curve: list[dict[str, Any]]) -> None:
    fresh = WORK / "curve.json.new"
    fresh.write_text(json.dumps(curve, indent=1), encoding="utf-8")
    fresh.replace(WORK / "curve.json")


def train(steps: int, publish: bool) -> None:
    """Run or resume the training to `steps` optimiser steps."""
    tokenizer = _tokenizer()
    named = {
        f"{name}_token_id": tokenizer.token_to_id(token)
        for name, token in (("pad", "<|pad|>"), ("bos", "<|bos|>"), ("eos", "<|end|>"))
    }
    model = make_model(tokenizer.get_vocab_size(), SEED, **named)
    matrices = [
        p
        for name, p in model.named_parameters()
        if p.ndim == 2 and "embed" not in name and "lm_head" not in name
    ]
    vectors = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(vectors, lr=VECTOR_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    state = checkpoint.load_state(WORK / "checkpoint", model, muon, adam)
    if state is None:
        state = {"step": 0, "number": 0, "tokens": 0, "seconds": 0.0, "curve": []}
        worst = check_forward(model, PackReader(tokenizer, PACK_TOKENS, 0).next(0.0))
        if worst > 1e-3:
            raise RuntimeError(f"the training forward pass differs from the library's by {worst:.2e}")
    reader = PackReader(tokenizer, PACK_TOKENS, state["number"])
    print(
        f"pocket: {sum(p.numel() for p in model.parameters()):,} parameters, step {state['step']} of {steps}",
        flush=True,
    )
    began, spent_before, losses = time.monotonic(), state["seconds"], []
    for step in range(state["step"], steps):
        model.train()
        pack = reader.next(step / steps)
        loss, shown = pack_loss(model, pack, torch.bfloat16)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vectors, 1.0)
        factor = rate_factor(step, steps)
        muon.step(MATRIX_RATE * factor)
        for group in adam.param_groups:
            group["lr"] = VECTOR_RATE * factor
        adam.step()
        model.zero_grad(set_to_none=True)
        if not math.isfinite(shown):
            raise RuntimeError(f"the loss at step {step} is {shown}")
        losses.append(shown)
        seconds = spent_before + time.monotonic() - began
        state |= {
            "step": step + 1,
            "number": reader.number,
            "tokens": state["tokens"] + len(pack.ids),
            "seconds": seconds,
        }
        if (step + 1) % SAY_EVERY == 0 or step + 1 == steps:
            left = seconds / (step + 1) * (steps - step - 1)
            print(
                f"step {step + 1}/{steps}  loss {sum(losses) / len(losses):.4f}  {state['tokens'] / seconds:,.0f} tokens/s  {state['tokens'] / 1e6:.1f}M tokens  {left / 60:.0f} min left",
                flush=True,
            )
            state["curve"].append(
                {
                    "step": step + 1,
                    "tokens": state["tokens"],
                    "seconds": round(seconds),
                    "loss": round(sum(losses) / len(losses), 4),
                }
            )
            losses = []
        if (step + 1) % PROBE_EVERY == 0 or step + 1 == steps:
            model.eval()
            scores = probe(model, tokenizer, step / steps > 0.4)
            print(f"  {json.dumps(scores)}", flush=True)
            state["curve"][-1] |= scores
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            checkpoint.save_state(WORK / "checkpoint", model, muon, adam, state)
            _write_curve(state["curve"])
    if publish:
        checkpoint.publish(model, tokenizer, POCKET)
        print(f"written to {POCKET.relative_to(ROOT)}")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="optimiser steps of about 4,000 tokens")
    parser.add_argument("--fresh", action="store_true", help="discard an unfinished run")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--no-publish", action="store_true", help="leave the package's checkpoint alone")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.fresh:
        shutil.rmtree(WORK / "checkpoint", ignore_errors=True)
    train(given.steps, not given.no_publish)


if __name__ == "__main__":
    main()
