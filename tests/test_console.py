"""What a person is told."""

import io
import warnings

import pytest

from mu_jax.console import Console
from mu_jax.errors import Doubt


def test_a_doubt_is_a_line_and_other_warnings_are_as_ever():
    said = io.StringIO()
    with pytest.warns(DeprecationWarning), Console(said).hearing():
        for _ in range(2):
            warnings.warn(Doubt("few tokens"), stacklevel=1)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert said.getvalue() == "  note: few tokens\n" * 2
