"""Joined scripts: what each module declares stays its own, and they run in the order in which they need each other."""

from __future__ import annotations

import re

import pytest

from dlm.web.joining import join_modules, library_as_constant
from dlm.web.static_files import FOLDER, PAGES, static_files

SOURCES = {
    "a": 'import { b, C } from "./b.js";\nconst own = b() + C.n;\nwindow.seen.push(own);\n',
    "b": "const own = 1;\nexport function b() {\n  return own;\n}\nexport class C {\n  static n = 2;\n}\n",
    "d": 'import { b } from "./b.js";\nexport const d = async () => b();\nwindow.seen.push("d");\n',
}


def test_what_is_needed_comes_first_and_once() -> None:
    joined = join_modules(SOURCES, ["d", "a"])
    assert re.findall(r"^const module_(\w+)", joined, re.MULTILINE) == ["b", "d", "a"]
    assert "const { b, C } = module_b;" in joined
    assert "return { b, C };" in joined
    assert not re.search(r"^(import|export)\b", joined, re.MULTILINE)


def test_it_does_what_the_modules_do(browser: object) -> None:
    page = browser.new_page()  # type: ignore[attr-defined]
    page.evaluate("window.seen = []")
    page.add_script_tag(content=join_modules(SOURCES, ["d", "a"]), type="module")
    page.wait_for_function("window.seen.length === 2")
    assert page.evaluate("window.seen") == ["d", 3]
    page.close()


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ({"a": 'import x from "./b.js";\n', "b": ""}, "a.js: not understood: import x"),
        ({"a": "export default 3;\n"}, "not understood: export default"),
        ({"a": 'import { b } from "./b.js";\n'}, "a imports b.js, which is not there"),
        (
            {"a": 'import { b } from "./b.js";\n', "b": 'import { a } from "./a.js";\n'},
            "modules import each other: a → b → a",
        ),
    ],
)
def test_other_forms_are_refused(sources: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        join_modules(sources, ["a"])


def test_every_script_and_style_is_on_some_page() -> None:
    contents = static_files().contents
    joined = b"".join(contents[f"page/{page}.js"] for page in PAGES).decode()
    for path in (FOLDER / "js").glob("*.js"):
        assert f"const module_{path.stem} " in joined, path.name
    sheets = {sheet for page in PAGES.values() for sheet in page.sheets}
    assert sheets == {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.css")}


def test_a_library_asks_for_no_formats_and_gives_its_name(browser: object) -> None:
    library = 'var gives = (new Intl.DateTimeFormat).resolvedOptions().timeZone + new Intl.NumberFormat("de").format(1.5);'
    page = browser.new_page()  # type: ignore[attr-defined]
    script = (
        library_as_constant("gives", library)
        + "window.got = [gives, new Intl.NumberFormat('de').format(1.5)];"
    )
    page.add_script_tag(content=script, type="module")
    page.wait_for_function("window.got")
    assert page.evaluate("window.got") == ["UTC1.5", "1,5"]  # the page's own stays what it is
    page.close()
