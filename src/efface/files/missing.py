"""Says of a file that is not there which file of its folder may have been meant."""

from __future__ import annotations

from pathlib import Path

from ..catalog import did_you_mean, find_closest

MOST_LISTED = 2000
"""Names of a folder that are compared with the missing one."""


def describe_missing(path: str | Path, what: str = "file") -> str:
    """The message for a file, or for `what` else, that does not exist; it names what is beside it by a similar name.

    Where the whole folder is missing, the message names the folder.
    """
    path = Path(path)
    if path.is_dir():
        return f"{path} is a folder; name a file in it"
    return f"no {what} {path}{_describe_place(path)}"


def require_file(path: str | Path) -> Path:
    """Returns the path; raises FileNotFoundError, which `describe_missing` words, where no file is there."""
    if not Path(path).is_file():
        raise FileNotFoundError(describe_missing(path))
    return Path(path)


def require_in(folder: Path, name: str, remedy: str) -> Path:
    """Returns the path of a file in a folder.

    Args:
        folder: the folder.
        name: the file's name.
        remedy: what would have worked, for the message.

    Raises:
        FileNotFoundError: there is no such folder, it is a file, or it has no file of this name.
    """
    path = folder / name
    if path.is_file():
        return path
    if folder.is_dir():
        raise FileNotFoundError(f"{folder} holds no {name}; {remedy}")
    if folder.exists():
        raise FileNotFoundError(f"{folder} is a file; give its folder, {folder.parent}")
    raise FileNotFoundError(f"{describe_missing(folder, 'folder')}; {remedy}")


def _describe_place(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent}"
    try:
        beside = [file.name for _, file in zip(range(MOST_LISTED), path.parent.iterdir(), strict=False)]
    except OSError:
        return ""
    close = find_closest(path.name, beside)
    return did_you_mean(path.name, close) if close else ""
