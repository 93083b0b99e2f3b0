"""How exactly matrix products are taken of float32 numbers.

On a CPU they are float32. A TPU's own products are bfloat16, and a recent GPU's are
tf32, unless a program asks for more:

    default   one pass: what the chip does fastest, 8 bits of each factor on a TPU
    high      three passes on a TPU
    highest   six passes: float32

A network asks for the products of its own layers; what is computed around it (gradients
of low rank, scores, covariances) is small and always EXACT. Factors that are bfloat16
are multiplied in one pass whatever is asked.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mu_jax.errors import UserError

Precision = Literal["default", "high", "highest"]

EXACT = jax.lax.Precision.HIGHEST

Method = TypeVar("Method", bound=Callable[..., Any])

PASSES: dict[str, int] = {"default": 1, "high": 3, "highest": 6}
"""Of bfloat16 products on a TPU, for a float32 one."""


def products(dtype: str, asked: Precision | None = None) -> Precision:
    """What is asked for; by default float32 products for a float32 model.

    Raises:
      UserError: no such precision.
    """
    if asked not in (None, *get_args(Precision)):
        raise UserError(
            f"precision = {asked!r}", f"one of {', '.join(get_args(Precision))}"
        )
    return asked or ("default" if dtype == "bfloat16" else "highest")


def precisely(method: Method) -> Method:
    """Products, and their derivatives', are as the network's `precision` says.

    Of a method of `Network`, or of a function whose first argument is one.
    """

    @functools.wraps(method)
    def run(network: Any, *args: Any, **named: Any) -> Any:
        with jax.default_matmul_precision(network.precision):
            return method(network, *args, **named)

    return run  # pyright: ignore[reportReturnType]


def wide(array: Array) -> Array:
    """In float32 at least: sums of bfloat16 numbers would be off by per cents."""
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))
