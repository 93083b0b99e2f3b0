"""What this project's own modules warn of is an error in all these tests."""

import warnings

import pytest


def warned(module: str) -> None:
    warnings.warn_explicit("old", DeprecationWarning, "x.py", 1, module)


@pytest.mark.parametrize("module", ["mu_jax.model.network", __name__])
def test_a_warning_of_ours_is_an_error(module):
    with pytest.raises(DeprecationWarning, match="old"):
        warned(module)


def test_one_of_another_library_is_not():
    with warnings.catch_warnings(record=True) as told:
        warned("jax._src.numpy")
    assert [str(one.message) for one in told] == ["old"]
