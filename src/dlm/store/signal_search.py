"""Finding signals: what belongs to which tab, filters, full-text search, counts, pages.

`membership` is the one place that says which signals make up PREFERENCE, REWARD, DPO and ORPO; the browser's counts, its
lists, `dlm export-data --tab` and the tests all ask it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from dlm.errors import UsageError
from dlm.store.database import Database
from dlm.store.signal_rows import FLAGS, SIGNAL_SOURCES, Signal, read_signals

__all__ = ["ORDERS", "STANDINGS", "TABS", "Facets", "SignalFilter", "count_signals", "facets", "find_signals", "membership"]  # fmt: skip

TABS: Final = ("preference", "reward", "dpo", "orpo")
STANDINGS: Final[Mapping[str, str]] = {
    "": "status NOT IN ('rejected', 'reverted')",
    "waiting": "home = 'mined' AND status IN ('staged', 'accepted')",
    "staged": "home = 'mined' AND status = 'staged'",
    "accepted": "home = 'mined' AND status = 'accepted'",
    "document": "(home = 'document' OR (home = 'mined' AND status = 'applied'))",
    "store": "home = 'store'",
    "turned-down": "status IN ('rejected', 'reverted')",
}
"""Where a signal stands, as a filter: "" is all that has not been turned down in review."""
ORDERS: Final[Mapping[str, str]] = {
    "newest": "id DESC",
    "oldest": "id",
    "widest": "margin IS NULL, margin DESC, id DESC",
    "narrowest": "margin IS NULL, margin, id DESC",
    "best": "chosen_score IS NULL, chosen_score DESC, id DESC",
    "worst": "chosen_score IS NULL, chosen_score, id DESC",
    "longer": "longer DESC, id DESC",
    "shorter": "longer, id DESC",
}
"""How a list is sorted. widest and narrowest: by margin; best and worst: by the chosen answer's or the scalar's score;
longer and shorter: by how many characters more the chosen answer has."""

_WORD: Final = re.compile(r"\w+")


def membership(tab: str, *, with_log: bool = False) -> str:
    """Which signals a tab holds, as a condition over the rows of `signals` (DESIGN.md, contract "Signals").

    - preference: pairs of every source but experiment, from the document, the staged plan and the store;
    - dpo: pairs of source experiment, kept against discarded;
    - reward: scalars, votes among them as 1 and -1;
    - orpo: pairs that an ORPO run consumed, whether they still stand anywhere or only in the log; most of them are in
      preference, too.

    "" stands for all four. One observation counts once, however many homes it has (`shown`). Pairs that were turned down
    in review belong to their tab, but are no longer data: every filter but "turned-down" leaves them out.

    Args:
        with_log: also what is left in the log alone, for whoever asks what a run consumed.

    Raises:
        UsageError: no such tab.
    """
    consumed = "logged IN (SELECT u.signal_id FROM signal_uses AS u JOIN runs AS r ON r.id = u.run_id WHERE r.method = 'orpo')"
    standing = "1" if with_log else "home != 'log'"
    conditions = {
        "preference": f"kind = 'pair' AND source != 'experiment' AND {standing}",
        "dpo": f"kind = 'pair' AND source = 'experiment' AND {standing}",
        "reward": f"kind = 'scalar' AND {standing}",
        "orpo": f"kind = 'pair' AND {consumed}",
        "": f"({standing} OR (kind = 'pair' AND {consumed}))",
    }
    if tab not in conditions:
        raise UsageError(f"there is no tab {tab!r}", expected=f"one of {', '.join(TABS)}")
    return f"shown = 1 AND {conditions[tab]}"


@dataclass(frozen=True)
class SignalFilter:
    """Which signals to find. Everything that is left empty does not narrow the list."""

    tab: str = "preference"
    search: str = ""  # words that all stand in the texts; the last may be the beginning of one
    source: str = ""
    judge: str = ""
    standing: str = ""  # a name of STANDINGS
    flag: str = ""  # one of FLAGS, or "any"
    run: int | None = None  # that consumed it, or mined it
    min_margin: float | None = None
    order: str = "newest"

    @property
    def narrows(self) -> bool:
        """Whether anything beyond the tab is asked."""
        return any(
            getattr(self, item.name) != item.default for item in fields(self)[1:] if item.name != "order"
        )

    def condition(self) -> tuple[str, tuple[Any, ...]]:
        """The filter in SQL, with its parameters.

        Raises:
            UsageError: a name that is none.
        """
        parts, values = [membership(self.tab, with_log=self.run is not None)], list[Any]()
        _one_of("standing", self.standing, STANDINGS)
        if not (
            self.tab == "orpo" and not self.standing
        ):  # a log of what was consumed, whatever became of it
            parts.append(STANDINGS[self.standing])
        if self.source:
            _one_of("source", self.source, SIGNAL_SOURCES)
            parts.append("source = ?")
            values.append(self.source)
        if self.judge:
            parts.append("judge = ?")
            values.append(self.judge)
        if self.flag:
            _one_of("flag", self.flag, (*FLAGS, "any"))
            bits = (1 << len(FLAGS)) - 1 if self.flag == "any" else 1 << FLAGS.index(self.flag)
            parts.append("flags & ? != 0")
            values.append(bits)
        if self.min_margin is not None:
            parts.append("margin >= ?")
            values.append(self.min_margin)
        if self.run is not None:
            parts.append(
                "(logged IN (SELECT signal_id FROM signal_uses WHERE run_id = ?)"
                " OR staged_id IN (SELECT id FROM staged_pairs WHERE run_id = ?))"
            )
            values += [self.run, self.run]
        if self.search.strip():
            parts.append("id IN (SELECT rowid FROM signals_text WHERE signals_text MATCH ?)")
            values.append(_match(self.search))
        return " AND ".join(parts), tuple(values)


@dataclass(frozen=True)
class Facets:
    """What a tab can be narrowed to, with how many signals each choice has (before other filters)."""

    sources: Mapping[str, int]
    judges: Mapping[str, int]
    flags: Mapping[str, int]
    standings: Mapping[str, int]


def find_signals(
    database: Database, wanted: SignalFilter, *, limit: int | None = None, offset: int = 0
) -> tuple[Signal, ...]:
    """Signals in the filter's order; `limit` of them from `offset` on.

    Raises:
        UsageError: a name in the filter that is none.
    """
    _one_of("order", wanted.order, ORDERS)
    where, values = wanted.condition()
    order = ORDERS[wanted.order]
    if limit is None:
        return read_signals(database, where, values, order=order)
    # Numbers first: sorting moves no text, and the index of the tabs answers without touching one.
    page = f"SELECT id FROM signals WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?"
    return read_signals(database, f"id IN ({page})", (*values, limit, offset), order=order)


def count_signals(database: Database, wanted: SignalFilter) -> int:
    """How many signals a filter finds.

    Raises:
        UsageError: a name in the filter that is none.
    """
    where, values = wanted.condition()
    row = database.row(f"SELECT COUNT(*) AS n FROM signals WHERE {where}", values)
    return int(row["n"]) if row else 0


def facets(database: Database, tab: str) -> Facets:
    """The choices of a tab.

    Raises:
        UsageError: no such tab.
    """
    where = membership(tab)
    rows = database.rows(
        f"SELECT source, judge, home, status, flags, COUNT(*) AS n FROM signals WHERE {where}"
        " GROUP BY source, judge, home, status, flags"
    )
    sources: dict[str, int] = {}
    judges: dict[str, int] = {}
    flags: dict[str, int] = {}
    standings: dict[str, int] = {}
    for row in rows:
        n, standing = row["n"], _standing(row["home"], row["status"])
        standings[standing] = standings.get(standing, 0) + n
        if standing == "turned-down":
            continue
        sources[row["source"]] = sources.get(row["source"], 0) + n
        if row["judge"]:
            judges[row["judge"]] = judges.get(row["judge"], 0) + n
        for place, name in enumerate(FLAGS):
            if (row["flags"] or 0) >> place & 1:
                flags[name] = flags.get(name, 0) + n
    return Facets(sources, judges, flags, standings)


def _standing(home: str, status: str) -> str:
    """The name in STANDINGS that fits a row best."""
    if status in ("rejected", "reverted"):
        return "turned-down"
    if home == "mined":
        return "document" if status == "applied" else status
    return home


def _one_of(name: str, value: str, known: Sequence[str] | Mapping[str, str]) -> None:
    if value not in known:
        raise UsageError(
            f"there is no {name} {value!r}", expected=f"one of {', '.join(word for word in known if word)}"
        )


def _match(search: str) -> str:
    """A search as FTS5 reads it: every word quoted, the last one open at its end. No sign of the language gets through."""
    words = _WORD.findall(search)
    if not words:
        return '""'  # matches nothing, as signs stand in no index
    return " ".join([*(f'"{word}"' for word in words[:-1]), f'"{words[-1]}"*'])
