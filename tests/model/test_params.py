"""Parameters: what is taken out of the stacks and put back is what was named."""

import pytest

from mu_jax.errors import UserError
from mu_jax.model.params import put, take


@pytest.mark.parametrize(
    "tensors", [{"mlp/up": (0, 7)}, {"mlp/up": (-1,)}, {"no": (0,)}]
)
def test_a_layer_that_is_not_there_is_refused(tiny, tensors):
    new = take(tiny.params, {"mlp/up": (0, 1)})
    with pytest.raises(UserError, match="the selection is of another model"):
        take(tiny.params, tensors)
    with pytest.raises(UserError, match="the selection is of another model"):
        put(tiny.params, tensors, new)
