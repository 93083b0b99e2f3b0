"""The primitive: the metric of a base run whose sites are moved towards a donor run.

    f(w) = metric(run(base, x <- x + w * (donor - x)))

with one weight per (layer, row, position) of each kind of site. f(0) is the base run,
f(1) the donor run, f(e_i) - f(0) tracing of one site, and the gradient of f at 0
attribution patching of all of them at once.

The corrupt run differs from the clean one in its subject: other tokens, or noise on the
embeddings. Denoising puts clean activations into the corrupt run, noising corrupt ones
into the clean run.
"""

import functools
import hashlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mu_jax.devices.sharding import fetch
from mu_jax.errors import UserError
from mu_jax.facts.corrupt import Corruption, GaussianNoise
from mu_jax.localizers.metrics import Metric
from mu_jax.model.model import Model
from mu_jax.model.network import Network, take_last
from mu_jax.model.params import Params
from mu_jax.model.taps import KINDS, Patch, weight_shape
from mu_jax.types import Prompts, Tensor

Weights = Mapping[str, Float[Array, "layer batch ..."]]
Donors = Mapping[str, Float[Array, "layer batch rest ..."]]


class Inputs(NamedTuple):
    """What a run starts from: prompts, and noise on the embeddings behind the prefix.

    noise: [batch, rest, embedding], or None.
    """

    prompts: Prompts
    noise: Float[Tensor, "batch rest embedding"] | None = None

    def rows(self, index) -> "Inputs":
        """The rows at `index`, in that order."""
        noise = None if self.noise is None else self.noise[index]
        return Inputs(self.prompts.rows(index), noise)


@functools.partial(jax.jit, static_argnames=("network", "kinds", "prefix"))
def record(
    network: Network,
    params: Params,
    inputs: Inputs,
    *,
    kinds: tuple[str, ...],
    prefix: int,
) -> tuple[Float[Array, "batch embedding"], Donors]:
    """One plain run: the stream at each row's end, and the activations of `kinds`."""
    asked = inputs.prompts
    stream, reads = network.stream(
        params,
        asked.tokens,
        asked.valid,
        prefix=prefix,
        noise=inputs.noise,
        read=kinds,
    )
    return take_last(stream, asked.last - prefix), reads


def patched(
    network: Network,
    params: Params,
    base: Inputs,
    weights: Weights,
    donors: Donors,
    metric: Metric,
    reference: Array,
    prefix: int,
) -> Float[Array, " batch"]:
    """f(w): the metric of each base row under the patch."""
    asked = base.prompts
    stream, _ = network.stream(
        params,
        asked.tokens,
        asked.valid,
        prefix=prefix,
        noise=base.noise,
        patch={kind: Patch(weights[kind], donors[kind]) for kind in weights},
    )
    ends = take_last(stream, asked.last - prefix)
    return metric(network, params, ends, asked, reference)


@functools.partial(jax.jit, static_argnames=("network", "metric"))
def measure(
    network: Network,
    params: Params,
    ends: Float[Array, "batch embedding"],
    prompts: Prompts,
    clean: Float[Array, "batch embedding"],
    *,
    metric: Metric,
) -> Float[Array, " batch"]:
    """The metric of runs that end in `ends`, where the clean ones end in `clean`."""
    return metric(
        network, params, ends, prompts, metric.reference(network, params, clean)
    )


def constant_weights(
    donors: Donors, value: Float[Tensor, ""] | float = 0.0
) -> dict[str, Array]:
    """Weights that move every site alike; 0 patches nothing, 1 all."""
    return {
        kind: jnp.full(weight_shape(kind, donor.shape), value, donor.dtype)
        for kind, donor in donors.items()
    }


def midpoints(steps: int) -> list[float]:
    """The points of a path integral over [0, 1]; none for no steps."""
    return [(i + 0.5) / steps for i in range(steps)]


