"""Faults in what is computed from token ids: bugs 1, 10, 11 and 13 to 15."""

from __future__ import annotations

from tools.mutations.fault import Fault

__all__ = ["FAULTS"]

_SPLIT = "tests/training/test_loop.py::test_bug_1_a_run_does_not_depend_on_its_micro_batches"
_EXACT = "tests/training/test_objectives.py::test_bug_1_accumulation_is_exact_with_uneven_lengths"
_TWO = "tests/training/test_world.py::test_two_processes_train_as_one"
_MOVES = "tests/training/test_phases.py::test_bug_10_every_trainable_tensor_moves_in_one_step"
_MOVES_IN_TWO = "tests/training/test_loop.py::test_bug_10_every_trainable_tensor_moves_and_nothing_else"
_SLOPE = "tests/training/test_objectives.py::test_bug_10_gradient_by_finite_differences"
_AS_PLAIN = "tests/training/test_layout.py::test_every_layout_gives_the_plain_ones_loss_and_gradients"
_NEIGHBOUR = "tests/training/test_layout.py::test_bug_11_a_row_does_not_feel_its_neighbour"
_ALONE = "tests/training/test_layout.py::test_bug_11_a_row_alone_is_the_row_in_company"
_RATIO = "tests/training/test_layout.py::test_bug_13_what_was_sampled_is_scored_as_it_was_sampled"
_PENALTY = "tests/model/test_sampler.py::test_bug_13_log_probabilities_are_those_that_training_computes"
_BY_HAND = "tests/training/test_policy_gradient.py::test_bug_14_each_variant_by_hand"
_CUT = "tests/training/test_policy_gradient.py::test_bug_14_the_same_however_split_or_padded"
_ADVANTAGES = "tests/training/test_policy_gradient.py::test_bug_14_advantages_by_hand"
_CENTRED = "tests/training/test_policy_gradient.py::test_advantages_are_centred_and_scaled_per_group"
_SUPERVISED = "tests/training/test_objectives.py::test_bug_15_supervised_metrics_are_those_of_the_rows"
_PREFERENCE = "tests/training/test_objectives.py::test_bug_15_preference_metrics_are_those_of_the_pairs"
_UNTRAINED = "tests/training/test_objectives.py::test_bug_15_an_untrained_model_scores_one_half"
_WHOLE = "tests/training/test_objectives.py::test_bug_15_how_an_evaluation_is_cut_does_not_show"
_CLIPPED = "tests/training/test_loop.py::test_clipping_limits_what_reaches_the_optimiser"

_ACCUMULATION = (
    Fault(
        1,
        "a step is the mean of its micro-batches' means",
        "training/loop.py",
        "            shares = means(self.objective.forward(self.model, rows), counts)\n",
        "            shares = means(self.objective.forward(self.model, rows), self.objective.counts(rows))\n"
        "            shares = {name: value / len(parts) for name, value in shares.items()}\n",
        (_SPLIT,),
    ),
    Fault(
        1,
        "the supervised loss comes as a mean",
        "training/losses.py",
        "    return -logprobs.sum()",
        "    return -logprobs.mean()",
        (_EXACT,),
    ),
    Fault(
        1,
        "ORPO's likelihood is normalised per micro-batch",
        "training/objectives.py",
        "        nll = sft_loss_sum(scores.logprobs[is_chosen])",
        "        nll = sft_loss_sum(scores.logprobs[is_chosen]) / is_chosen.sum() * len(rows)",
        (_EXACT,),
    ),
    Fault(
        1,
        "gradients are averaged over processes that share a window",
        "training/optimizer.py",
        "            world.sum_in_place(buffer)",
        "            world.sum_in_place(buffer)\n            buffer /= world.size",
        (_TWO,),
    ),
)

