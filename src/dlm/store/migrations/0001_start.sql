-- What one document's store remembers. Lists of allowed words (kinds, statuses) are checked in Python, where
-- they can grow; SQLite would need a rebuilt table for each.

CREATE TABLE store_facts (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- Where the document was last seen: one row, made at the first attach.
CREATE TABLE document (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    path    BLOB NOT NULL,           -- as the file system has it, which need not be UTF-8
    inode   INTEGER NOT NULL,
    seen_at TEXT NOT NULL
);

CREATE TABLE runs (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    kind             TEXT NOT NULL,
    method           TEXT NOT NULL,
    status           TEXT NOT NULL,
    recipe           TEXT NOT NULL,   -- JSON object
    parent_version   TEXT REFERENCES versions (name),
    data_hash        TEXT NOT NULL,
    base             TEXT NOT NULL,
    base_fingerprint TEXT NOT NULL,
    libraries        TEXT NOT NULL,   -- JSON object: name -> version
    threads          INTEGER NOT NULL,
    layout           TEXT NOT NULL,
    seed             INTEGER NOT NULL,
    document_sha256  TEXT NOT NULL,
    planned_steps    INTEGER NOT NULL,
    started_at       TEXT NOT NULL,   -- ISO 8601, UTC, as every time here but metric times
    finished_at      TEXT,
    message          TEXT NOT NULL DEFAULT ''
);

CREATE TABLE events (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id INTEGER NOT NULL REFERENCES runs (id),
    kind   TEXT NOT NULL,
    data   TEXT NOT NULL,             -- JSON object
    at     TEXT NOT NULL
);
CREATE INDEX events_of_run ON events (run_id, kind);

CREATE TABLE metric_names (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- Points as they arrive. value NULL is NaN (SQLite has no other NaN); infinities are kept as such.
CREATE TABLE metric_rows (
    run_id  INTEGER NOT NULL REFERENCES runs (id),
    name_id INTEGER NOT NULL REFERENCES metric_names (id),
    step    INTEGER NOT NULL,
    value   REAL,
    time    REAL NOT NULL,            -- seconds since 1970, UTC
    PRIMARY KEY (run_id, name_id, step)
) WITHOUT ROWID;

-- Points at rest: little-endian int64 and float64 arrays of `count` points, steps increasing.
-- On equal steps a later blob wins over an earlier one, and a row over any blob.
CREATE TABLE metric_blobs (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id    INTEGER NOT NULL REFERENCES runs (id),
    name_id   INTEGER NOT NULL REFERENCES metric_names (id),
    count     INTEGER NOT NULL,
    last_step INTEGER NOT NULL,
    steps     BLOB NOT NULL,
    "values"  BLOB NOT NULL,
    times     BLOB NOT NULL
);
CREATE INDEX metric_blobs_of_run ON metric_blobs (run_id, name_id);

CREATE TABLE versions (
    name             TEXT PRIMARY KEY,
    number           INTEGER NOT NULL UNIQUE,
    run_id           INTEGER NOT NULL REFERENCES runs (id),
    parent           TEXT REFERENCES versions (name),
    phase            TEXT NOT NULL,
    step             INTEGER NOT NULL,
    base             TEXT NOT NULL,
    base_fingerprint TEXT NOT NULL,
    recipe           TEXT NOT NULL,   -- JSON object
    data_hash        TEXT NOT NULL,
    files            TEXT NOT NULL,   -- JSON object: file name -> {"bytes", "sha256"}
    created_at       TEXT NOT NULL,
    removed_at       TEXT             -- when prune deleted the folder; the row stays for the lineage
);
CREATE INDEX versions_of_run ON versions (run_id);

-- Append-only; the newest row says which version is current.
CREATE TABLE promotions (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    version  TEXT NOT NULL REFERENCES versions (name),
    previous TEXT REFERENCES versions (name),
    kind     TEXT NOT NULL,           -- promote | rollback
    reason   TEXT NOT NULL,
    at       TEXT NOT NULL
);
