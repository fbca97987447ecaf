"""Writes a file whole or not at all: beside the old one first, and over it only when every byte is on the disk.

    name.<random>.tmp  --write, fsync-->  complete  --rename, fsync of the folder-->  name

Whatever happens in between, `name` holds either what it held or what it should. A killed process leaves a .tmp behind,
which nobody reads and a later `sweep` removes.
"""

import contextlib
import os
import secrets
import time
from pathlib import Path

from .errors import InsufficientStorage, WriteFailed

ORPHAN_AFTER_S = 600.0
ROOM_FACTOR = 2  # free space asked for, in sizes of the file


def write_atomically(path: Path, content: bytes) -> None:
    """Writes `content` to `path`, or raises WriteFailed and leaves what was there."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_room(path, len(content))
        _write(temporary, content)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, WriteFailed):
            raise
        raise WriteFailed(
            f"{path} could not be written: {error.strerror or error}. What was there before is untouched; free some "
            "space, or choose a folder that can be written to."
        ) from error


def sweep(folder: Path) -> None:
    """Removes what killed writers left behind, once it is too old to be still in the writing."""
    for orphan in folder.glob("*.tmp"):
        with contextlib.suppress(OSError):  # another process may sweep too
            if time.time() - orphan.stat().st_mtime > ORPHAN_AFTER_S:
                orphan.unlink()


def _check_room(path: Path, size: int) -> None:
    disk = os.statvfs(path.parent)
    free = disk.f_bavail * disk.f_frsize
    if free < ROOM_FACTOR * size:
        raise InsufficientStorage(
            f"{path} was not written: {free} bytes are free in its folder, {ROOM_FACTOR * size} are wanted for its "
            f"{size}. What was there before is untouched; free some space, or choose another folder."
        )


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with open(descriptor, "wb", buffering=0) as file:
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
