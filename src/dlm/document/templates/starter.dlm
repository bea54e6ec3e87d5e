---
# This is a .dlm document: one text file that a model is trained on.
# Everything up to the second --- line is the header. It is YAML, so lines that start with # are comments.
# A setting that stands behind a # has the default shown; take the # away to change it.

dlm_id: 00000000000000000000000000   # names this document's store; never edit it, never use it in two files
dlm_version: 15                      # version of the format
base_model: pocket                   # the model to start from: pocket, smollm2-135m, qwen3-0.6b, hf:org/name or ./folder

# system_prompt: You answer briefly. # put before every conversation, in training and in use

# training:
#   # ---- the adapter: the part that is trained
#   adapter: lora                    # lora or dora
#   lora_r: 8                        # rank, 1 to 256
#   lora_alpha: 16                   # scale: updates are multiplied by lora_alpha / lora_r
#   lora_dropout: 0.05               # 0 to 0.5
#   target_modules: auto             # auto = every linear layer but the head; or a list: [q_proj, v_proj]
#   # ---- the run; a base may bring its own defaults for these (`dlm doctor` and `dlm train` show them)
#   sequence_len: 2048               # longest row in tokens, 64 to 32768
#   micro_batch_size: auto           # rows held in memory at once
#   grad_accum: auto                 # micro-batches per step
#   learning_rate: 2e-4
#   num_epochs: 3                    # passes over the rows
#   optimizer: adamw_torch
#   lr_scheduler: cosine             # cosine, linear or constant
#   warmup_ratio: 0.1                # share of the steps over which the rate rises, 0 to 0.5
#   precision: null                  # bf16, fp16 or fp32; null = chosen for your machine
#   seed: 42
#   min_steps: 0                     # more passes are added until so many steps are made
#   max_steps: null                  # stop after so many steps
#   adam_beta1: 0.9
#   adam_beta2: 0.999
#   adam_epsilon: 1e-8
#   weight_decay: 0.0
#   max_grad_norm: 1.0               # gradients are clipped to this norm; 0 = no clipping
#   neftune_alpha: 0.0               # noise on the input embeddings; 0 = none
#   val_fraction: 0.1                # share of rows held out for validation; none below 20 rows
#   eval_every_steps: null           # null = about ten validations in a run
#   save_every_steps: null           # null = a checkpoint at every validation
#   keep_last: 3                     # checkpoints kept per run
#   keep_best: false                 # true = also keep the checkpoint that scored best, and make the version of it
#   early_stopping: null             # stop after so many validations without a better one; null = never
#   stop_on: never                   # severe or warn = stop when the curves show something of that kind, keep the best
#   layout: auto                     # how rows become a batch; auto = the fastest one that computes right
#   # ---- files beside this document that are read as prose
#   sources:
#     - path: notes                  # a file or folder next to this document
#       include: ["**/*.md"]         # default: every file
#       exclude: ["drafts/**"]       # default: none
#   # ---- named adapters: read and checked; training on them is not offered yet
#   # adapters: {tone: {lora_r: 4}}
#   # ---- the preference phase, which follows when there are pairs; a base may bring its own defaults for these, too
#   preference:
#     enabled: null                  # null = as soon as there are pairs; false = never, unless --phase asks for it
#     method: dpo                    # dpo, orpo or simpo
#     loss_type: sigmoid             # sigmoid, hinge, ipo, ipo_sum or robust (dpo only)
#     reference: pre_adapter         # pre_adapter = the version before this phase; or base (dpo only)
#     min_margin: 0.0                # pairs whose two scores differ by less are left out
#     include_mined: true            # false = only pairs written by hand
#     hyperparams:
#       beta: 0.1                    # dpo: how strongly the reference holds; simpo: scale
#       alpha: 0.1                   # orpo: weight of the odds-ratio term
#       gamma: 0.5                   # simpo: margin
#       label_smoothing: 0.0         # dpo sigmoid and robust: share of pairs labelled the wrong way
#       sft_weight: 0.0              # weight of the chosen answers' own loss, which guards facts
#       learning_rate: 5e-6
#       num_epochs: 1                # passes over the pairs
#   # ---- the reward phase, which runs only when asked for: dlm train --phase reward
#   reward:
#     center: 0.01                   # keeps scores near zero
#     margin_scale: 0.0              # times the difference of two known scores: by how much a pair is to be told apart
#     learning_rate: 1e-4
#     num_epochs: 1
#     min_margin: 0.0                # least difference of two scores that makes a pair
#     include_mined: true
#   # ---- reinforcement fine-tuning, which runs only when asked for: dlm train --phase rft
#   rft:
#     loss_type: grpo                # grpo, dapo or dr_grpo
#     steps: 50                      # rounds of sampled answers
#     prompts_per_step: 8            # prompts of a round
#     group_size: 8                  # answers to each, compared with each other
#     updates: 1                     # optimiser steps on a round's answers
#     max_new_tokens: null           # longest answer; null = the suite's budget, or what references need
#     temperature: 1.0
#     top_p: 1.0
#     clip_low: 0.2                  # how far below 1 a token's probability ratio may push
#     clip_high: 0.28                # how far above
#     kl_beta: 0.01                  # how strongly the version it starts from holds
#     mask_truncated: false          # true = answers cut off by the budget are not learnt from
#     learning_rate: 2e-5
#     validation_prompts: 32         # most prompts held out
#     max_grader_error_share: 0.1    # of the answers; above it the run stops

# judge: sway                        # who scores sampled answers for dlm preference mine
# evals:                             # suites of cases that versions are proven on: dlm eval
#   tables: {task: spreadsheet, seed: 200, n: 50, split: heldout, grader: spreadsheet, max_new_tokens: 512}
#   stress: {task: spreadsheet, split: stress_heldout}   # long tables: the usual conditions ask for them beside others
# gate:                              # with it, a version becomes current when it holds these conditions: dlm gate
#   conditions: []                   # [] = the usual ones for the suites and probes; or lines: tables.score >= base
# Read and checked; it has no settings yet:
# export: {}
---

This text stands before the first section, so it is prose: the model learns to write on in this manner. A line
like the one below starts a section, which ends where the next one starts. There are no comments down here: every
line is learnt. Check the file at any time with dlm check, train with dlm train, ask with dlm prompt.

::instruction::
### Q
How should release notes read?
### A
Short, factual, and low-drama.

### Q
What starts a section?
### A
A line with two colons, a name, and two colons.

### Q
Where does an answer end?
### A
At the next heading or the next section. Answers may have
several lines, lists and code blocks:

```
::instruction::   inside a code block this is only text
```

### Q !probe
How should an error message read?
### A
Short, factual, and with a next step.

::preference::
### Prompt
How should release notes read?
### Chosen
Short, factual, and low-drama.
### Rejected
Great question! Release notes should really be as exciting as they possibly can be.

::prose::
Sections called prose hold plain text, like the text at the top.
