"""Several modules as one script, so that a page asks for it once: each further request costs a browser some
milliseconds that the first chart would wait for.

Modules keep their scopes: each becomes a function that gives its exports, in the order in which they need each other. Of
the language of modules that takes what these scripts use: named imports of one line from beside them, and exports of
functions, classes and constants where they are declared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

__all__ = ["join_modules", "library_as_constant"]

_IMPORT = re.compile(r'^import \{ ([\w, ]+) \} from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async function|function|class|const) (\w+))", re.MULTILINE)
_MODULE_WORD = re.compile(r"^(?:import|export)\b.*$", re.MULTILINE)


_NO_FORMATS = (
    "{ NumberFormat: class { format(value) { return String(value); } }, "
    'DateTimeFormat: class { resolvedOptions() { return { timeZone: "UTC" }; } } }'
)


def library_as_constant(name: str, source: str) -> str:
    """A library that puts one name into the page, as a constant of the script that it stands before.

    uPlot asks `Intl` for the formats of the browser's language while it loads, whether they are used or not. That takes a new
    page some 50 ms, and every text on our charts is our own: it sees a stand-in there.
    """
    return f"const {name} = ((Intl) => {{\n{source}\nreturn {name};\n}})({_NO_FORMATS});\n"


def join_modules(sources: Mapping[str, str], entries: Sequence[str]) -> str:
    """One module that does what a page with these entries, in this order, does.

    Args:
        sources: the text of every module by its name, without `.js`.
        entries: the modules that the page names; what they import comes along, each once.

    Raises:
        ValueError: an import or export of another form, a module that is not there, or modules that import each other.
    """
    return "\n".join(_wrapped(name, sources[name]) for name in _in_order(sources, entries)) + "\n"


def _in_order(sources: Mapping[str, str], entries: Sequence[str]) -> list[str]:
    done: list[str] = []

    def take(name: str, on_the_way: tuple[str, ...]) -> None:
        if name in on_the_way:
            raise ValueError(f"modules import each other: {' → '.join((*on_the_way, name))}")
        if name not in sources:
            raise ValueError(f"{(on_the_way or ('a page',))[-1]} imports {name}.js, which is not there")
        if name not in done:
            for needed in _needs(sources[name]):
                take(needed, (*on_the_way, name))
            done.append(name)

    for entry in entries:
        take(entry, ())
    return done


def _needs(source: str) -> Iterator[str]:
    return (found[2] for found in _IMPORT.finditer(source))


def _wrapped(name: str, source: str) -> str:
    exports = [found[1] for found in _EXPORT.finditer(source)]
    body = _EXPORT.sub("", _IMPORT.sub(r"const { \1 } = module_\2;", source))
    left = _MODULE_WORD.search(body)
    if left:
        raise ValueError(f"{name}.js: not understood: {left[0]}")
    return f"const module_{name} = (() => {{\n{body}\nreturn {{ {', '.join(exports)} }};\n}})();"
