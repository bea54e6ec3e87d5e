"""The identity of a base: one hash over everything that decides what it says.

An adapter fits the base it was trained on and no other, so versions, reference log-probs and resumed runs compare
this hash.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["fingerprint_folder"]

_SUFFIXES = {".safetensors", ".model", ".jinja", ".tiktoken"}
_NAMES = {
    "config.json",
    "generation_config.json",  # its list of end tokens decides where answers stop
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
}
_SHA256_NAME = re.compile(r"[0-9a-f]{64}")
_hashes: dict[tuple[str, int, int], str] = {}  # (path, bytes, modified in ns) -> sha256


def fingerprint_folder(folder: Path) -> str:
    """sha256 over the names and bytes of a model folder's configuration, weights, tokenizer and chat template.

    Where the folder lies does not matter, nor do its card and licence. Hashing reads every byte once per process.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(_parts(folder)):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{_hash_file(path)}\n".encode())
    return digest.hexdigest()


def _parts(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_file() and (path.name in _NAMES or path.suffix in _SUFFIXES):
            yield path
    templates = folder / "additional_chat_templates"
    if templates.is_dir():
        yield from templates.glob("*.jinja")


def _hash_file(path: Path) -> str:
    real = path.resolve()
    if real.parent.name == "blobs" and _SHA256_NAME.fullmatch(real.name):
        return (
            real.name
        )  # the Hub's cache names large files by their sha256: gigabytes need not be read again
    state = real.stat()
    key = (str(real), state.st_size, state.st_mtime_ns)
    if key not in _hashes:
        with real.open("rb") as stream:
            _hashes[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _hashes[key]
