"""What a person is told."""

import io
import warnings

import pytest

from mu_jax.console import Console
from mu_jax.errors import Doubt


def test_what_is_left_is_told_from_what_came_after_the_first_item(monkeypatch):
    """Which waits for its programs to be compiled; or was done before."""
    said, now = io.StringIO(), iter((0.0, 30.0, 41.0, 52.0, 54.0))
    console = Console(said)
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    for done in (0, 1, 12, 24, 26):
        console.progress("asking", done, 26)
    assert said.getvalue().splitlines() == [
        "  asking: 1/26 in 30 s",
        "  asking: 12/26 in 41 s, 14 s left",
        "  asking: 24/26 in 52 s, 2 s left",
        "  asking: 26/26 in 54 s",
    ]
    said.truncate(0)
    now = iter((100.0, 140.0, 151.0))
    for done in (10, 11, 12):  # taken up again
        console.progress("editing", done, 14)
    assert "12/14 in 51 s, 22 s left" in said.getvalue()
    assert "11/14 in 40 s\n" in said.getvalue()


def test_a_doubt_is_a_line_and_other_warnings_are_as_ever():
    said = io.StringIO()
    with pytest.warns(DeprecationWarning), Console(said).hearing():
        for _ in range(2):
            warnings.warn(Doubt("few tokens"), stacklevel=1)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert said.getvalue() == "  note: few tokens\n" * 2
