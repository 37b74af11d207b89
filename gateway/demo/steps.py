"""What a person sees while a demo goes on, and whose home it goes on in."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from gateway.embedded.home import Lock
from gateway.errors import Unavailable, Unusable

_T = TypeVar("_T")


class Steps:
    """The steps that are taken, as bars on a terminal and as lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        # Refreshed by hand: no thread of ours runs while children are forked.
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=console,
            auto_refresh=False,
            disable=not console.is_terminal,
        )

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the steps for as long as this lasts."""
        with self._bars:
            yield

    def begin(self, title: str, *, total: int | None) -> TaskID:
        """Begin a step that tells how far it is."""
        if not self._console.is_terminal:
            self._console.print(title)
        task = self._bars.add_task(title, total=total)
        self._bars.refresh()
        return task

    def show(self, task: TaskID, done: int, total: int) -> None:
        """Show how far a step is."""
        self._bars.update(task, total=total, completed=done, refresh=True)

    def step(self, title: str, work: Callable[[], _T]) -> _T:
        """Take a step, and return what came of it."""
        task = self.begin(title, total=1)
        done = work()
        self.show(task, 1, 1)
        return done

    def say(self, sentence: str) -> None:
        """Say something beside the bars."""
        self._bars.console.print(sentence, highlight=False)


@contextmanager
def own_home(home: Path | None, what: str) -> Iterator[Path]:
    """Give the home, or a temporary one that is removed afterwards.

    It stays where the product became unavailable: the sentence that says so points to a log there.
    """
    if home is not None:
        yield home.expanduser().absolute()
        return
    scratch = Path(tempfile.mkdtemp(prefix=f"wasl-{what}-"))
    try:
        yield scratch
    except Unavailable:
        raise
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def claimed(home: Path, what: str, *, story: Path, lock: Path, logs: Path) -> Iterator[None]:
    """Hold a home for one demo or soak alone, as `what` calls it; its folder there bears that name.

    Raises:
        Unusable: It is the home of something else, another holds it, or it cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        strangers = {entry.name for entry in home.iterdir()} - {what}
        if strangers and not story.exists():
            raise Unusable(
                f"{home} is not the home of a {what}: give --home an empty directory, or"
                f" one where a {what} was interrupted."
            )
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unusable(f"{home} cannot be a {what}'s home: {error.strerror}.") from None
    held = Lock(lock)
    if not held.take():
        raise Unusable(f"Another {what} is running in {home}.")
    try:
        yield
    finally:
        held.release()
