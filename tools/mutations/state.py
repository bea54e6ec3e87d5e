"""Faults in what is kept, restored or compared with: bugs 6 to 9 and 12."""

from __future__ import annotations

from tools.mutations.fault import Fault

__all__ = ["FAULTS"]

_LN_2 = "tests/training/test_reference.py::test_bug_6_the_first_loss_is_ln_2_and_no_pair_is_ranked"
_QUIET = "tests/training/test_reference.py::test_bug_7_dropout_is_off_in_the_reference"
_MISSES = "tests/training/test_reference.py::test_bug_8_one_changed_byte_misses"
_PROMPT_END = "tests/training/test_reference.py::test_the_key_tells_where_the_prompt_ends"
_SCORES = "tests/training/test_reward.py::test_bug_9_a_version_and_its_merged_export_score_as_it_was_trained"
_RESUMED = "tests/training/test_checkpoints.py::test_bug_12_a_resumed_run_is_bit_equal"
_COUNTED = "tests/training/test_checkpoints.py::test_bug_12_what_early_stopping_counts_survives_a_stop"
_STOPPED = "tests/workflow/test_resume.py::test_bug_12_a_polite_stop_saves_the_step_it_stands_at"
_DAMAGED = "tests/workflow/test_resume.py::test_a_damaged_checkpoint_gives_way_to_the_one_before"

_KEY = "{self.base}\\0{self.adapter}\\0"
_PROGRESS = (
    '    progress = Progress(**json.loads((checkpoint / "progress.json").read_text(encoding="utf-8")))\n'
)

_REFERENCE = (
    Fault(
        6,
        "the base is the reference, whatever the run starts from",
        "training/preference.py",
        'with_adapter = preference.reference == "pre_adapter"',
        "with_adapter = False",
        (_LN_2,),
    ),
    Fault(
        6,
        "the adapter is switched off in the reference pass",
        "training/reference.py",
        "use_adapter=bool(scorer.adapter))",
        "use_adapter=False)",
        (_LN_2,),
    ),
    Fault(
        6,
        "chosen and rejected change places",
        "training/reference.py",
        "(totals[chosen], totals[rejected])",
        "(totals[rejected], totals[chosen])",
        (_LN_2,),
    ),
    Fault(
        7,
        "the reference pass runs in training mode",
        "training/reference.py",
        "    model.eval()\n",
        "    model.train()\n",
        (_QUIET,),
    ),
    Fault(
        7,
        "dropout stays live in a policy that starts from a version",
        "training/adapters.py",
        "    return without_dropout(adapter_to_train(policy, recipe))\n",
        "    return adapter_to_train(policy, recipe) if policy.adapter else without_dropout(add_adapter(policy, recipe))\n",
        (_LN_2,),
    ),
    Fault(8, "the key leaves the adapter out", "training/reference.py", _KEY, "{self.base}\\0", (_MISSES,)),
    Fault(8, "the key leaves the base out", "training/reference.py", _KEY, "{self.adapter}\\0", (_MISSES,)),
    Fault(
        8,
        "the key is of the answer alone",
        "training/reference.py",
        "[*prompt, *answer]",
        "[*answer]",
        (_MISSES,),
    ),
    Fault(
        8,
        "the key is of the adapter's weights, not of its scale",
        "training/adapters.py",
        "{sorted(module.scaling.items())}",
        "",
        (_MISSES,),
    ),
    Fault(
        8,
        "the key does not tell where the prompt ends",
        "training/reference.py",
        '            f"{len(prompt)}\\0".encode()\n',
        '            "".encode()\n',
        (_PROMPT_END,),
    ),
    Fault(
        9,
        "the scoring head is not saved with the adapter",
        "training/checkpoints.py",
        "        model.save_pretrained(str(folder), safe_serialization=True)\n",
        "        model.save_pretrained(str(folder), safe_serialization=True)\n"
        '        file = str(folder / "adapter_model.safetensors")\n'
        "        tensors = load_file(file)\n"
        '        save_file({name: t for name, t in tensors.items() if "score" not in name}, file)\n',
        (_SCORES,),
    ),
    Fault(
        9,
        "a merged export leaves the adapter out",
        "model/reward.py",
        "        whole = self.model.merge_and_unload() if self.adapter is not None",
        "        whole = self.model.unload() if self.adapter is not None",
        (_SCORES,),
    ),
    Fault(
        9,
        "a saved adapter loses its scale",
        "training/checkpoints.py",
        "        model.save_pretrained(str(folder), safe_serialization=True)\n",
        "        for config in model.peft_config.values():\n"
        "            config.lora_alpha = config.r\n"
        "        model.save_pretrained(str(folder), safe_serialization=True)\n",
        (_SCORES,),
    ),
    Fault(
        9,
        "a merged reward model pads with the token that ends answers",
        "model/reward.py",
        "    found = next((id_ for id_ in special if id_ is not None and id_ != end), None)",
        "    found = tokenizer.pad_token_id",
        (_SCORES,),
    ),
)

