"""Write pocket's model card from its measurement: every figure on the card comes from `bench/results/pocket.json`.

python -m tools.pocket.card
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["card_text", "main"]

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results" / "pocket.json"
CARD = ROOT / "src" / "dlm" / "bases" / "pocket" / "card.md"

_CARD = """\
# pocket

The base model that comes with dlm: a {parameters:,}-parameter language model trained from scratch for this
package, so that every loop of dlm can be run and watched on a laptop processor, offline. It is a test bench and
a teaching aid, not an assistant.

| | |
|---|---|
| Architecture | Llama: width {hidden_size}, {num_hidden_layers} layers, {num_attention_heads} heads, {num_key_value_heads} key-value heads, feed-forward {intermediate_size}, tied embeddings |
| Context | {max_position_embeddings:,} tokens, question and answer together |
| Tokenizer | byte-level BPE of {vocab_size:,}; single digits, newlines and punctuation stand alone; any Unicode text comes back exactly |
| Files | weights in fp16, loaded as fp32 |
| Licence | Apache-2.0, as the package |

## What it was trained on

{tokens:.0f} million tokens, all made by this project's own generators (`dlm.tasks` and `tools/pocket`): messy
spreadsheets and their clean form, short made-up office documents with questions about them, advice on office
writing from a closed list of 36 topics, list copying, amounts in thousands, header names, refusals, rewriting
in another style, short definitions, small talk, and sentences from a small grammar. No text of any person, book,
site or other model is in it. Names are put together from syllables; a likeness to a real one is chance.

Answers come in four styles: brief, blunt, polite, padded. Where nobody asks for a style, it is drawn at random
in training (34, 11, 15 and 40 %), so that answers vary when sampled, and preference training has something to move.

`make pocket` trains a base like it: {minutes:.0f} minutes on one processor core for this checkpoint; the work is resumed after
a kill. This checkpoint's mix and schedule were settled while it trained (its early steps saw fewer facts and gaps in
the positions), so a new run follows the final recipe and will not give the same bytes.

## Measured

{when}, on {processor}, {cases} fresh cases per figure unless noted, 95 % intervals. Training saw none of
these cases. Advice questions are worded from a closed list, of which the tenth asked here was held out.

| ability | measure | value | 95 % interval | cases |
|---|---|---|---|---|
{table}

**Stress length: {stress_length_rows} rows**, the shortest measured length at which the mean share of rows kept (strict: identity
and order), sampled at temperature 1, lies in .5–.85. By the share of tables with every row kept the same window is
reached at {stress_length_complete_tables_rows} rows. The longest table whose question and answer fit the context is {longest_that_fits_rows} rows.

## Limits

- It knows nothing of the world. Outside its tasks it writes fluent nonsense in the wording of its training text.
- Spreadsheets must look like the `pocket` profile of `dlm.tasks.spreadsheet`: three columns (a unique name; a region,
  owner or quarter; money last), commas only between cells, amounts as `$1.2M`, `3M`, `850K` or `$850000`.
- It was trained on tables of up to 48 rows; longer ones are beyond what it has seen.
- English only. Other scripts survive tokenisation but are next to untrained.
- It hardly notices when a document does not hold what is asked for (`refusal questions` above): it then names
  another value of the right sort. Its refusals are a learnt form of words and protect nothing.
- Facts are the harder the more of a document's lines speak of the same thing; it was measured on two to six.

Loads with plain transformers:

    AutoModelForCausalLM.from_pretrained(path)
    AutoTokenizer.from_pretrained(path)

The chat template writes the one `<|bos|>`; the tokenizer adds none. A message is `<|role|>`, a newline, the text,
`<|end|>`, a newline; roles are `system`, `user`, `assistant`. The pad token differs from the end token.
"""


def card_text(results: dict[str, Any], config: dict[str, Any]) -> str:
    """The card for a measurement and the checkpoint's config."""
    rows = results["rows"]
    lines = [
        f"| {r['ability']} | {r['measure']} | {r['value']:.3f} | {r['low']:.3f}–{r['high']:.3f} | {r['cases']} |"
        for r in rows
    ]
    last = results["learning_curve"][-1]
    facts = {
        name: results[name]
        for name in (
            "parameters",
            "stress_length_rows",
            "stress_length_complete_tables_rows",
            "longest_that_fits_rows",
        )
    }
    return _CARD.format(
        **facts,
        **config,
        tokens=last["tokens"] / 1e6,
        minutes=last["seconds"] / 60,
        when=results["when"][:10],
        processor=results["machine"]["processor"],
        cases=rows[0]["cases"],
        table="\n".join(lines),
    )


def main() -> None:
    """Read the measurement, write the card."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    config = json.loads((CARD.parent / "config.json").read_text(encoding="utf-8"))
    CARD.write_text(card_text(results, config), encoding="utf-8")
    print(f"written to {CARD.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
