"""Streamed text: whole characters, and nothing that a stop text takes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.model.streaming import TextStream, find_stop
from hostile_text import writable


def decode(ids: list[int]) -> str:
    return bytes(ids).decode(errors="replace")


@given(writable, st.lists(st.text("ab☃", min_size=1, max_size=3), max_size=2))
def test_pieces_join_to_the_text_and_never_hold_a_part_of_a_stop(text: str, stops: list[str]) -> None:
    stream = TextStream(decode, stops)
    pieces: list[str] = []
    ids: list[int] = []
    for byte in text.encode():
        ids.append(byte)
        if find_stop(ids, decode, stops):
            break
        pieces.append(stream.push(byte))
    cut = min((text.index(stop) for stop in stops if stop in text), default=len(text))
    pieces.append(stream.rest(text[:cut]))
    assert "".join(pieces) == text[:cut]
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


@given(st.binary(max_size=40))
def test_bytes_that_are_no_text_come_out_at_the_end(data: bytes) -> None:
    stream = TextStream(decode)
    given_out = "".join(stream.push(byte) for byte in data)
    whole = decode(list(data))
    assert given_out + stream.rest(whole) == whole


@pytest.mark.parametrize("stop", ["END", "é", "\n\n"])
def test_a_stop_is_seen_at_its_last_byte(stop: str) -> None:
    data = ("before " * 20 + stop).encode()
    assert not find_stop(list(data[:-1]), decode, [stop])
    assert find_stop(list(data), decode, ["absent", stop])
