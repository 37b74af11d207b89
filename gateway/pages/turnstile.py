"""A bound on costly work: so many at once, a few in line, the rest are told to come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Final

WAIT_SECONDS_MAX: Final = 10.0


class Full(Exception):
    """Too many are in line already. An answer for the caller, never a fault."""


class Turnstile:
    """Lets a few threads through at a time, so that the others stay free for pages."""

    def __init__(self, at_once: int, in_line: int) -> None:
        self._through = BoundedSemaphore(at_once)
        self._inside = BoundedSemaphore(at_once + in_line)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn and take it.

        Raises:
            Full: The line is full, or did not move.
        """
        if not self._inside.acquire(blocking=False):
            raise Full
        try:
            if not self._through.acquire(timeout=WAIT_SECONDS_MAX):
                raise Full
            try:
                yield
            finally:
                self._through.release()
        finally:
            self._inside.release()
