"""Document ids: ULIDs, 26 characters of Crockford's base 32 (https://github.com/ulid/spec)."""

from __future__ import annotations

import re
import secrets
import time
from typing import Final

__all__ = ["is_ulid", "new_ulid"]

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # without I, L, O, U
_ULID: Final = re.compile(rf"[{ALPHABET}]{{26}}")


def new_ulid() -> str:
    """A fresh id: 48 bits of milliseconds since 1970, then 80 random bits."""
    number = (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80 | secrets.randbits(80)
    return "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def is_ulid(text: str) -> bool:
    """Whether `text` has the form of an id; the time in it is not judged."""
    return _ULID.fullmatch(text) is not None
