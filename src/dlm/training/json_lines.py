"""Files of JSON lines, as the training room knows them; the reader itself is `dlm.document.json_lines`."""

from dlm.document.json_lines import (
    MAX_PROBLEMS,
    LineError,
    known_fields,
    number_of,
    one_turn,
    read_json_lines,
    require_roles,
    text_of,
    turns_of,
)

__all__ = [
    "MAX_PROBLEMS",
    "LineError",
    "known_fields",
    "number_of",
    "one_turn",
    "read_json_lines",
    "require_roles",
    "text_of",
    "turns_of",
]