def known_kinds(kinds: tuple[str, ...], *, neurons: bool) -> None:
    """Raises UserError for a kind of site that cannot be scored, or for none."""
    if not kinds:
        raise UserError("scores of no kind of site", "at least one, such as mlp")
    allowed = [kind for kind in KINDS if neurons or kind != "neuron"]
    for kind in kinds:
        if kind not in allowed:
            raise UserError(f"the kind {kind!r}", f"one of {', '.join(allowed)}")


def effect(clean: float, corrupt: float, metric: Metric) -> float:
    """m_clean - m_corrupt, which scores are shares of.

    Raises:
      UserError: there is none.
    """
    gap = float(clean - corrupt)
    if abs(gap) < 1e-6:
        raise UserError(
            f"the clean and the corrupt runs have the same {metric.name}",
            "corrupt prompts that change the answer",
            "choose another corruption",
        )
    return gap


def checked(clean: Prompts, corrupt: Prompts) -> None:
    """Raises UserError unless the two have as many rows of as many tokens."""
    if clean.tokens.shape != corrupt.tokens.shape:
        raise UserError(
            f"clean prompts {clean.tokens.shape}, corrupt {corrupt.tokens.shape}",
            "as many rows of as many tokens",
            "make both with facts.corrupt",
        )
    differ = np.flatnonzero(np.any(clean.valid != corrupt.valid, axis=1))
    if len(differ):
        lengths = [int(p.valid[differ[0]].sum()) for p in (clean, corrupt)]
        raise UserError(
            f"row {differ[0]}: {lengths[0]} clean tokens, {lengths[1]} corrupt",
            "a corrupt prompt of equal length",
            "make both with facts.corrupt",
        )


def fingerprint(clean: Prompts, corrupt: Prompts, how: Corruption) -> str:
    """A digest of pairs of prompts, whatever they are padded to, and of their noise."""
    state = hashlib.sha256(
        repr(how).encode() if isinstance(how, GaussianNoise) else b""
    )
    for part in (clean, corrupt):
        for tokens, valid in zip(part.tokens, part.valid, strict=True):
            row = np.asarray(tokens)[np.asarray(valid)].astype(np.int32)
            state.update(len(row).to_bytes(4, "little") + row.tobytes())
    return state.hexdigest()[:16]


def corruptions(
    model: Model, clean: Prompts, corrupt: Prompts, how: Corruption, prefix: int
) -> Iterator[Inputs]:
    """The corrupt inputs: one, or one for each draw of the noise."""
    if not isinstance(how, GaussianNoise):
        yield Inputs(corrupt)
        return
    for draw in range(how.draws):
        yield Inputs(clean, subject_noise(model, clean, how, prefix, draw))


def subject_noise(
    model: Model, prompts: Prompts, how: GaussianNoise, prefix: int, draw: int
) -> Float[np.ndarray, "batch rest embedding"]:
    """Gaussian noise on the subject's embeddings, zero elsewhere (method §4.1).

    It lives where sigma is measured: on the embeddings that enter the first layer,
    scaled by sqrt(embedding) as Gemma does. Its deviation is `scale` times sigma, the
    deviation of the embedding entries of all subject tokens of the batch; per row, as
    in the paper's runs, sqrt(scale * sigma) with the sigma of the row's own tokens.
    Drawn by numpy, so that every backend gets the same bits.
    """
    subject = np.asarray(prompts.subject)[:, prefix:]
    embedded = fetch(
        model.network.embeddings(model.params, prompts.tokens[:, prefix:])
    ).astype(np.float32)
    sigma = [embedded[row][mask].std() for row, mask in enumerate(subject)]
    if how.per_row:
        spread = np.sqrt(how.scale * np.array(sigma))
    else:
        spread = np.full(len(subject), how.scale * embedded[subject].std())
    rng = np.random.default_rng([how.seed, draw])
    noise = rng.standard_normal(embedded.shape, np.float32)
    noise *= (spread[:, None] * subject)[:, :, None]
    return noise.astype(model.params["embedder"].dtype)
