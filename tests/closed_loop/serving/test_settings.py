"""Where a policy server is and what opens it: addresses and tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from closed_loop.serving.settings import address, read_token
from collector.common.errors import MonoError


@pytest.mark.parametrize(
    "text", ["gpu-box", "gpu-box:", ":8000", "a b:1", "x:0", "x:65536", "::1:80", "x:²", "http://x:1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(MonoError, match="policy_server"):
        address(text)


def test_addresses_and_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [address(text) for text in ("gpu-box:8000", "ws://10.0.0.2:80", "[::1]:8000")] == [
        ("gpu-box", 8000),
        ("10.0.0.2", 80),
        ("::1", 8000),
    ]
    monkeypatch.setenv("ALPAMAYO_MONO_TOKEN", "of-the-environment")
    (tmp_path / "token").write_text("of-the-file\nmore\n")
    (tmp_path / "empty").write_text("")
    assert read_token("") == "of-the-environment"
    assert read_token("", "given") == "given"
    assert read_token(str(tmp_path / "token"), "given") == "of-the-file"
    for bad in (tmp_path / "empty", tmp_path / "none", tmp_path):
        with pytest.raises(MonoError, match="token"):
            read_token(str(bad))
    with pytest.raises(MonoError, match="token"):
        read_token("", "a\r\nHost: b")
