"""What is remembered about a document: runs, metrics, versions, checkpoints. No torch."""

from dlm.store.consent import CommandIdentity, Consents, identify
from dlm.store.layout import home_root
from dlm.store.lock import Holder
from dlm.store.metrics import Metrics, MetricWriter
from dlm.store.project import Home, Store
from dlm.store.runs import RUN_KINDS, RUN_STATUSES, Run, RunEvent, Runs, RunSpec
from dlm.store.upkeep import PrunedItem, PruneReport, Recovery, checkpoint_step
from dlm.store.versions import VERSION_FILE, Promotion, Version, Versions, VersionSpec

__all__ = [
    "RUN_KINDS",
    "RUN_STATUSES",
    "VERSION_FILE",
    "CommandIdentity",
    "Consents",
    "Holder",
    "Home",
    "MetricWriter",
    "Metrics",
    "Promotion",
    "PruneReport",
    "PrunedItem",
    "Recovery",
    "Run",
    "RunEvent",
    "RunSpec",
    "Runs",
    "Store",
    "Version",
    "VersionSpec",
    "Versions",
    "checkpoint_step",
    "home_root",
    "identify",
]
