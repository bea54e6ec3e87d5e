"""What is remembered about a document: runs, metrics, versions, checkpoints, mined pairs. No torch."""

from dlm.store.checkpoints import SavedCheckpoint
from dlm.store.consent import CommandIdentity, Consents, identify
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
from dlm.store.upkeep import PrunedItem, PruneReport, Recovery, checkpoint_step
from dlm.store.versions import VERSION_FILE, Promotion, Version, Versions, VersionSpec

__all__ = [
    "PAIR_STATUSES",
    "RUN_KINDS",
    "RUN_STATUSES",
    "VERSION_FILE",
    "Candidate",
    "CommandIdentity",
    "Consents",
    "Holder",
    "Home",
    "MetricWriter",
    "Metrics",
    "Mining",
    "NewCandidate",
    "NewPair",
    "Promotion",
    "PruneReport",
    "PrunedItem",
    "Recovery",
    "Run",
    "RunEvent",
    "RunSpec",
    "Runs",
    "SavedCheckpoint",
    "StagedPair",
    "Store",
    "Tally",
    "Version",
    "VersionSpec",
    "Versions",
    "checkpoint_step",
    "home_root",
    "identify",
    "malformed",
    "pair_key",
]
