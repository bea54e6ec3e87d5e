-- Signals: every observation of quality, each with the place where its truth lies (`home`):
--
--   store     imported, voted, graded or made by an experiment: this row is the truth, and never changes but for
--             being withdrawn
--   mined     a staged pair: the truth is `staged_pairs`, followed by the triggers below in the same transaction
--   document  a pair of the document: the truth is the file; the rows are an index of it, renewed when its hash differs
--   log       what a run consumed, as it was then; never a signal of its own
--
-- One observation may have several homes (a mined pair that was applied, an import of what the document says). Rows of
-- one `identity` are one observation, and `shown` is set on the one that speaks for it.

CREATE TABLE signals (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    kind           TEXT NOT NULL,             -- pair | scalar
    source         TEXT NOT NULL,             -- hand | mined | vote | grader | experiment
    home           TEXT NOT NULL,             -- store | mined | document | log
    shown          INTEGER NOT NULL DEFAULT 1,
    status         TEXT NOT NULL DEFAULT '',  -- mined: as in staged_pairs; store: '' | withdrawn
    status_at      TEXT NOT NULL DEFAULT '',
    key            TEXT NOT NULL,             -- of the texts alone: store.signals.signal_key
    scale          TEXT NOT NULL DEFAULT '',  -- of the raw scores, in the judge's words: "1-10", "vote"
    judge          TEXT NOT NULL DEFAULT '',
    chosen_score   REAL,                      -- a scalar's score
    rejected_score REAL,
    created_at     TEXT NOT NULL DEFAULT '',
    staged_id      INTEGER REFERENCES staged_pairs (id) ON DELETE CASCADE,
    line           INTEGER,                   -- in the document
    section_id     TEXT,
    flags          INTEGER,                   -- store.FLAGS as bits; NULL: not looked at yet
    logged         INTEGER,                   -- the row of the log with the same identity, where a run consumed it
    provenance     TEXT NOT NULL DEFAULT '{}',  -- JSON object
    reason         TEXT NOT NULL DEFAULT '',
    prompt         TEXT NOT NULL,
    chosen         TEXT NOT NULL,             -- a scalar's answer
    rejected       TEXT NOT NULL DEFAULT '',
    margin         REAL GENERATED ALWAYS AS (chosen_score - rejected_score) VIRTUAL,
    longer         INTEGER GENERATED ALWAYS AS (length(chosen) - length(rejected)) VIRTUAL,  -- in characters
    identity       TEXT GENERATED ALWAYS AS (
        kind || ' ' || source || ' ' || key || ' ' || quote(chosen_score) || ' ' || quote(rejected_score) || ' '
        || scale || ' ' || judge
    ) VIRTUAL
);
CREATE INDEX signals_by_identity ON signals (identity);
CREATE INDEX signals_by_key ON signals (key);
CREATE INDEX signals_by_home ON signals (home, staged_id);
CREATE INDEX signals_not_looked_at ON signals (id) WHERE flags IS NULL AND kind = 'pair' AND shown = 1;
-- All that the tabs count, filter and sort by, without touching a text.
CREATE INDEX signals_of_tabs ON signals
    (kind, source, home, status, judge, flags, logged, staged_id, chosen_score, rejected_score, margin, longer)
    WHERE shown = 1;

-- Which runs consumed which row of the log.
CREATE TABLE signal_uses (
    signal_id INTEGER NOT NULL REFERENCES signals (id),
    run_id    INTEGER NOT NULL REFERENCES runs (id),
    PRIMARY KEY (signal_id, run_id)
) WITHOUT ROWID;
CREATE INDEX signal_uses_of_run ON signal_uses (run_id);

-- Where a run came from that was trained elsewhere and imported: JSON object; NULL for our own.
ALTER TABLE runs ADD COLUMN imported TEXT;

CREATE VIRTUAL TABLE signals_text USING fts5 (
    prompt, chosen, rejected, content = 'signals', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2'
);

CREATE TRIGGER signals_added AFTER INSERT ON signals BEGIN
    INSERT INTO signals_text (rowid, prompt, chosen, rejected)
    VALUES (NEW.id, NEW.prompt, NEW.chosen, NEW.rejected);
END;

CREATE TRIGGER signals_reworded AFTER UPDATE OF prompt, chosen, rejected ON signals BEGIN
    INSERT INTO signals_text (signals_text, rowid, prompt, chosen, rejected)
    VALUES ('delete', OLD.id, OLD.prompt, OLD.chosen, OLD.rejected);
    INSERT INTO signals_text (rowid, prompt, chosen, rejected)
    VALUES (NEW.id, NEW.prompt, NEW.chosen, NEW.rejected);
    UPDATE signals SET flags = NULL WHERE id = NEW.id;
END;

CREATE TRIGGER signals_removed AFTER DELETE ON signals BEGIN
    INSERT INTO signals_text (signals_text, rowid, prompt, chosen, rejected)
    VALUES ('delete', OLD.id, OLD.prompt, OLD.chosen, OLD.rejected);
