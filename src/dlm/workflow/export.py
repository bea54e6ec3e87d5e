"""Export: a version as a folder that stock PEFT and transformers load.

Without `merged` the folder is a PEFT adapter; where the base is the embedded one, which no hub knows, it is laid
beside the adapter in `base/`. With `merged` the folder is a complete model. A reward model is always written whole, as
a sequence classifier with one label. All carry a model card.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlm.bases import BaseSpec, resolve_base
from dlm.document import load
from dlm.errors import UsageError
from dlm.model import Policy, RewardModel, load_policy, load_reward_model, quiet_libraries
from dlm.recipe import ResolvedRecipe
from dlm.store import Home, Run, Version
from dlm.workflow.prompt import pick_version
from dlm.workflow.resuming import RunFacts

__all__ = ["ExportReport", "export"]


@dataclass(frozen=True)
class ExportReport:
    """What was written where, and the lines of Python that load it. `scores`: it is a reward model."""

    folder: Path
    version: str
    merged: bool
    scores: bool
    files: tuple[str, ...]
    usage: str


def export(
    document_path: Path, target: Path, *, wanted: str | None = None, merged: bool = False
) -> ExportReport:
    """Write a version to `target`, which must not exist or be empty.

    Raises:
        UsageError: the folder is in use, or there is no version to export.
    """
    document = load(document_path)
    store = Home.open().find(document.header.dlm_id)
    version = pick_version(store, wanted).value
    if version is None or store is None:
        raise UsageError(
            "no version to export: this document has not been trained", next_step=f"dlm train {document_path}"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError("the target folder is not empty", where=str(target), next_step="name a new folder")
    with store:
        run = store.runs.get(version.run_id)
    spec = resolve_base(version.base, document_path.parent)
    merged = merged or not version.answers
    try:
        usage = _write(document_path.stem, target, spec, version, run, merged=merged)
    except OSError as error:
        raise UsageError(
            f"the export cannot be written: {error.strerror or error}",
            where=str(error.filename or target),
            next_step="name a folder that can be made: --to DIR",
        ) from None
    files = tuple(sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()))
    return ExportReport(
        target, version.name, merged, not version.answers, files, usage.replace("FOLDER", str(target))
    )


def _write(name: str, target: Path, spec: BaseSpec, version: Version, run: Run, *, merged: bool) -> str:
    """Make the folder beside its place and move it there whole; returns the lines that load it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".dlm-export-") as scratch:
        folder = Path(scratch) / "out"
        folder.mkdir()
        # loaded in any case: what is exported has been seen to fit its base
        if version.answers:
            policy = load_policy(spec, version.folder, device="cpu", precision="fp32")
            write = _write_merged if merged else _write_adapter
            usage = write(folder, spec, version, policy)
            tokenizer, template = policy.tokenizer, policy.chat.template
        else:
            scorer = load_reward_model(version.folder, spec, device="cpu", precision="fp32")
            tokenizer, template = scorer.tokenizer, scorer.chat.template
            usage = _write_reward(folder, version, scorer)
        card = _card(name, spec, version, run, tokenizer, template, usage, merged)
        (folder / "README.md").write_text(card, encoding="utf-8")
        if target.exists():
            target.rmdir()
        folder.rename(target)
    return usage


def _write_adapter(folder: Path, spec: BaseSpec, version: Version, policy: Policy) -> str:
    for name in ("adapter_model.safetensors", "version.json"):
        shutil.copyfile(version.folder / name, folder / name)
    config = json.loads((version.folder / "adapter_config.json").read_text(encoding="utf-8"))
    base = spec.location
    if spec.kind == "embedded":
        shutil.copytree(policy.folder, folder / "base", ignore=shutil.ignore_patterns("__pycache__", "*.py"))
        base = "./base"
    config["base_model_name_or_path"] = base
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    source = '"FOLDER/base"' if spec.kind == "embedded" else json.dumps(base)
    return (
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"tokenizer = AutoTokenizer.from_pretrained({source})\n"
        f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({source}), "FOLDER")'
    )


def _write_merged(folder: Path, spec: BaseSpec, version: Version, policy: Policy) -> str:
    whole = policy.model.merge_and_unload()
    whole.generation_config.eos_token_id = sorted(
        policy.chat.stop_ids
    )  # stock `generate` stops where dlm does
    policy.tokenizer.chat_template = policy.chat.template
    with quiet_libraries():
        whole.save_pretrained(str(folder))
        for weights in folder.glob("*.safetensors"):  # safetensors makes its files private
            weights.chmod((folder / "config.json").stat().st_mode & 0o777)
        policy.tokenizer.save_pretrained(str(folder))
    shutil.copyfile(version.folder / "version.json", folder / "version.json")
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
        'model = AutoModelForCausalLM.from_pretrained("FOLDER")'
    )


def _write_reward(folder: Path, version: Version, scorer: RewardModel) -> str:
    scorer.save_merged(folder)
    shutil.copyfile(version.folder / "version.json", folder / "version.json")
    return (
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
        'model = AutoModelForSequenceClassification.from_pretrained("FOLDER")'
    )


def _card(
    name: str,
    spec: BaseSpec,
    version: Version,
    run: Run,
    tokenizer: Any,
    chat_template: str,
    usage: str,
    merged: bool,
) -> str:
    kind = "A complete model: base and adapter merged, in fp32." if merged else "A PEFT adapter."
    if not version.answers:
        kind = (
            "A reward model: of a question and an answer, as the chat template lays them out, it gives one number, the "
            "higher the better. Only differences between answers to one question mean anything."
        )
    knobs = ResolvedRecipe.from_json(run.recipe, "").values()
    recipe = "\n".join(f"| {knob} | {value} |" for knob, value in sorted(knobs.items()) if value is not None)
    code = usage.replace("FOLDER", ".")
    template = "the tokenizer's chat template (`tokenizer.apply_chat_template`)"
    if not merged and not tokenizer.chat_template:
        template = f"this Jinja chat template, as the base brings none:\n\n```jinja\n{chat_template}\n```\n"
    prompt = RunFacts.read(run).system_prompt
    system = "No system prompt was used." if prompt is None else f"System prompt:\n\n{_quoted(prompt)}"
    return f"""---
library_name: {"transformers" if merged else "peft"}
base_model: {spec.name}
tags: [dlm]
---
# {name} {version.name}

{kind} Trained with dlm from the document `{name}`.

| | |
|---|---|
| base | {spec.name} (fingerprint {version.base_fingerprint[:16]}) |
| phase | {version.phase}, run {version.run_id}, step {version.step} |
| parent | {version.parent or "none: a fresh adapter on the base"} |
| data | sha256 {version.data_hash} |
| made | {version.created_at} |

## Load it

In this folder:

```python
{code}
```

Questions go through {template}. {system}

## Recipe

| knob | value |
|---|---|
{recipe}
"""


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.split("\n"))
