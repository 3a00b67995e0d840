"""Code that was built into a cache runs only where nobody else could have put it there."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

from collector.common.errors import MonoError


def only_ours(folder: Path, cache: Path) -> Path:
    """A folder of code below a cache, given back if only this user and root could have written any of it.

    Raises:
        MonoError: another user owns a file or a folder of it or of the cache, or others may write there.
    """
    # Who may write the folder around the cache could put another one in its place, unless it is root's, as /tmp is.
    for place in (cache.parent, cache, *(above for above in folder.parents if cache in above.parents)):
        _refuse(place, folder, is_around=place == cache.parent)
    for place in (folder, *folder.rglob("*")):
        _refuse(place, folder)
    return folder


def _refuse(place: Path, folder: Path, is_around: bool = False) -> None:
    facts = place.stat()  # of what a link leads to
    why = ""
    if facts.st_uid not in (os.geteuid(), 0):
        why = f"belongs to another user ({facts.st_uid})"
    elif facts.st_mode & stat.S_ISVTX and is_around:
        return
    elif facts.st_mode & stat.S_IWOTH:
        why = "may be written by everybody"
    elif facts.st_mode & stat.S_IWGRP and not _is_a_group_of_one(facts):
        why = "may be written by others of its group"
    if why:
        do = f"remove {folder} and build again, or set XDG_CACHE_HOME to a folder that only you may write to"
        raise MonoError(f"built ROS messages are code, and {place} {why}", "files that only you can change", do)


def _is_a_group_of_one(facts: os.stat_result) -> bool:
    """Whether the group is the one that many systems give each user for himself alone, with umask 002."""
    try:
        user, group = pwd.getpwuid(facts.st_uid), grp.getgrgid(facts.st_gid)
    except KeyError:
        return False
    return user.pw_name == group.gr_name and not set(group.gr_mem) - {user.pw_name}
