"""The quick way through a table: a block of lines with nothing but numbers and empty cells, as one array."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

__all__ = ["plain_numbers"]

_OF_NUMBERS = b"0123456789.+-eE"
_LINE_END = 10


def plain_numbers(block: str, delimiter: str, width: int) -> NDArray[np.float64] | None:
    """The cells of whole lines, (rows, width), an empty one as NaN; None where the block holds anything else.

    Letters other than e are none of its business, so that a NaN in the result is always an empty cell, never a value
    that the file spells out. Whatever is unusual (quotes, blanks, empty lines, rows of another width) is left to the
    csv module, which knows it and says where.
    """
    if not block.isascii() or width < 2:
        return None
    text = block.encode().replace(b"\r\n", b"\n")
    sign = delimiter.encode()
    if not text.endswith(b"\n") or text.translate(None, _OF_NUMBERS + sign + b"\n"):
        return None
    signs = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(signs == _LINE_END)
    before = np.searchsorted(np.flatnonzero(signs == sign[0]), ends)
    if (np.diff(before, prepend=0) != width - 1).any():
        return None
    cells = text.replace(b"\n", sign)
    if sign + sign in cells or cells.startswith(sign):
        doubled = sign + sign
        cells = cells.replace(doubled, sign + b"nan" + sign).replace(doubled, sign + b"nan" + sign)
        cells = b"nan" + cells if cells.startswith(sign) else cells
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy warns where it stops at something like 1-2
        try:
            numbers = np.fromstring(cells[:-1].decode(), dtype=np.float64, sep=delimiter)
        except (ValueError, DeprecationWarning):
            return None
    return numbers.reshape(-1, width) if numbers.size == len(ends) * width else None
