"""`dlm train` under torchrun: two processes make the versions of one, and one of them speaks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bases_on_the_spot import make_base
from command_line import Cli, brevity_pairs
from dlm.document import render_preference

pytestmark = [pytest.mark.torch, pytest.mark.process]

ROWS = "".join(f"### Q\nWhat is number {i}?\n### A\nIt is {i * 7}.\n" for i in range(24))
PROBE = "### Q !probe\nWhich number is 3?\n### A\nIt is 21.\n"
HEADER = "---\ndlm_id: 01ARZ3NDEKTSV4RRFFQ69G5FAV\nbase_model: ./llama\n---\n"
# AdamW's default epsilon turns the rounding of sums in another order into steps of their own
KNOBS = ("--max-steps", "6", "--set", "layout=packed_shared", "--set", "adam_epsilon=1e-3", "--device", "cpu",
         "--set", "preference.learning_rate=1e-3", "--set", "preference.num_epochs=9")  # fmt: skip


def weights(cli: Cli) -> dict[str, dict[str, torch.Tensor]]:
    found = sorted(cli.home.glob("store/*/versions/*/adapter_model.safetensors"))
    return {path.parent.name: load_file(path) for path in found}


def in_two(cli: Cli, *args: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--standalone",
        "-m",
        "dlm",
        *args,
    ]
    return subprocess.run(
        command, cwd=cli.folder, env=cli.env, text=True, capture_output=True, timeout=300, check=False
    )


def test_two_processes_make_the_versions_of_one(cli: Cli, tmp_path: Path) -> None:
    make_base(cli.folder / "llama", "llama")
    body = f"::instruction::\n{ROWS}{PROBE}\n{render_preference(brevity_pairs())}\n"
    (cli.folder / "two.dlm").write_text(HEADER + body, encoding="utf-8")
    one = Cli(tmp_path / "one", cli.folder)
    one.run("train", "two.dlm", *KNOBS)
    done = in_two(cli, "train", "two.dlm", *KNOBS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("v0002 is current") == 1
    assert done.stderr.count("step 6/6") == 2  # of two phases, each told once
    expected, found = weights(one), weights(cli)
    assert expected.keys() == found.keys() == {"v0001", "v0002"}
    for name, tensors in expected.items():
        for key, tensor in tensors.items():
            assert torch.allclose(tensor, found[name][key], rtol=1e-4, atol=1e-6), (name, key)
    refused = in_two(cli, "train", "two.dlm", "--resume")
    assert refused.returncode != 0
    assert refused.stderr.count("no interrupted run") == 1


def test_pairs_of_a_later_phase_are_refused_by_all_processes(cli: Cli) -> None:
    """One that did not look would wait for the main process's first step, and die of its absence."""
    make_base(cli.folder / "llama", "llama")
    body = f"::instruction::\n{ROWS}\n{render_preference([('p', 'the same', 'the same')])}\n"
    (cli.folder / "equal.dlm").write_text(HEADER + body, encoding="utf-8")
    refused = in_two(cli, "train", "equal.dlm", *KNOBS)
    assert refused.returncode != 0
    assert "no pair can be trained on" in refused.stderr
    assert "or --phase sft" in refused.stderr
    assert "gloo" not in refused.stderr
