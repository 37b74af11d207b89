"""Files for their owner only: secrets that are made once, and files that are replaced whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from gateway.errors import Unusable


def read_or_make(path: Path, make: Callable[[], bytes]) -> bytes:
    """Return a secret file's content, made on first use with mode 0600.

    Two processes that come first at once get the same content: the file appears whole under its
    name or not at all, and whoever comes second reads the first one's.

    Raises:
        Unusable: The file cannot be read or made; the sentence says why.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, draft = tempfile.mkstemp(dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(make())
                    file.flush()
                    os.fsync(file.fileno())
                # link() fails where rename() would replace what another process has just made.
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                Path(draft).unlink()
        return path.read_bytes()
    except OSError as error:
        raise Unusable(f"The secret file {path} cannot be used: {error.strerror}.") from None


def write_privately(path: Path, content: str | bytes) -> None:
    """Replace a file at once, readable by its owner only, and durably: the old one, or the new.

    A draft that a killed process leaves is called like the file, with a point before and a word
    after. Raises what the system raises.
    """
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    finally:
        Path(draft).unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a file is on the disk before its name is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
