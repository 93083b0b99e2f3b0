"""The shapes that annotations state are checked in all these tests."""

import importlib
import inspect
import pkgutil
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import pytest
import shapes
from jaxtyping import Float, TypeCheckError, jaxtyped

import mu_jax
from mu_jax.model.network import take_last


def test_the_library_is_given_no_other_shape_than_it_states():
    stream, last = jnp.zeros((2, 5, 3)), np.array([4, 1])
    assert take_last(stream, last).shape == (2, 3)
    for wrong in ((stream, last[:1]), (stream[0], last), (stream, last / 2)):
        with pytest.raises(TypeCheckError, match=r"network\.take_last"):
            take_last(*wrong)


def test_results_are_checked_too_and_what_is_no_shape_is_not():
    @jaxtyped(typechecker=shapes.checked)
    def turned(
        x: Float[np.ndarray, "a b"] | None, by: Sequence[str]
    ) -> tuple[Float[np.ndarray, "b a"], str] | float:
        return by(x)

    x = np.zeros((2, 3))
    assert turned(x, lambda x: (x.T, 7))[1] == 7
    assert turned(None, lambda x: 1) == 1
    for by in (lambda x: (x, ""), lambda x: (x.T.astype(int), ""), lambda x: x.T):
        with pytest.raises(TypeCheckError, match="return value"):
            turned(x, by)


def test_every_module_that_states_a_shape_is_checked():
    found = set()
    for name in (m.name for m in pkgutil.walk_packages(mu_jax.__path__, "mu_jax.")):
        module = importlib.import_module(name)
        own = [v for v in vars(module).values() if inspect.getmodule(v) is module]
        parts = [f for v in own if inspect.isclass(v) for f in vars(v).values()]
        hints = [inspect.get_annotations(f) for f in (*own, *parts) if callable(f)]
        if any(shapes._shaped(hint) for named in hints for hint in named.values()):
            found.add(name)
            assert type(module.__loader__).__name__ == "_JaxtypingLoader", name
    assert len(found) > 40 and found <= set(shapes.stating())
