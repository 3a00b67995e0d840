"""Built messages are code: what somebody else could have put there is not loaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from collector.common.errors import MonoError
from collector.ros.ownership import only_ours


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with one package of messages in it."""
    package = tmp_path / "base" / "cache" / "messages" / "abi" / "package"
    package.mkdir(parents=True)
    (package / "code.so").write_bytes(b"")
    for place in [tmp_path / "base", *(tmp_path / "base").rglob("*")]:
        place.chmod(0o700)
    return tmp_path / "base" / "cache"


PLACES = ("..", ".", "messages", "messages/abi", "messages/abi/package", "messages/abi/package/code.so")


def test_a_cache_of_ours_is_taken(cache: Path) -> None:
    assert only_ours(cache / "messages" / "abi", cache) == cache / "messages" / "abi"


@pytest.mark.parametrize("place", PLACES)
def test_what_everybody_may_write_is_refused(cache: Path, place: str) -> None:
    (cache / place).resolve().chmod(0o777)
    with pytest.raises(MonoError, match="may be written by everybody"):
        only_ours(cache / "messages" / "abi", cache)


@pytest.mark.parametrize("place", PLACES[1:])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_another_user_owns_is_refused(cache: Path, place: str) -> None:
    os.chown(cache / place, 12345, 12345)
    with pytest.raises(MonoError, match=r"belongs to another user \(12345\)"):
        only_ours(cache / "messages" / "abi", cache)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_group_counts_unless_it_is_the_users_own(cache: Path) -> None:
    code = cache / "messages" / "abi" / "package" / "code.so"
    code.chmod(0o770)
    assert only_ours(cache / "messages" / "abi", cache)  # root's own group
    os.chown(code, 0, 12345)
    with pytest.raises(MonoError, match="others of its group"):
        only_ours(cache / "messages" / "abi", cache)


def test_a_link_counts_as_what_it_leads_to(cache: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.so"
    elsewhere.write_bytes(b"")
    elsewhere.chmod(0o666)
    (cache / "messages" / "abi" / "package" / "more.so").symlink_to(elsewhere)
    with pytest.raises(MonoError, match=r"more\.so may be written by everybody"):
        only_ours(cache / "messages" / "abi", cache)


def test_a_folder_like_tmp_around_it_is_fine(cache: Path) -> None:
    cache.parent.chmod(0o1777)
    assert only_ours(cache / "messages" / "abi", cache)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_who_owns_the_folder_around_it_could_put_another_in_its_place(cache: Path, mode: int) -> None:
    os.chown(cache.parent, 12345, 12345)
    cache.parent.chmod(mode)
    with pytest.raises(MonoError, match=r"belongs to another user \(12345\)"):
        only_ours(cache / "messages" / "abi", cache)
