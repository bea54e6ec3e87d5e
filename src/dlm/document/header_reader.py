"""The header's YAML, read into its schema with every fault at its own line and column.

Scalars reach the schema as written, which decides what is a number: `2e-4` is one (to YAML 1.1 it is text), and
`yes` is no number. Keys and values of the existing tool that are not supported here are warnings that name them, so
that its documents load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from dlm.document.header import (
    DOCUMENT_VERSION,
    AdapterSettings,
    Evaluation,
    Export,
    Gate,
    Header,
    Preference,
    PreferenceSettings,
    Reward,
    Rft,
    Source,
    Training,
)
from dlm.document.yaml_nodes import HeaderText, Node, read_nodes
from dlm.errors import Problem
from dlm.recipe import nearest

__all__ = ["HeaderReading", "id_span", "read_header"]

_UNSUPPORTED_KEYS: Final[dict[str, str]] = {
    "training.cpt": "prose is trained as ordinary rows",
    "training.dpo": "write it as training.preference",
    "training.gate": "answers come from one adapter",
    "training.cache": "tokenised rows are not cached",
    "training.audio": "documents are text only",
    "training.sources_policy": "sources always stay inside the document's folder",
    "training.sources.*.max_files": "every matching file is read",
    "training.sources.*.max_bytes_per_file": "files over 8 MiB are skipped",
    "export.default_quant": "exports are not quantised",
    "export.default_temperature": "give --temp to `dlm prompt`",
    "export.default_top_p": "give --top-p to `dlm prompt`",
}
"""Keys of the existing tool without a meaning here, by dotted path (`*` is any name or number), with what holds instead."""

_UNSUPPORTED_VALUES: Final[dict[str, dict[str, str]]] = {
    "training.adapter": {"qlora": "lora"},
    "training.adapters.*.adapter": {"qlora": "lora"},
    "training.optimizer": dict.fromkeys(
        ("adamw_bnb_8bit", "paged_adamw_8bit", "galore_adamw", "galore_adamw_8bit"), "adamw_torch"
    ),
}
"""Values of the existing tool without a meaning here, with the value used instead."""


_NO_SUCH_KNOB: Final[dict[str, str]] = {
    "qlora": "quantised training is not supported: adapter is lora or dora",
    "logging_steps": "every step is logged",
}
"""Unknown keys under `training` whose nearest known key would mislead, with what holds instead."""

_BLOCKS: Final = frozenset(
    {
        "training",
        "training.preference",
        "training.preference.hyperparams",
        "training.reward",
        "export",
        "evals",
        "gate",
    }
)


@dataclass(frozen=True, slots=True)
class HeaderReading:
    """What became of a header's text; `header` is None as soon as there is a problem."""

    header: Header | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    places: Mapping[str, tuple[int, int]]


def read_header(text: str, first_line: int) -> HeaderReading:
    """Read the YAML between the two `---` lines, the first of which is document line `first_line`. Never raises."""
    source = HeaderText.of(text, first_line)
    root, problems, lost = read_nodes(source)
    if root is None:
        return HeaderReading(None, tuple(problems), (), {})
    nodes = dict(_walk(root, ()))
    warnings: list[Problem] = []
    values = _plain(root, (), source, warnings)
    header: Header | None = None
    try:
        header = Header.model_validate(values)
    except ValidationError as error:
        problems += _explain(error, nodes, source, lost)
    places = {".".join(path): source.place(value.start) for path, (_, value) in nodes.items()}
    return HeaderReading(None if problems else header, tuple(problems), tuple(warnings), places)


def id_span(text: str) -> tuple[int, int] | None:
    """Where the value of `dlm_id` stands in the header's text, as offsets; None when it is not there."""
    root, _, _ = read_nodes(HeaderText.of(text, 2))
    for key, value in root.entries if root else ():
        if key.text == "dlm_id":
            return value.start, value.end
    return None