_GRADIENTS = (
    Fault(
        10,
        "the scoring head gives its trunk no gradient",
        "training/objectives.py",
        "        chosen, rejected = head(states.to(head_type(head)))",
        "        chosen, rejected = head(states.detach().to(head_type(head)))",
        (_MOVES,),
    ),
    Fault(
        10,
        "hidden states are detached",
        "training/layout.py",
        "        return states.flatten(0, 1)",
        "        return states.flatten(0, 1).detach().requires_grad_()",
        (_MOVES,),
    ),
    Fault(
        10,
        "one tensor is left out of the optimiser",
        "training/optimizer.py",
        "    return [parameter for parameter in model.parameters() if parameter.requires_grad]",
        "    return [parameter for parameter in model.parameters() if parameter.requires_grad][1:]",
        (_MOVES_IN_TWO,),
    ),
    Fault(
        10,
        "a log-prob's derivative without the softmax's part",
        "model/head.py",
        "                slopes[tile] = (full[target.squeeze(1)] - mean) / temperature",
        "                slopes[tile] = full[target.squeeze(1)] / temperature",
        (_SLOPE,),
    ),
    Fault(
        10,
        "keys get no gradient in packed rows",
        "training/attention.py",
        "            _add_to(d_key, piece, ds.transpose(1, 2) @ q.to(kind))\n",
        "",
        (_AS_PLAIN,),
    ),
)

_PACKING = (
    Fault(
        11,
        "an answer sees the answers before it (mask of a shared prompt)",
        "training/attention.py",
        "            mask[first + size :, first : first + size] = False\n",
        "",
        (_NEIGHBOUR,),
    ),
    Fault(
        11,
        "an answer sees the answers before it (pieces of a packed tree)",
        "training/attention.py",
        "                pieces.append(_piece(start, prompt, first, size, device))",
        "                pieces.append(_piece(start, first - start, first, size, device))",
        (_NEIGHBOUR,),
    ),
    Fault(
        11,
        "a packed row sees the rows before it",
        "training/attention.py",
        "            return cls((_piece(start, 0, start, prompt + branches[0], device),))",
        "            return cls((_piece(0, start, start, prompt + branches[0], device),))",
        (_NEIGHBOUR,),
    ),
    Fault(
        11,
        "a packed tree's prompt sees the trees before it",
        "training/attention.py",
        "        pieces = [_piece(start, 0, start, prompt, device)]",
        "        pieces = [_piece(0, start, start, prompt, device)]",
        (_NEIGHBOUR,),
    ),
    Fault(
        11,
        "positions do not start again in a packed row",
        "training/layout.py",
        "        positions += range(size)\n",
        "        positions += range(start, start + size)\n",
        (_ALONE,),
    ),
)

_SAMPLING = (
    Fault(
        13,
        "the sampler reports log-probs within top_p",
        "model/sampler.py",
        "            weights = _keep_likely(weights, settings.top_k, settings.top_p)\n",
        "            weights = _keep_likely(weights, settings.top_k, settings.top_p)\n"
        "            normaliser = greatest.squeeze(1) + weights.sum(1).log()\n",
        (_RATIO,),
    ),
    Fault(
        13,
        "the sampler reports log-probs without the temperature",
        "model/sampler.py",
        "        logprobs = scaled.gather(1, chosen.unsqueeze(1)).squeeze(1) - normaliser",
        "        logprobs = self._logits.log_softmax(1).gather(1, chosen.unsqueeze(1)).squeeze(1)",
        (_RATIO,),
    ),
    Fault(
        13,
        "the sampler reports log-probs after the repetition penalty",
        "model/sampler.py",
        "            weights = (scores - scores.amax(1, keepdim=True)).exp_()\n",
        "            weights = (scores - scores.amax(1, keepdim=True)).exp_()\n"
        "            scaled, normaliser = scores, scores.logsumexp(1)\n",
        (_PENALTY,),
    ),
    Fault(
        13,
        "training scores without the temperature",
        "training/layout.py",
        "            temperature=temperature,\n",
        "",
        (_RATIO,),
    ),
    Fault(
        13,
        "the head's tiles ignore the temperature",
        "model/head.py",
        "            if temperature != 1.0:",
        "            if False:",
        (_RATIO,),
    ),
    Fault(
        None,
        "a sampled answer's text is tokenised again",
        "model/sampler.py",
        "        return Sample(tuple(self.ids), text[:cut],",
        "        return Sample(tuple(policy.chat.completion_ids(text[:cut])), text[:cut],",
        (_RATIO,),
    ),
)

