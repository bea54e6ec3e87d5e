-- When a signal last changed its status (a pair was accepted, a vote taken back), found without reading the table:
-- whoever follows the store asks again and again.
CREATE INDEX signals_by_change ON signals (status_at) WHERE status_at != '';