_RESUME = (
    Fault(
        12,
        "the optimiser's moments are not restored",
        "training/checkpoints.py",
        "    optimizer.state.update(moments)\n",
        "",
        (_RESUMED,),
    ),
    Fault(
        12,
        "the optimiser's own step counter starts again",
        "training/checkpoints.py",
        '            "step": tensors[f"{name}:step"].to(',
        '            "step": torch.zeros_like(tensors[f"{name}:step"]).to(',
        (_RESUMED,),
    ),
    Fault(
        12,
        "the adapter is not restored",
        "training/checkpoints.py",
        "    _load_adapter(checkpoint, model)\n    optimizer",
        "    optimizer",
        (_RESUMED,),
    ),
    Fault(
        12,
        "the tokens read are counted anew",
        "training/checkpoints.py",
        _PROGRESS,
        _PROGRESS + '    progress = Progress(**(asdict(progress) | {"num_tokens": 0}))\n',
        (_RESUMED,),
    ),
    Fault(
        12,
        "evaluations without a better one are counted anew",
        "training/checkpoints.py",
        _PROGRESS,
        _PROGRESS + '    progress = Progress(**(asdict(progress) | {"without_better": 0}))\n',
        (_COUNTED,),
    ),
    Fault(
        12,
        "rows are read from the first window again",
        "training/planning.py",
        "        epoch, place = divmod(step - 1, self._plan.steps_per_epoch)\n",
        '        self._read = getattr(self, "_read", -1) + 1\n'
        "        epoch, place = divmod(self._read, self._plan.steps_per_epoch)\n",
        (_RESUMED,),
    ),
    Fault(
        12,
        "the learning rate's schedule starts again",
        "training/loop.py",
        "        rate = learning_rate(step, self.plan.total_steps, self.recipe)\n",
        '        self._taken = getattr(self, "_taken", 0) + 1\n'
        "        rate = learning_rate(self._taken, self.plan.total_steps, self.recipe)\n",
        (_RESUMED,),
    ),
    Fault(
        12,
        "dropout is seeded at the first step alone",
        "training/loop.py",
        "        torch.manual_seed(derived_seed(self.recipe.seed, purpose, step))\n",
        "        if step == 1:\n"
        "            torch.manual_seed(derived_seed(self.recipe.seed, purpose, step))\n",
        (_RESUMED,),
    ),
    Fault(
        12,
        "a polite stop leaves no checkpoint of its step",
        "training/loop.py",
        "                if at_end or asked or early or is_best",
        "                if at_end or early or is_best",
        (_STOPPED,),
    ),
    Fault(
        12,
        "metrics of steps that are taken again stay",
        "workflow/phase_run.py",
        "        store.metrics.drop_after(run.id, progress.step)\n",
        "",
        (_DAMAGED,),
    ),
)

FAULTS = (*_REFERENCE, *_RESUME)
