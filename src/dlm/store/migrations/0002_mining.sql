-- What mining remembers: the answers it sampled with their scores, and the pairs it made of them, each with what
-- became of it. Rows are never deleted: a pair that was once turned down must be known when it comes up again.

CREATE TABLE candidates (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id        INTEGER NOT NULL REFERENCES runs (id),
    question_key  TEXT NOT NULL,      -- of the question in the document; the mining room makes it
    prompt        TEXT NOT NULL,
    sample        INTEGER NOT NULL,   -- 0, 1, ... among the question's samples
    seed          INTEGER NOT NULL,
    text          TEXT NOT NULL,      -- lone surrogates, which no text column holds, are spelled out
    n_tokens      INTEGER NOT NULL,
    finish_reason TEXT NOT NULL,      -- stop | length
    skip          TEXT,               -- why it is in no pair: malformed, duplicate, truncated, ...
    duplicate_of  INTEGER REFERENCES candidates (id),
    score         REAL,               -- the judge's, always finite; NULL until there is one
    reasoning     TEXT,
    judge_error   TEXT,               -- of the last attempt, where it gave no score
    attempts      INTEGER NOT NULL DEFAULT 0,
    judge_seconds REAL NOT NULL DEFAULT 0,
    UNIQUE (run_id, question_key, sample)
);

CREATE TABLE staged_pairs (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id             INTEGER NOT NULL REFERENCES runs (id),
    question_key       TEXT NOT NULL,
    prompt             TEXT NOT NULL,
    chosen             TEXT NOT NULL,  -- as it is, or will be, in the document: edits included
    rejected           TEXT NOT NULL,
    chosen_candidate   INTEGER NOT NULL REFERENCES candidates (id),
    rejected_candidate INTEGER NOT NULL REFERENCES candidates (id),
    chosen_score       REAL NOT NULL,
    rejected_score     REAL NOT NULL,
    judge_name         TEXT NOT NULL,
    mined_at           TEXT NOT NULL,
    mined_key          TEXT NOT NULL,  -- of the three texts as they were mined
    content_key        TEXT NOT NULL,  -- of the three texts as they are
    status             TEXT NOT NULL,  -- staged | accepted | rejected | applied | reverted
    status_at          TEXT NOT NULL,
    section_id         TEXT,           -- of the section that was written, from the first apply on
    applied_at         TEXT,           -- when it was last written
    edited             INTEGER NOT NULL DEFAULT 0,
    reverting          INTEGER NOT NULL DEFAULT 0,  -- a revert began: without its section, the pair is reverted
    UNIQUE (run_id, mined_key)
);
CREATE INDEX staged_pairs_by_content ON staged_pairs (content_key);
