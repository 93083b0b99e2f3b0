"""What a patched run is judged by: one number a row, from the stream at its end.

A metric is a frozen dataclass. It is given the final-normed stream at each row's last
position, so that it unembeds no more than it needs: two or four rows of the table for a
logit difference, all of them for a probability. Where it `remembers`, it is given what
`reference` makes of the clean run's ends.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mu_jax.model.network import Network
from mu_jax.model.params import Params
from mu_jax.model.precision import EXACT
from mu_jax.types import Prompts

Ends = Float[Array, "*cell batch embedding"]
Values = Float[Array, "*cell batch"]


@dataclasses.dataclass(frozen=True)
class Metric:
    """What all metrics are: `name` is for people."""

    name = ""
    remembers = False

    def reference(self, network: Network, params: Params, clean: Ends) -> Array:
        """What the metric has to know of the clean run; by default nothing."""
        return jnp.zeros((len(clean), 0))

    def __call__(
        self,
        network: Network,
        params: Params,
        ends: Ends,
        prompts: Prompts,
        reference: Array,
    ) -> Values:
        """The metric of runs that end in `ends`, row by row of the prompts."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class LogitDiff(Metric):
    """Logit of the answer minus the mean logit of the other options.

    With `pooled`, the mean over the answers of the whole batch, repeats counted, minus
    that over all its other options: how the paper's runs of attribution counted.
    """

    name = "logit difference"
    pooled: bool = False

    def __call__(self, network, params, ends, prompts, reference):
        chosen, is_answer = prompts.options, prompts.options == prompts.answer[:, None]
        if self.pooled:
            shape = len(chosen), chosen.size
            is_answer = jnp.broadcast_to(is_answer.reshape(1, -1), shape)
            chosen = jnp.broadcast_to(chosen.reshape(1, -1), shape)
        logits = _float(network.logits_of(params, ends, chosen))
        share = lambda which: which / which.sum(axis=1, keepdims=True)
        signs = share(is_answer) - share(~is_answer)
        signs = signs.astype(logits.dtype)
        return jnp.einsum("...bo,bo->...b", logits, signs, precision=EXACT)


@dataclasses.dataclass(frozen=True)
class Probability(Metric):
    """Probability of the answer, over the whole vocabulary.

    With `pooled`, the sum over the answers of the whole batch, repeats counted: how the
    paper's runs of causal tracing counted.
    """

    name = "probability"
    pooled: bool = False

    def __call__(self, network, params, ends, prompts, reference):
        logits = _float(network.logits(params, ends))
        chosen = prompts.answer[:, None]
        if self.pooled:
            size = len(prompts.answer)
            chosen = jnp.broadcast_to(prompts.answer[None], (size, size))
        picked = jnp.broadcast_to(chosen, (*logits.shape[:-1], chosen.shape[-1]))
        logits_of = jnp.take_along_axis(logits, picked, axis=-1)
        total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        return jnp.exp(logits_of - total).sum(axis=-1)


@dataclasses.dataclass(frozen=True)
class LogProbability(Metric):
    """log p(answer) in nats, over the whole vocabulary."""

    name = "log probability"

    def __call__(self, network, params, ends, prompts, reference):
        logits = _float(network.logits(params, ends))
        chosen = jnp.broadcast_to(prompts.answer, logits.shape[:-1])[..., None]
        logit = jnp.take_along_axis(logits, chosen, axis=-1)[..., 0]
        return logit - jax.nn.logsumexp(logits, axis=-1)


@dataclasses.dataclass(frozen=True)
class KL(Metric):
    """KL(clean || patched) in nats over the whole vocabulary, negated: 0 is clean.

    At the clean run its gradient vanishes; attribute in the denoising direction.
    """

    name = "negative KL"
    remembers = True

    def reference(self, network: Network, params: Params, clean: Ends) -> Array:
        """[batch, vocabulary] the log-probabilities of the clean run."""
        return jax.nn.log_softmax(_float(network.logits(params, clean)))

    def __call__(self, network, params, ends, prompts, reference):
        patched = jax.nn.log_softmax(_float(network.logits(params, ends)))
        gap = patched - jnp.broadcast_to(reference, patched.shape)
        before = jnp.exp(reference)
        return jnp.einsum("...bv,bv->...b", gap, before, precision=EXACT)


def _float(logits: Array) -> Array:
    """In float32, or in float64 where the model is."""
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
