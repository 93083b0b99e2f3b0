"""What flows along every edge in one batch: each write's change times each read's pull.

What Gemma needs for this:

    post-norms      a head's write is not separable from the other heads' of its layer;
                    it is taken to first order, through the norm's Jacobian
    q/k-norms       a read is pulled back through norm, rotation and projection, head by
                    head, by the vector-Jacobian product of the block's own layers
    grouped queries a key or value is one reader, however many heads attend to it
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mu_jax.localizers.metrics import Metric
from mu_jax.localizers.patching import Donors, Inputs, record
from mu_jax.model import attention
from mu_jax.model.network import Network, take_last
from mu_jax.model.precision import EXACT
from mu_jax.types import Prompts

READS = ("query", "key", "value")
"""What attention reads the stream for, in the order of the readers of a layer."""


@functools.partial(jax.jit, static_argnames=("network", "metric", "prefix"))
def flow(
    network: Network,
    params,
    clean: Inputs,
    corrupt: Inputs,
    real: Float[Array, " batch"],
    t: Float[Array, ""],
    *,
    metric: Metric,
    prefix: int,
) -> tuple[Float[Array, "writer reader"], Float[Array, " 2"]]:
    """Each edge's sum over `real` rows, and the metric of clean and corrupt runs.

    Gradients are taken where the embeddings have moved by `t` towards the corrupt ones.
    """
    asked = clean.prompts
    see = functools.partial(
        record, network, params, kinds=("head", "mlp"), prefix=prefix
    )
    (ends, before), (corrupt_ends, after) = see(clean), see(corrupt)
    first = network.embeddings(params, asked.tokens[:, prefix:])
    other = network.embeddings(params, corrupt.prompts.tokens[:, prefix:])
    step = other - first + (0 if corrupt.noise is None else corrupt.noise)
    reference = metric.reference(network, params, ends)
    of = functools.partial(jnp.einsum, precision=EXACT)
    judge = lambda at: of("b,b->", metric(network, params, at, asked, reference), real)
    pull, reads = _gradients(network, params, clean, t * step, judge, prefix)
    change = jax.tree.map(jnp.subtract, after, before)
    written = _written(network, params, step, change, reads["head"])
    entering = jnp.concatenate([(first + t * step)[None], reads["resid"][:-1]])

    def into(layer):
        """[writer, reader] the edges into one layer."""
        pulled = _pulled(network, params, layer, entering, pull, asked, prefix)
        return of("wbse,rbse->wr", written, pulled)

    edges = jax.lax.map(into, jnp.arange(network.spec.layers))
    edges = jnp.moveaxis(edges, 0, 1).reshape(len(written), -1)
    final = of("wbse,bse->w", written, pull["resid"][-1])
    return (
        jnp.concatenate([edges, final[:, None]], axis=1),
        jnp.stack([judge(ends), judge(corrupt_ends)]),
    )


def _gradients(
    network: Network, params, inputs: Inputs, noise: Array, judge, prefix: int
) -> tuple[Donors, Donors]:
    """Of what `judge` says of the run's ends: gradients at the reads, and activations.

    The gradients are at queries, keys, values, the MLPs' inputs and the stream.
    """
    kinds = (*READS, "mlp_in", "resid")
    seen = functools.partial(record, network, kinds=kinds, prefix=prefix)
    shapes = jax.eval_shape(seen, params, inputs)[1]
    asked = inputs.prompts

    def total(shift):
        stream, reads = network.stream(
            params,
            asked.tokens,
            asked.valid,
            prefix=prefix,
            noise=noise,
            shift=shift,
            read=("resid", "head"),
        )
        return judge(take_last(stream, asked.last - prefix)), reads

    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    return jax.grad(total, has_aux=True)(zeros)


def _written(
    network: Network, params, step: Array, change: Donors, heads: Array
) -> Float[Array, "writer batch rest embedding"]:
    """How every write changes: embedding, then each layer's heads and its MLP.

    Heads write through the post-norm, which is linearised where the run is.
    """

    def of_layer(layer):
        write = functools.partial(attention.write, network, params, layer)
        _, push = jax.linearize(write, heads[layer])
        own = jax.vmap(push)(_one_by_one(change["head"][layer]))
        return jnp.concatenate([own, change["mlp"][layer][None]])

    written = jax.lax.map(of_layer, jnp.arange(network.spec.layers))
    return jnp.concatenate([step[None], written.reshape(-1, *step.shape)])


def _pulled(
    network: Network,
    params,
    layer: Array,
    entering: Array,
    pull: Donors,
    asked: Prompts,
    prefix: int,
) -> Float[Array, "reader batch rest embedding"]:
    """The gradients at one layer's reads, pulled back to the stream that they read."""
    pulled = []
    for kind in READS:
        read = functools.partial(
            attention.read,
            network,
            params,
            kind,
            layer,
            tokens=asked.tokens,
            valid=asked.valid,
            prefix=prefix,
        )
        _, back = jax.vjp(read, entering[layer])
        pulled.append(jax.vmap(back)(_one_by_one(pull[kind][layer]))[0])
    return jnp.concatenate([*pulled, pull["mlp_in"][layer][None]])


def _one_by_one(heads: Array) -> Array:
    """[head, batch, rest, head, projection]: each head's part alone."""
    alone = jnp.eye(heads.shape[2], dtype=heads.dtype)
    return jnp.einsum("bshp,nh->nbshp", heads, alone, precision=EXACT)
