"""What the surface of pairs gives away, without a tokenizer."""

from __future__ import annotations

from dlm.document.surface import audit, white_space_flags


def test_flags_of_one_pair() -> None:
    assert white_space_flags("Yes.", " Yes.\n") == ("only_white_space",)
    assert white_space_flags("Yes.\n", "No.") == ("final_newline",)
    assert white_space_flags(" Yes. ", "No.") == ("trailing_space", "leading_space")
    assert white_space_flags("a\r\nb", "c\nd") == ("line_endings",)
    assert white_space_flags("Yes.", "No.") == ()


def test_an_audit_names_what_tells_nearly_every_pair() -> None:
    pairs = [(f"It is {i}.", f"Well, it may be about {i}, I think\n") for i in range(20)]
    found = {finding.kind: finding for finding in audit(pairs)}
    assert {"final_newline", "final_punctuation", "length"} <= set(found)
    assert found["final_newline"].level == "warning"
    assert "the rejected answers end with a line end" in found["final_newline"].message
    assert (found["length"].count, found["length"].of) == (20, 20)
    assert audit([]) == []
    assert audit(pairs[:3]) == []  # too few to say so
