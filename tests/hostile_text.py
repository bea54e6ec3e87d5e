"""Texts made to break the format: every piece of its grammar, nearly right and exactly right, in any order."""

from __future__ import annotations

from hypothesis import strategies as st

HEADER = "---\ndlm_id: 01KPQ9X1000000000000000000\ndlm_version: 15\nbase_model: pocket   # mine\n---\n"

FRAGMENTS = (
    "::instruction::", "::preference::", "::prose::", "::instruction#tone::", "::Instruction::", ":: prose ::",
    " ::preference::", "::preference:: ", "::prose::\u200b", ":::", "::", ":", "::note::", ':::note', "::instructon::",
    '::image path="a" alt="b"::', "::instruction", ":prose:",
    "- ::prose::", "**::instruction::**", "> ", "**", "1. ", "::preference:: <!-- x -->", "::prose::x", "# ::Prose#a::", "(", '"',
    "### Q", "### A", "### Q !probe", "### Prompt", "### Chosen", "### Rejected", " ### A ", "###A", "### q", "### Q:",
    "### A quick one", "## Q", "###",
    "```", "````", "```python", "~~~", "~~~~ x", "   ```", "    ```", "``` `", "```  ", "`", "~",
    "\\", "\\\\", "\\```", "\\::prose::", "\\### A", " \\### A",
    '<!-- dlm-auto-mined: judge_name="x" -->', "<!-- dlm-auto-harvest: source=\"a\" -->", "<!-- ", "-->", "---", "--- ",
    "\n", "\n", "\n", "\n\n", "\r\n", "\r", "\r\r\n", " ", "\t", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029",
    "\ufeff", "\u200f", "\xa0", "a", "b c", "é", "𝒳", "key: value", "- item", "# title", "&quot;", '"',
)  # fmt: skip

writable = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=40
)
"""Any Unicode text that a UTF-8 file can hold."""

hostile = st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=14).map("".join)
"""Text of the grammar's own pieces."""

hostile_lines = st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=14).map("\n".join)
"""The same with most pieces on lines of their own."""

texts = st.one_of(hostile_lines, hostile, writable)
"""What must round-trip exactly."""

TAILS = ("", "\n", "\n\n", "\n\n\n", "\n  \n", "\n  ", "\r", "  ")

BODIES = (
    "",
    "Some prose.",
    "\nSome prose.\r\n\n::prose::\nMore, \\::prose:: and\n```\n::instruction::\n```",
    "::instruction::\n### Q\nq?\n### A\na.\n::preference#tone::\n### Prompt\np\n\n### Chosen\nc\n\n### Rejected\nr",
    '\n\nText\n\n\n::instruction::\n<!-- dlm-auto-harvest: source="x" -->\n### Q !probe\nq\n### A\n\\ \n\n::prose::\n',
)

documents = st.builds(
    lambda body, tail, feed: (HEADER + body + tail).replace("\r\n", "\n").replace("\n", feed),
    st.sampled_from(BODIES),
    st.sampled_from(TAILS),
    st.sampled_from(("\n", "\r\n")),
)
"""Sound documents with every kind of section, line end and last line."""
