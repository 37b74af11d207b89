"""Secrets that are files in the home: made once, readable by their owner only."""

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
