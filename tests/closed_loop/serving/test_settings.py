"""Where a policy server is and what opens it: addresses and tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from closed_loop.serving.settings import PolicyParameters, address, read_token
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


@pytest.mark.parametrize(
    "policy", ["driver", "driver:", ":Driver", ".driver:Driver", "a..b:Driver", "a/b.py:Driver", ""]
)
def test_what_names_no_class(policy: str) -> None:
    with pytest.raises(MonoError, match="module:Class"):
        PolicyParameters(policy=policy)


def test_a_device_that_no_machine_has_is_refused_at_once() -> None:
    for device in ("", "gpu", "cuda9", "cuda:", "cpu:7", "meta"):
        with pytest.raises(MonoError, match="cuda:1"):
            PolicyParameters(device=device)
    assert PolicyParameters(policy="own:Driver", device="tpu").device == "tpu", "a team's own knows its devices"


def test_a_folder_of_something_else_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    PolicyParameters(adapter=str(tmp_path)).check_folders()
    PolicyParameters(model="nvidia/some-model-of-the-hub").check_folders()
    for settings, says in (
        (PolicyParameters(model=str(tmp_path)), "no config.json"),
        (PolicyParameters(adapter=str(tmp_path.parent)), "no adapter_config.json"),
        (PolicyParameters(adapter=__file__), "no folder"),
        (PolicyParameters(model=str(tmp_path / "none")), "not there"),
    ):
        with pytest.raises(MonoError, match=says):
            settings.check_folders()
