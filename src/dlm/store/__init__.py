"""What is remembered about a document: runs, metrics, versions, checkpoints, signals, mined pairs, graded answers, verdicts.

No torch.
"""

from dlm.store.checkpoints import SavedCheckpoint
from dlm.store.consent import CommandIdentity, Consents, identify
from dlm.store.evaluation import TOO_LONG, VERDICTS, EvalResult, Evaluations, GateVerdict
from dlm.store.following import Following
from dlm.store.layout import home_root
from dlm.store.lock import Holder
from dlm.store.metrics import Metrics, MetricWriter
from dlm.store.mining import (
    PAIR_STATUSES,
    Candidate,
    Mining,
    NewCandidate,
    NewPair,
    StagedPair,
    Tally,
    malformed,
    pair_key,
)
from dlm.store.project import Home, Store
from dlm.store.runs import RUN_KINDS, RUN_STATUSES, Run, RunEvent, Runs, RunSpec
from dlm.store.signal_lines import Defaults, Line, RunLine, SeriesLine, SignalLine, line_of_signal, read_line
from dlm.store.signal_rows import (
    BROWSER,
    FLAGS,
    SIGNAL_KINDS,
    SIGNAL_SOURCES,
    Added,
    DocumentPair,
    NewSignal,
    Signal,
    signal_key,
)
from dlm.store.signal_search import (
    ORDERS,
    STANDINGS,
    TABS,
    Facets,
    SignalFilter,
    count_signals,
    facets,
    find_signals,
    membership,
)
from dlm.store.signals import Signals
from dlm.store.upkeep import PrunedItem, PruneReport, Recovery, checkpoint_step
from dlm.store.versions import VERSION_FILE, Promotion, Version, Versions, VersionSpec

__all__ = [
    "BROWSER",
    "FLAGS",
    "ORDERS",
    "PAIR_STATUSES",
    "RUN_KINDS",
    "RUN_STATUSES",
    "SIGNAL_KINDS",
    "SIGNAL_SOURCES",
    "STANDINGS",
    "TABS",
    "TOO_LONG",
    "VERDICTS",
    "VERSION_FILE",
    "Added",
    "Candidate",
    "CommandIdentity",
    "Consents",
    "Defaults",
    "DocumentPair",
    "EvalResult",
    "Evaluations",
    "Facets",
    "Following",
    "GateVerdict",
    "Holder",
    "Home",
    "Line",
    "MetricWriter",
    "Metrics",
    "Mining",
    "NewCandidate",
    "NewPair",
    "NewSignal",
    "Promotion",
    "PruneReport",
    "PrunedItem",
    "Recovery",
    "Run",
    "RunEvent",
    "RunLine",
    "RunSpec",
    "Runs",
    "SavedCheckpoint",
    "SeriesLine",
    "Signal",
    "SignalFilter",
    "SignalLine",
    "Signals",
    "StagedPair",
    "Store",
    "Tally",
    "Version",
    "VersionSpec",
    "Versions",
    "checkpoint_step",
    "count_signals",
    "facets",
    "find_signals",
    "home_root",
    "identify",
    "line_of_signal",
    "malformed",
    "membership",
    "pair_key",
    "read_line",
    "signal_key",
]
