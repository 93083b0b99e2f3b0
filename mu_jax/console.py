"""What a person sees while a run goes on: stages, and a bar for whatever is running."""

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator

from rich.console import Console as Rich
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from mu_jax.errors import Doubt


class Console:
    """Progress on a terminal as a moving bar, elsewhere as a line every few seconds.

    Attributes:
      gone: whether whoever read it is gone, as in `mu ... | head`.
      on_gone: what is done then; by default BrokenPipeError is raised.
    """

    quiet_seconds = 10.0

    def __init__(self, file=None):
        self.rich = _Piped(self._leave, file=file or sys.stderr, highlight=False)
        self.gone = False
        self.on_gone: Callable[[], None] = _raise
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._what = ""
        self._began = self._spoke = 0.0
        self._reports: list[tuple[float, int]] = []  # the first two: when, how much

    def mute(self) -> None:
        """Says nothing from now on: another process speaks for all."""
        self.rich.quiet = True

    def say(self, text: str) -> None:
        """One line, above the bar if there is one."""
        self.finish()
        self.rich.print(text, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def hearing(self) -> Iterator[None]:
        """Inside, each `Doubt` of the library is said as a line, every time."""
        with warnings.catch_warnings():
            other = warnings.showwarning

            def show(message, category, *where, **more) -> None:
                if issubclass(category, Doubt):
                    self.say(f"  note: {message}")
                else:
                    other(message, category, *where, **more)

            warnings.simplefilter("always", Doubt)
            warnings.showwarning = show
            yield

    def stage(self, number: int, total: int, name: str, why: str = "") -> None:
        """The heading of a stage."""
        self.finish()
        self.rich.rule(f"[bold]{number}/{total} {name}[/]  {why}", align="left")

    def show(self, what: Table | Text) -> None:
        """A table, or a paragraph, wrapped to the terminal's width."""
        self.finish()
        self.rich.print(what)

    def progress(self, what: str, done: int, total: int) -> None:
        """A `types.Progress`: what is running, how far it is, how long it will take."""
        now = time.monotonic()
        if what != self._what:
            self.finish()
            self._what, self._began, self._spoke = what, now, now
            self._reports = []
            if self.rich.is_terminal:
                self._bar = Progress(
                    TextColumn("  {task.description}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TimeElapsedColumn(),
                    TextColumn("left"),
                    TimeRemainingColumn(),
                    console=self.rich,
                )
                self._bar.start()
                self._task = self._bar.add_task(what, total=total)
        if self._bar:
            self._bar.update(self._task, completed=done, total=total)
        elif now - self._spoke > self.quiet_seconds or done == total:
            self._spoke = now
            spent = now - self._began
            left = self._left(now, done, total)
            self.rich.print(
                f"  {what}: {done}/{total} in {spent:.0f} s{left}", markup=False
            )
        if len(self._reports) < 2:
            self._reports.append((now, done))

    def _left(self, now: float, done: int, total: int) -> str:
        """How long the rest takes, from what came after the first item.

        For that one programs are compiled. What was done before it in another command
        took this one no time.
        """
        began, before = (self._reports or [(now, done)])[-1]
        if len(self._reports) < 2 or not before < done < total:
            return ""
        return f", {(now - began) / (done - before) * (total - done):.0f} s left"

    def finish(self) -> None:
        """Takes the bar down."""
        if self._bar:
            self._bar.stop()
        self._bar, self._what = None, ""

    def last(self, line: str) -> None:
        """The one line with which a command ends that did not go well, if any."""
        with contextlib.suppress(BrokenPipeError):
            self.finish()
            if line:
                print(f"mu: {line}", file=sys.stderr)
        _hush()

    def _leave(self) -> None:
        self.gone = True
        self.mute()
        _hush()
        self.on_gone()


class _Piped(Rich):
    """Tells when its pipe is closed, rather than to exit."""

    def __init__(self, leave: Callable[[], None], **settings):
        super().__init__(**settings)
        self._leave = leave

    def on_broken_pipe(self) -> None:
        self._leave()


def _raise() -> None:
    raise BrokenPipeError


def _hush() -> None:
    """Leads streams that cannot be written away, or Python tells of them at exit."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
