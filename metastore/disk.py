"""Disks that SQLite cannot work on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from dag.errors import Unavailable

#: WAL needs shared memory between processes, which these do not give.
_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "fuse.glusterfs", "fuse.sshfs", "fuse.s3fs"}
)


def refuse_network(path: Path) -> None:
    """Raise :exc:`~dag.errors.Unavailable` where *path* is on a file system that SQLite's log does not work on."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return
    kind = file_system(os.path.realpath(path), mounts)
    if kind in _NETWORK:
        msg = (
            f"{path} is on a network file system ({kind}), where SQLite cannot keep its promises. "
            "Choose a home on a local disk, or a Postgres database by RUNYARD_DATABASE_URL."
        )
        raise Unavailable(msg)


def file_system(place: str, mounts: str) -> str:
    """Return the kind of file system that *place* is on, by the text of ``/proc/self/mountinfo``."""
    best, kind = "", ""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split(" ")[4].replace("\\040", " ")
        inside = point in {"/", place} or place.startswith(point + "/")
        if inside and len(point) >= len(best):  # of two on one point the later one covers the other
            best, kind = point, right.split(" ", 1)[0]
    return kind
