---
# Tables to clean. What is trained on comes from files beside this document (data.py writes them); what proves it stands
# under evals, and is never trained on.
dlm_id: 01KAYR5V3QJ8W2N4T6Y0E9C7BD
dlm_version: 15
base_model: pocket
evals:
  # strict: rows by identity, units by cell, surplus rows counted. Budgets: unset = what the longest reference needs and more
  tables:
    task: spreadsheet
  stress:
    task: spreadsheet
    split: stress_heldout
  # the same cases as the published study graded them
  tables-published:
    task: spreadsheet
    grader: spreadsheet:published
  stress-published:
    task: spreadsheet
    split: stress_heldout
    grader: spreadsheet:published
  # the same under a budget that ten of forty references fit, as in the published study
  stress-starving:
    task: spreadsheet
    split: stress_heldout
    max_new_tokens: 440
  stress-starving-published:
    task: spreadsheet
    split: stress_heldout
    grader: spreadsheet:published
    max_new_tokens: 440
gate: {}
---