def _walk(node: Node, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], tuple[Node, Node]]]:
    """Every path below a node with its key (for list items: the item itself) and value."""
    for key, value in node.entries:
        here = (*path, key.text or "")
        yield here, (key, value)
        yield from _walk(value, here)
    for index, item in enumerate(node.items):
        here = (*path, str(index))
        yield here, (item, item)
        yield from _walk(item, here)


def _plain(node: Node, path: tuple[str, ...], source: HeaderText, warnings: list[Problem]) -> Any:
    """A node as text, None, lists and dicts for the schema; unsupported keys and values are left out with a warning."""
    if node.kind == "sequence":
        return [_plain(item, (*path, str(index)), source, warnings) for index, item in enumerate(node.items)]
    if node.kind == "scalar":
        instead = _look_up(_UNSUPPORTED_VALUES, path)
        if instead and node.text in instead:
            message = f"{'.'.join(path)}: {node.text} is not supported here; {instead[node.text]} is used"
            warnings.append(source.problem(node.start, "unsupported", message))
            return instead[node.text]
        return node.text
    mapping: dict[str, Any] = {}
    for key, value in node.entries:
        here = (*path, key.text or "")
        reason = _look_up(_UNSUPPORTED_KEYS, here)
        if value.kind == "scalar" and value.text is None and ".".join(here) in _BLOCKS:
            continue  # `training:` whose keys are all commented out
        if reason:
            message = f"{'.'.join(here)} is a key of the existing tool that is not supported here: {reason}"
            warnings.append(source.problem(key.start, "unsupported", message))
        else:
            mapping[key.text or ""] = _plain(value, here, source, warnings)
    return mapping


