"""The primitive: the metric of a base run whose sites are moved towards a donor run.

    f(w) = metric(run(base, x <- x + w * (donor - x)))

with one weight per (layer, row, position) of each kind of site. f(0) is the base run,
f(1) the donor run, f(e_i) - f(0) tracing of one site, and the gradient of f at 0
attribution patching of all of them at once.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from mu_jax.model.model import run
from mu_jax.model.network import Network
from mu_jax.model.params import Params
from mu_jax.model.taps import Patch
from mu_jax.types import Prompts

Metric = Callable[[Float[Array, "batch vocabulary"], Prompts], Float[Array, " batch"]]
Weights = Mapping[str, Float[Array, "layer batch rest *head"]]
Donors = Mapping[str, Float[Array, "layer batch rest *site"]]


def logit_diff(
    logits: Float[Array, "batch vocabulary"], prompts: Prompts
) -> Float[Array, " batch"]:
    """Logit of the answer minus the mean logit of the other options, in float32."""
    options = jnp.take_along_axis(logits, prompts.options, axis=1).astype(jnp.float32)
    is_answer = prompts.options == prompts.answer[:, None]
    others = jnp.where(is_answer, 0, options).sum(axis=1)
    answer = jnp.where(is_answer, options, 0).sum(axis=1)
    return answer - others / (options.shape[1] - 1)


def donors(
    network: Network,
    params: Params,
    prompts: Prompts,
    kinds: tuple[str, ...],
    prefix: int,
) -> tuple[Float[Array, "batch vocabulary"], Donors]:
    """One plain run: its logits, and its activations at every site of `kinds`."""
    return run(network, params, prompts, {}, prefix=prefix, read=kinds)


def zero_weights(donors: Donors) -> dict[str, Array]:
    """The weights that patch nothing: one a (layer, row, position), and head."""
    return {
        kind: jnp.zeros(donor.shape[: 4 if kind == "head" else 3])
        for kind, donor in donors.items()
    }


def patched(
    network: Network,
    params: Params,
    base: Prompts,
    weights: Weights,
    donors: Donors,
    metric: Metric,
    prefix: int,
) -> Float[Array, " batch"]:
    """f(w): the metric of each base row under the patch."""
    patch = {kind: Patch(weights[kind], donors[kind]) for kind in donors}
    return metric(run(network, params, base, patch, prefix=prefix).logits, base)
