"""Which pretrained models there are. No torch: loading them is the model room's."""

from dlm.bases.registry import BASE_NAMES, POCKET, BaseSpec, resolve_base

__all__ = ["BASE_NAMES", "POCKET", "BaseSpec", "resolve_base"]
