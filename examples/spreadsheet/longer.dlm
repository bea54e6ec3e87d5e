---
# sheets.dlm with long tables of 54 rows, the embedded base's stress length (its card), where greedy answers lose rows, too.
dlm_id: 01KB0Z8M4T7Q2V6X9D3F5H1JCE
dlm_version: 15
base_model: pocket
evals:
  # strict: rows by identity, units by cell, surplus rows counted. Budgets: unset = what the longest reference needs and more
  tables:
    task: spreadsheet
  stress:
    task: spreadsheet
    split: stress_heldout
    rows: 54
  # the same cases as the published study graded them
  tables-published:
    task: spreadsheet
    grader: spreadsheet:published
  stress-published:
    task: spreadsheet
    split: stress_heldout
    rows: 54
    grader: spreadsheet:published
  # the same under a budget that eleven of forty references fit, much as in the published study
  stress-starving:
    task: spreadsheet
    split: stress_heldout
    rows: 54
    max_new_tokens: 590
  stress-starving-published:
    task: spreadsheet
    split: stress_heldout
    rows: 54
    grader: spreadsheet:published
    max_new_tokens: 590
gate: {}
---
