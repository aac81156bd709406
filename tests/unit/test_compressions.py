"""Compressions that not every Python has: used where a package brings them, and else said in one sentence."""

from __future__ import annotations

import sys

import pytest

from litetq import serialization
from litetq.exceptions import SerializerNotInstalled

MODULES = {"brotli": ("brotli", "brotlicffi"), "zstd": ("compression.zstd", "backports.zstd")}
TEXT = "an order of an order of an order " * 20


@pytest.mark.parametrize(("name", "package"), [("brotli", "brotli"), ("zstd", "backports.zstd")])
def test_a_package_that_is_missing_is_named(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in MODULES[name]:
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(SerializerNotInstalled, match=f"run: pip install {package}$"):
        serialization.encode(TEXT, "json", name)


@pytest.mark.parametrize(
    "name", ["zlib", "gzip", "bz2", "bzip2", "lzma", "xz", "brotli", "application/x-brotli", "zstd", "zstandard"]
)
def test_what_was_compressed_comes_back(name: str) -> None:
    try:
        content_type, data = serialization.encode(TEXT, "json", name)
    except SerializerNotInstalled as error:
        pytest.skip(str(error))
    assert len(data) < len(TEXT)
    assert content_type is not None
    assert serialization.decode(data, content_type) == TEXT