_DENOMINATORS = (
    Fault(
        14,
        "grpo divides each sequence by the longest one's length",
        "training/policy_gradient.py",
        "        token_losses = token_losses / lengths.repeat_interleave(lengths)",
        "        token_losses = token_losses / lengths.max()",
        (_BY_HAND,),
    ),
    Fault(
        14,
        "dapo divides by sequences instead of tokens",
        "training/policy_gradient.py",
        "            return sum(lengths)",
        "            return len(lengths)",
        (_BY_HAND,),
    ),
    Fault(
        14,
        "dr_grpo divides by the longest length seen, not the longest allowed",
        "training/policy_gradient.py",
        "            return len(lengths) * max_length",
        "            return len(lengths) * max(lengths)",
        (_BY_HAND,),
    ),
    Fault(
        14,
        "a micro-batch's mean instead of its sum",
        "training/policy_gradient.py",
        "        loss_sum=token_losses.sum(),",
        "        loss_sum=token_losses.mean() * len(lengths),",
        (_CUT,),
    ),
    Fault(
        14,
        "advantages are divided by the population's deviation",
        "training/policy_gradient.py",
        "rewards.std(dim=1, keepdim=True) + ADVANTAGE_EPSILON",
        "rewards.std(dim=1, keepdim=True, correction=0) + ADVANTAGE_EPSILON",
        (_ADVANTAGES,),
    ),
    Fault(
        14,
        "advantages are centred over all groups",
        "training/policy_gradient.py",
        "    advantages = rewards - rewards.mean(dim=1, keepdim=True)",
        "    advantages = rewards - rewards.mean()",
        (_CENTRED,),
    ),
)

_METRICS = (
    Fault(
        15,
        "a held-out loss is the mean of its micro-batches' means",
        "training/scoring.py",
        "                add(totals, means(outcome, counts))\n",
        "                shares = means(outcome, objective.counts(rows))\n"
        "                add(totals, {name: value / len(parts) for name, value in shares.items()})\n",
        (_SUPERVISED,),
    ),
    Fault(
        15,
        "held-out rows are scored with dropout live",
        "training/scoring.py",
        "    model.eval()\n",
        "    model.train()\n",
        (_SUPERVISED,),
    ),
    Fault(
        15,
        "a token that is nearly the likeliest counts as right",
        "model/head.py",
        "            correct[tile] = (at_target >= top).squeeze(1)",
        "            correct[tile] = (at_target >= top - 0.2).squeeze(1)",
        (_SUPERVISED,),
    ),
    Fault(
        15,
        "ties count as right rankings",
        "training/objectives.py",
        '        "rewards/accuracies": (margins > noise).sum(),',
        '        "rewards/accuracies": (margins >= -noise).sum(),',
        (_UNTRAINED,),
    ),
    Fault(
        15,
        "ties count as wrong in val_pref_acc",
        "training/scoring.py",
        '= metrics["rewards/accuracies"] + ties / 2',
        '= metrics["rewards/accuracies"]',
        (_UNTRAINED,),
    ),
    Fault(
        15,
        "rewards without beta",
        "training/objectives.py",
        "            rewards = recipe.beta * (chosen - ref_chosen), recipe.beta * (rejected - ref_rejected)",
        "            rewards = chosen - ref_chosen, rejected - ref_rejected",
        (_PREFERENCE,),
    ),
    Fault(
        15,
        "right rankings are a share of each micro-batch",
        "training/objectives.py",
        '        "rewards/accuracies": (margins > noise).sum(),',
        '        "rewards/accuracies": (margins > noise).float().mean(),',
        (_WHOLE,),
    ),
    Fault(
        15,
        "the gradient norm is that after clipping",
        "training/optimizer.py",
        "        return norm\n",
        "        return norm.clamp(max=limit)\n",
        (_CLIPPED,),
    ),
)

FAULTS = (*_ACCUMULATION, *_GRADIENTS, *_PACKING, *_SAMPLING, *_DENOMINATORS, *_METRICS)
