"""Writes files and folders whole or not at all: first under a temporary name, then renamed.

A temporary file is named `.NAME.efface-HOST-PROCESS-RANDOM`. If a process is killed, its temporary files stay; the next
process that writes in the folder on the same machine removes them.
"""

from __future__ import annotations

import errno
import functools
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .digests import hash_bytes

TEMPORARY = re.compile(r"\.([^/]+)\.efface-([0-9a-f]{8})-(\d+)-[0-9a-f]{8}")
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
WRONG = (errno.EISDIR, errno.ENOTDIR, errno.ENOENT, errno.EEXIST, errno.ENAMETOOLONG)
REFUSALS = frozenset((*FULL, *CLOSED, *WRONG))
"""The errors of a full disk, or of a path that can't be written."""
OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)
"""The errors of a folder that is renamed to the name of another one that holds files."""


def write_whole(path: str | Path, data: str | bytes) -> Path:
    """Writes a file, whole or not at all.

    Raises:
        OSError: it can't be written; the message names the path.
    """
    with new_file(path) as made:
        made.write_bytes(data.encode() if isinstance(data, str) else data)
    return Path(path)


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path to write to; after the block the file has its final path, or is removed after an error.

    Raises:
        OSError: it can't be written, for example because the disk is full; the message names the path. An earlier file
            stays.
    """
    path = Path(path)
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        made = _name_temporary(path)
        try:
            yield made
            made.chmod(0o644)
            os.replace(made, path)
        finally:
            made.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: str | Path, replace: bool = False) -> Iterator[Path]:
    """Gives a temporary folder to write in; after the block it has its final name, or is removed after an error.

    Args:
        folder: the final name.
        replace: whether an existing folder of this name is replaced at the end.

    Raises:
        FileExistsError: something has this name already, and `replace` is False.
        OSError: it can't be written, for example because the disk is full; the message names the folder.
    """
    folder = Path(folder)
    if folder.exists() and not replace:
        raise FileExistsError(f"{folder} exists; name a folder that does not")
    with _naming(folder):
        made = make_scratch(folder)
        try:
            yield made
            made.chmod(0o755)
            _rename_folder(made, folder, replace)
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _rename_folder(made: Path, folder: Path, replace: bool) -> None:
    """Gives a folder its final name. What has that name is moved aside first, for other processes may do the same."""
    earlier: list[Path] = []
    while True:
        try:
            os.rename(made, folder)
            break
        except OSError as error:
            if not replace or error.errno not in OCCUPIED:
                raise
        aside = _name_temporary(folder)
        with suppress(FileNotFoundError):  # another process has moved it
            os.rename(folder, aside)
            earlier.append(aside)
    for aside in earlier:
        shutil.rmtree(aside, ignore_errors=True)


def make_scratch(path: str | Path) -> Path:
    """Makes a new folder beside this path, which the caller removes; after a kill, a later run does.

    Raises:
        OSError: it can't be made; the message names the path.
    """
    path = Path(path)
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        made = _name_temporary(path)
        made.mkdir(mode=0o700)
    return made


def sweep(folder: Path) -> list[str]:
    """Removes unfinished files of killed processes of this machine from a folder; returns their names."""
    gone = []
    for entry in list(os.scandir(folder)) if folder.is_dir() else ():
        match = TEMPORARY.fullmatch(entry.name)
        if match is None or match[2] != _name_host() or _is_alive(int(match[3])):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink(missing_ok=True)
        gone.append(entry.name)
    return gone


@functools.cache
def _sweep_once(folder: str) -> None:
    sweep(Path(folder))


def _name_temporary(path: Path) -> Path:
    """A name beside the path that no other writer has; also removes unfinished files of processes that are gone."""
    _sweep_once(os.path.realpath(path.parent))
    # File systems allow 255 bytes; a long name of another alphabet is cut.
    stem = path.name.encode()[:180].decode(errors="ignore")
    return path.with_name(f".{stem}.efface-{_name_host()}-{os.getpid()}-{secrets.token_hex(4)}")


@functools.cache
def _name_host() -> str:
    return hash_bytes(platform.node().encode())[:8]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns errors of the disk, and of libraries that write to it, into one sentence with the path."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error
    except OSError as error:
        if error.errno in REFUSALS and _concerns(error, path):
            raise OSError(f"cannot write {path}: {error.strerror}") from error
        if TEMPORARY.search(str(error)):
            raise OSError(TEMPORARY.sub(r"\1", str(error))) from error
        raise


def _concerns(error: OSError, path: Path) -> bool:
    """Whether an error is about the path, its folder or a folder above, not about a file that was read meanwhile."""
    if error.filename is None:
        return True
    where = Path(os.fsdecode(error.filename))
    return where.is_relative_to(path.parent) or path.parent.is_relative_to(where)