END;

-- Which row of an identity is shown: a mined pair that stands for review or in the document, then the document's own,
-- then the store's, then a mined pair that was turned down, then the log. A mined pair said to be applied whose
-- section is not there (edited, or cut out by a person) gives way: the document is the truth then.
CREATE VIEW signals_ranked AS
SELECT id, identity, CASE
    WHEN home = 'mined' AND status = 'applied' THEN
        CASE WHEN EXISTS (SELECT 1 FROM signals AS d WHERE d.identity = s.identity AND d.home = 'document')
        THEN 0 END
    WHEN home = 'mined' AND status IN ('staged', 'accepted') THEN 0
    WHEN home = 'document' THEN 1
    WHEN home = 'store' THEN CASE status WHEN 'withdrawn' THEN NULL ELSE 2 END
    WHEN home = 'mined' THEN 3
    ELSE 4
END AS place
FROM signals AS s;

CREATE TRIGGER signals_settle_added AFTER INSERT ON signals BEGIN
    UPDATE signals SET shown = id IS (
        SELECT id FROM signals_ranked WHERE identity = NEW.identity AND place IS NOT NULL ORDER BY place, id LIMIT 1
    ), logged = (
        SELECT id FROM signals_ranked WHERE identity = NEW.identity AND place = 4 ORDER BY id LIMIT 1
    ) WHERE identity = NEW.identity;
END;

CREATE TRIGGER signals_settle_changed AFTER UPDATE OF status, key, source, judge, chosen_score, rejected_score ON signals
BEGIN
    UPDATE signals SET shown = id IS (
        SELECT id FROM signals_ranked WHERE identity = NEW.identity AND place IS NOT NULL ORDER BY place, id LIMIT 1
    ), logged = (
        SELECT id FROM signals_ranked WHERE identity = NEW.identity AND place = 4 ORDER BY id LIMIT 1
    ) WHERE identity = NEW.identity;
    UPDATE signals SET shown = id IS (
        SELECT id FROM signals_ranked WHERE identity = OLD.identity AND place IS NOT NULL ORDER BY place, id LIMIT 1
    ) WHERE identity = OLD.identity AND OLD.identity IS NOT NEW.identity;
END;

CREATE TRIGGER signals_settle_removed AFTER DELETE ON signals BEGIN
    UPDATE signals SET shown = id IS (
        SELECT id FROM signals_ranked WHERE identity = OLD.identity AND place IS NOT NULL ORDER BY place, id LIMIT 1
    ) WHERE identity = OLD.identity;
END;

-- A preference that a person gave in the browser is staged like a mined pair, in a run whose method is "browser".
CREATE TRIGGER staged_pairs_followed AFTER INSERT ON staged_pairs BEGIN
    INSERT INTO signals (kind, source, home, status, status_at, key, judge, chosen_score, rejected_score, created_at,
                         staged_id, section_id, provenance, reason, prompt, chosen, rejected)
    SELECT 'pair', CASE runs.method WHEN 'browser' THEN 'vote' ELSE 'mined' END, 'mined', NEW.status, NEW.status_at,
           NEW.content_key, NEW.judge_name, NEW.chosen_score, NEW.rejected_score, NEW.mined_at,
           NEW.id, NEW.section_id, '{"mined_run_id":' || NEW.run_id || '}',
           COALESCE((SELECT reasoning FROM candidates WHERE id = NEW.chosen_candidate), ''),
           NEW.prompt, NEW.chosen, NEW.rejected
    FROM runs WHERE runs.id = NEW.run_id;
END;

CREATE TRIGGER staged_pairs_reviewed AFTER UPDATE OF status, section_id ON staged_pairs BEGIN
    UPDATE signals SET status = NEW.status, status_at = NEW.status_at, section_id = NEW.section_id
    WHERE home = 'mined' AND staged_id = NEW.id;
END;

CREATE TRIGGER staged_pairs_edited AFTER UPDATE OF chosen, rejected, content_key ON staged_pairs BEGIN
    UPDATE signals SET key = NEW.content_key, chosen = NEW.chosen, rejected = NEW.rejected
    WHERE home = 'mined' AND staged_id = NEW.id;
END;

-- Pairs that were staged before there were signals.
INSERT INTO signals (kind, source, home, status, status_at, key, judge, chosen_score, rejected_score, created_at,
                     staged_id, section_id, provenance, reason, prompt, chosen, rejected)
SELECT 'pair', 'mined', 'mined', status, status_at, content_key, judge_name, chosen_score, rejected_score, mined_at,
       staged_pairs.id, section_id, '{"mined_run_id":' || run_id || '}',
       COALESCE((SELECT reasoning FROM candidates WHERE candidates.id = chosen_candidate), ''), prompt, chosen, rejected
FROM staged_pairs;
