"""Following a store that another process writes: whether anything changed, what was logged since, and cheap marks.

For a server that shows a running training to several people at once: it asks often, so each question here is answered
from indexes, never by reading whole series again.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from dlm.curves import Series, unit_of
from dlm.store.database import Database
from dlm.store.metrics import points_from

__all__ = ["Following"]


class Following:
    """The questions of a follower; one per thread, as the store it belongs to."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def change_number(self) -> int:
        """A number that differs after another connection has committed anything. SQLite's `data_version`."""
        row = self._database.row("PRAGMA data_version")
        return 0 if row is None else int(row[0])

    def states(self) -> Hashable:
        """A mark that differs when a run, an event, a version, a promotion or a gate's verdict is added, or a run changes its
        status."""
        runs = self._database.rows("SELECT id, status, finished_at, planned_steps FROM runs ORDER BY id")
        newest = self._database.row(
            "SELECT (SELECT MAX(id) FROM events), (SELECT MAX(id) FROM promotions), (SELECT COUNT(*) FROM versions),"
            " (SELECT MAX(id) FROM gate_verdicts)"
        )
        return tuple(tuple(row) for row in runs), tuple(newest or ())

    def signals(self) -> Hashable:
        """A mark that differs when a signal or a mined pair was added, decided about or taken back, or a run consumed some."""
        row = self._database.row(
            "SELECT (SELECT MAX(id) FROM signals), (SELECT MAX(id) FROM staged_pairs),"
            " (SELECT MAX(status_at) FROM signals WHERE status_at != ''), (SELECT MAX(run_id) FROM signal_uses)"
        )
        return tuple(row or ())

    def mark(self, run_id: int, name: str) -> Hashable:
        """A mark of one series: as long as it stays the same, the series reads the same."""
        row = self._database.row("SELECT id FROM metric_names WHERE name = ?", (name,))
        if row is None:
            return ()
        key = (run_id, row["id"])
        rows = self._database.row(
            "SELECT COUNT(*), MAX(step), MAX(time) FROM metric_rows WHERE run_id = ? AND name_id = ?", key
        )
        blobs = self._database.row(
            "SELECT COUNT(*), MAX(id) FROM metric_blobs WHERE run_id = ? AND name_id = ?", key
        )
        return tuple(rows or ()), tuple(blobs or ())

    def points_since(self, run_id: int, steps: Mapping[str, int]) -> dict[str, Series]:
        """What a run has from a step on, by name. `steps` names the step of the newest point that is known, which is
        among those that come back: a step may be logged again. A name it does not hold is read from its beginning.
        """
        found: dict[str, Series] = {}
        with self._database.snapshot():
            names = self._database.rows(
                "SELECT id, name FROM metric_names AS n"
                " WHERE EXISTS (SELECT 1 FROM metric_rows WHERE run_id = ?1 AND name_id = n.id)"
                " OR EXISTS (SELECT 1 FROM metric_blobs WHERE run_id = ?1 AND name_id = n.id)",
                (run_id,),
            )
            for row in names:
                name = row["name"]
                points = points_from(self._database, run_id, row["id"], steps.get(name))
                if len(points.steps):
                    found[name] = Series(name, unit_of(name), points.steps, points.values, points.times)
        return found