def _look_up(table: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The table's entry for a path, where `*` in the table stands for any one part."""
    exact = table.get(".".join(path))
    if exact is None and len(path) == 4:
        exact = table.get(f"{path[0]}.{path[1]}.*.{path[3]}")
    return exact


def _explain(
    error: ValidationError,
    nodes: Mapping[tuple[str, ...], tuple[Node, Node]],
    source: HeaderText,
    lost: frozenset[str],
) -> list[Problem]:
    """One problem for each value that the schema refuses, at its place."""
    faults: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for fault in error.errors(include_url=False, include_context=True):
        parts = tuple(str(part) for part in fault["loc"])
        found = _longest_known(parts, nodes)
        if fault["type"] == "missing":
            if parts[-1] not in lost:
                faults[parts, "missing-key"] = [f"{'.'.join(parts)} is missing"]
        elif fault["type"] == "extra_forbidden":
            faults[parts, "unknown-key"] = [
                f"unknown key {parts[-1]!r}{f' in {dotted}' if (dotted := '.'.join(parts[:-1])) else ''}"
            ]
        elif parts[-1] == "[key]":
            faults[parts[:-1], "bad-key"] = [f"{parts[-2]!r} is not a name: {_message(fault)}"]
        else:
            faults.setdefault((found, "bad-value"), []).append(_message(fault))
    problems = []
    for (path, code), messages in faults.items():
        if code == "missing-key":
            parent = nodes.get(path[:-1])
            place = source.place(parent[1].start) if parent else (source.first_line - 1, 1)
            fix = (
                f"{path[-1]}: ..."
                if parent
                else {"dlm_id": "", "base_model": "base_model: pocket"}.get(path[0], "")
            )
            problems.append(Problem(*place, code, messages[0], fix))
            continue
        key, value = nodes.get(path, (None, None))
        if key is None or value is None:
            problems.append(Problem(source.first_line - 1, 1, code, f"the header: {_either(messages)}"))
        elif code == "unknown-key":
            problems.append(source.problem(key.start, code, *_suggest(messages[0], path)))
        elif code == "bad-key":
            problems.append(source.problem(key.start, code, messages[0]))
        else:
            text = f"{'.'.join(path)}: {_either(messages)}; found {_show(value)}"
            problems.append(source.problem(value.start, code, text))
    return problems


def _longest_known(parts: tuple[str, ...], nodes: Mapping[tuple[str, ...], Any]) -> tuple[str, ...]:
    """The longest start of `parts` that stands in the header (the schema adds the names of alternatives)."""
    while parts and parts not in nodes:
        parts = parts[:-1]
    return parts


def _message(fault: Mapping[str, Any]) -> str:
    """The schema's complaint in plain words."""
    context = fault.get("ctx", {})
    kind = str(fault["type"])
    if fault["loc"] == ("dlm_version",) and kind == "less_than_equal":
        return f"this dlm reads versions up to {DOCUMENT_VERSION}; a newer dlm is needed"
    if kind == "literal_error":
        return f"expected {context['expected']}"
    for suffix, sign in (
        ("greater_than_equal", "at least"),
        ("less_than_equal", "at most"),
        ("greater_than", "more than"),
        ("less_than", "less than"),
    ):
        if kind == suffix:
            return f"must be {sign} {next(iter(context.values()))}"
    expected = {
        "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
        "float_type": "a number", "float_parsing": "a number", "finite_number": "a finite number",
        "bool_type": "true or false", "bool_parsing": "true or false", "string_type": "text",
        "list_type": "a list", "dict_type": "`name: value` lines", "model_type": "`key: value` lines",
        "string_too_short": "some text", "int_parsing_size": "a smaller number",
    }  # fmt: skip
    if kind in expected:
        return f"expected {expected[kind]}"
    if kind == "string_pattern_mismatch":
        return f"expected the form {context['pattern']}"
    return str(fault["msg"]).removeprefix("Value error, ")


def _either(messages: list[str]) -> str:
    """Complaints of alternatives, one of which would do, as one phrase."""
    first, *others = dict.fromkeys(messages)
    others = [other.removeprefix("expected ").replace("must be ", "a number ", 1) for other in others]
    return " or ".join([first, *others])


def _suggest(message: str, path: tuple[str, ...]) -> tuple[str, str]:
    """The message and fix for an unknown key: the nearest known key of the same mapping, else of any."""
    if path[:-1] == ("training",) and path[-1] in _NO_SUCH_KNOB:
        return f"{message}; {_NO_SUCH_KNOB[path[-1]]}", ""
    siblings = _known_keys(path[:-1])
    near = nearest(path[-1], siblings)
    if near:
        return f"{message}; did you mean {near!r}?", f"{near}:"
    elsewhere = [
        (*parent, path[-1])
        for parent in (
            (),
            ("training",),
            ("training", "preference"),
            ("training", "preference", "hyperparams"),
            ("training", "reward"),
            ("training", "rft"),
        )
        if path[-1] in _known_keys(parent)
    ]
    if elsewhere:
        return f"{message}; it belongs at {'.'.join(elsewhere[0])}", ""
    return f"{message}; known: {', '.join(siblings)}" if siblings else message, ""


def _known_keys(path: tuple[str, ...]) -> tuple[str, ...]:
    """The keys of the mapping at a path."""
    models: dict[tuple[str, ...], type[BaseModel]] = {
        (): Header,
        ("training",): Training,
        ("training", "preference"): Preference,
        ("training", "preference", "hyperparams"): PreferenceSettings,
        ("training", "reward"): Reward,
        ("training", "rft"): Rft,
        ("export",): Export,
        ("gate",): Gate,
    }
    nested: dict[tuple[str, ...], type[BaseModel]] = {
        ("training", "sources"): Source,
        ("training", "adapters"): AdapterSettings,
        ("evals",): Evaluation,
    }
    model = models.get(path) or nested.get(path[:-1])
    return tuple(model.model_fields) if model else ()


def _show(node: Node) -> str:
    """A value for a message: short, on one line."""
    if node.kind != "scalar":
        return "a list" if node.kind == "sequence" else "a mapping"
    if node.text is None:
        return "nothing"
    return repr(node.text if len(node.text) <= 60 else node.text[:57] + "...")
