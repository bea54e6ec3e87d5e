-- Evaluations: what a version answered to the cases of a suite and how each answer was graded; and the verdicts of gates.

CREATE TABLE eval_results (
    run_id        INTEGER NOT NULL REFERENCES runs (id),
    case_index    INTEGER NOT NULL,   -- place of the case in its suite, from 0
    repeat        INTEGER NOT NULL,   -- which answer to it, from 0
    case_key      TEXT NOT NULL,      -- what the case is, wherever it stands
    place         TEXT NOT NULL,
    prompt        TEXT NOT NULL,
    output        TEXT NOT NULL,
    score         REAL NOT NULL,
    dimensions    TEXT NOT NULL,      -- JSON object: name -> 0 to 1
    flags         TEXT NOT NULL,      -- JSON object: flag -> 1
    passed        INTEGER NOT NULL,
    error         TEXT,               -- sample_parse, grader, or NULL
    message       TEXT NOT NULL,
    finish_reason TEXT NOT NULL,
    n_tokens      INTEGER NOT NULL,
    PRIMARY KEY (run_id, case_index, repeat)
);

CREATE TABLE gate_verdicts (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    candidate       TEXT NOT NULL REFERENCES versions (name),
    baseline        TEXT NOT NULL,    -- a version, or base
    verdict         TEXT NOT NULL,    -- pass, fail, unreachable, missing
    reason          TEXT NOT NULL,
    gate_hash       TEXT NOT NULL,    -- which conditions and suites were asked for
    details         TEXT NOT NULL,    -- JSON object: each condition with its numbers, the runs they come from, the lineage
    document_sha256 TEXT NOT NULL,
    at              TEXT NOT NULL
);
CREATE INDEX gate_verdicts_of_candidate ON gate_verdicts (candidate);
