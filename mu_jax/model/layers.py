"""The layers that Penzai does not have.

They read what differs from layer to layer (wavelength, patch, prefix) from side inputs,
so that one block without any array of its own serves every layer of the stack.
"""

import dataclasses
import functools

import jax.numpy as jnp
from jaxtyping import Array, Float
from penzai import pz

from mu_jax.model.specs import RopeStretch
from mu_jax.model.taps import Taps

_STATIC = {"pytree_node": False}


@pz.pytree_dataclass
class Rope(pz.nn.Layer):
    """Rotary position embedding whose wavelength and scale are side inputs.

    `pz.nn.ApplyRoPE` fixes its wavelength when it is built; under a scan over layers
    it has to be data. Rotates the halves of `projection` against each other, at angle
    position / (wavelength ** (i / half)) / scale, and further as `stretch` says.
    """

    stretch: RopeStretch | None = dataclasses.field(default=None, metadata=_STATIC)

    def __call__(self, x, *, token_positions, wavelength, rope_scale, **_):
        def rotate(vector, position, wavelength, scale):
            half = vector.shape[0] // 2
            frequency = 1 / wavelength ** (jnp.arange(half) / half) / scale
            if self.stretch:
                frequency = stretched(frequency, self.stretch)
            angle = position * frequency
            sin, cos = jnp.sin(angle), jnp.cos(angle)
            a, b = vector[:half], vector[half:]
            return jnp.concatenate([a * cos - b * sin, b * cos + a * sin])

        turned = pz.nx.nmap(rotate)(
            x.untag("projection"), token_positions, wavelength, rope_scale
        )
        return turned.tag("projection").astype(x.dtype)


def stretched(
    frequency: Float[Array, " half"], how: RopeStretch
) -> Float[Array, " half"]:
    """Angular frequencies, in radians a token, for a longer context (Llama 3.1)."""
    turns = how.context * frequency / (2 * jnp.pi)  # within the pretrained context
    kept = jnp.clip((turns - how.low) / (how.high - how.low), 0, 1)
    return frequency * (kept + (1 - kept) / how.factor)


@pz.pytree_dataclass
class InFloat32(pz.nn.Layer):
    """Runs a layer in float32 at least, between parts that may be in bfloat16.

    As the official models do: a mean of squares, or a sum of exponentials, of bfloat16
    numbers is off by per cents.
    """

    inner: pz.nn.Layer

    def __call__(self, x, **side_inputs):
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return self.inner(wide, **side_inputs).astype(x.dtype)


@pz.pytree_dataclass
class Weights(pz.nn.Layer):
    """How much each position attends to each: queries times keys, softened.

    Maps (query {seq, projection}, key {seq, projection}) to {seq, kv_seq}. In float32
    at least until it is done: a logit of 20 rounded to bfloat16 is off by up to 1/16.
    """

    soften: pz.nn.Layer

    def __call__(self, query_and_key, **side_inputs):
        query, key = query_and_key
        wide = jnp.promote_types(query.dtype, jnp.float32)
        match = functools.partial(jnp.einsum, "p,kp->k", preferred_element_type=wide)
        logits = pz.nx.nmap(match)(
            query.untag("projection"), key.untag("seq", "projection")
        )
        return self.soften(logits.tag("kv_seq"), **side_inputs).astype(query.dtype)


@pz.pytree_dataclass
class LowRank(pz.nn.Layer):
    """A linear map and a low-rank change beside it: x W + (x A) B.

    No changed matrix is ever made. The change is computed in float32, of which a small
    one would lose most were it rounded before the sum.
    """

    linear: pz.nn.Layer
    narrow: pz.nn.Layer
    widen: pz.nn.Layer

    def __call__(self, x, **side_inputs):
        y = self.linear(x, **side_inputs)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        change = self.widen(self.narrow(wide, **side_inputs), **side_inputs)
        return (y + change).astype(y.dtype).order_like(y)


@pz.pytree_dataclass
class Tap(pz.nn.Layer):
    """A named place to read and patch activations at; otherwise the identity."""

    kind: str = dataclasses.field(metadata=_STATIC)

    def __call__(self, x, *, taps: Taps | None = None, **_):
        return x if taps is None else taps(self.kind, x)


@pz.pytree_dataclass
class SharedPrefix(pz.nn.Layer):
    """Puts the keys (or values) of earlier tokens before each row's own.

    The side input `prefix` maps `kind` to an array: without a batch axis where all rows
    share them.
    """

    kind: str = dataclasses.field(metadata=_STATIC)

    def __call__(self, x, *, prefix=None, **_):
        if prefix is None:
            return x
        head = prefix[self.kind]
        head = head.broadcast_to((), {**x.named_shape, **head.named_shape})
        return pz.nx.concatenate([head.astype(x.dtype), x], "seq")
