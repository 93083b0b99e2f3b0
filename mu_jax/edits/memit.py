"""MEMIT: many facts at once, spread over the down projections of several layers.

Meng, Sen Sharma, Andonian, Belinkov, Bau, "Mass-Editing Memory in a Transformer",
arXiv 2210.07229, section 4.2 and 4.3.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from mu_jax.devices.sharding import fetch
from mu_jax.edits import down
from mu_jax.edits.covariance import Covariance, Inverse, Moments
from mu_jax.edits.editor import Snapshots, State
from mu_jax.edits.subjects import Subjects, align, check, look
from mu_jax.edits.values import Value
from mu_jax.errors import UserError
from mu_jax.model.model import Model
from mu_jax.model.params import Params
from mu_jax.types import Edit, Progress, Prompts, Selection, silent

_READ = ("neuron", "down", "mlp", "resid")


@dataclasses.dataclass(frozen=True)
class MEMIT:
    """Facts written into the down projections of all selected layers together.

    For each fact, z = h + delta is what the stream would have to be behind the last of
    the layers, at the subject's last token, for the injected answer (`Value`). Then,
    from the lowest layer to the last, with h as the layers below have left it, K the
    keys of all facts and R = (z - h) / (layers left),

        W' = W + (lambda C + K^T K)^-1 K^T R,     lambda = weight * neurons

    the least squares fit of what the MLPs should add, held in place on general text.

    With a post-norm (Gemma 2 and 3) the MLP adds m = s * n, where n is k W divided by
    its root mean square: whatever W is, m lies on an ellipsoid, and z may be out of
    reach. The fit is then to the v* whose m is nearest to what is wanted (`nearest`),
    and since h is read again behind each layer, later ones make up for what is missing.

    Attributes:
      value: how z is found.
      covariance: how C is estimated.
      weight: 1 would let a typical key get half of its change; lower writes harder.
      contexts, context_length: as in ROME.
    """

    value: Value = Value()
    covariance: Covariance = Covariance()
    weight: float = 0.1
    contexts: int = 4
    context_length: int = 8

    wants_covariances: ClassVar[bool] = True

    def __post_init__(self):
        if self.weight <= 0:
            raise UserError(f"memit.weight = {self.weight}", "more than 0")
        check(self.contexts, self.context_length)

    def __call__(
        self,
        model: Model,
        selection: Selection,
        forget: Prompts,
        keep: Prompts,
        text: Int[np.ndarray, "rows seq"],
        progress: Progress = silent,
        snapshots: Snapshots | None = None,
        covariances: Moments | None = None,
    ) -> Edit:
        """Edits every down projection of `selection`; `model` stays as it is.

        Args:
          forget: prompts whose foil is injected, with their subjects marked.
          keep: not used.
          text: general text, BOS first: of it C and the contexts are made.
          snapshots: taken up where one is, and offered after every fact's z.
          covariances: where second moments are kept between edits.

        Returns:
          The new matrices in float32, and one record a fact: the injected answer's loss
          before (nats, mean over contexts) and with z in place, |z - h| / |h|, steps of
          the optimisation, seconds.

        Raises:
          UserError: no down projection is selected; a prompt without a subject.
        """
        layers = down.layers(selection)
        chosen = down.narrowed(selection, model, layers)
        subjects = align(forget, text, self.contexts, self.context_length)
        inverses = self.covariance(model, layers, text, covariances, progress)
        edited = down.wide(model.params, chosen)
        wanted, history = self._wanted(
            model, selection, subjects, layers[-1], edited, progress, snapshots
        )
        progress(f"spreading over {len(layers)} layers", 0, len(layers))
        for i, (layer, inverse) in enumerate(zip(layers, inverses, strict=True)):
            params = down.replaced(model.params, chosen, edited)
            seen = self._seen(model, params, subjects, _READ)
            missing = wanted - seen["resid"][:, layers[-1]]
            share = missing / (len(layers) - i)
            change = _before_norm(model, layer, seen, share)
            left = self._spread(inverse, seen["neuron"][:, layer])
            edited = down.add(edited, i, left, change)
            progress(f"spreading over {len(layers)} layers", i + 1, len(layers))
        return Edit(chosen, edited, history)

    def _wanted(
        self,
        model: Model,
        selection: Selection,
        subjects: Subjects,
        last: int,
        edited: Params,
        progress: Progress,
        snapshots: Snapshots | None,
    ) -> tuple[Float[np.ndarray, "fact embedding"], list[dict[str, float]]]:
        """z of each fact, and the history of how they were found."""
        total, start = len(subjects.prompts.tokens), subjects.start
        nothing = np.zeros((total, model.spec.embedding), np.float32)
        state, history = State(edited, _placed(model, nothing)), []
        if snapshots and (found := snapshots.restore(state)):
            state, history = found
        what = f"editing {selection.name}"
        progress(what, len(history), total)
        for fact in range(len(history), total):
            began = time.perf_counter()
            rows = subjects.place(model.network, fact)
            seen = look(model.network, model.params, rows, start, _READ)
            h = fetch(seen)["resid"][last]
            size = float(np.linalg.norm(h))
            of = self.value(
                model.network, model.params, rows, start, "resid", last, size
            )
            found = fetch(of)
            z = np.array(fetch(state.optimizer))
            z[fact] = h + found.delta
            state = State(edited, _placed(model, z))
            seconds = round(time.perf_counter() - began, 3)
            history.append({"step": fact, **found.record(size), "seconds": seconds})
            if snapshots:
                snapshots.save(state, history)
            progress(what, fact + 1, total)
        return fetch(state.optimizer), history

    def _seen(
        self, model: Model, params: Params, subjects: Subjects, read: Sequence[str]
    ) -> dict[str, Float[np.ndarray, "fact layer site"]]:
        """What is computed where each fact's subject ends."""
        each = [
            fetch(
                look(
                    model.network,
                    params,
                    subjects.place(model.network, fact),
                    subjects.start,
                    read,
                )
            )
            for fact in range(len(subjects.prompts.tokens))
        ]
        return {kind: np.stack([one[kind] for one in each]) for kind in read}

    def _spread(
        self, inverse: Inverse, keys: Float[np.ndarray, "fact neurons"]
    ) -> Float[np.ndarray, "fact neurons"]:
        """The L of W' = W + L^T R, i.e. K (lambda C + K^T K)^-1, by Woodbury."""
        along = inverse(keys) / (self.weight * keys.shape[1])
        left = np.linalg.solve(np.eye(len(keys)) + keys @ along.T, along)
        return left.astype(np.float32)


def _placed(model: Model, array: np.ndarray) -> jax.Array:
    """A copy on every device."""
    layout = model.network.layout
    return jax.device_put(array, layout.replicated) if layout else jnp.asarray(array)


def _before_norm(
    model: Model,
    layer: int,
    seen: dict[str, np.ndarray],
    share: Float[np.ndarray, "fact embedding"],
) -> Float[np.ndarray, "fact embedding"]:
    """What k W has to change by for the MLP to add `share` more."""
    if not model.spec.post_norms:
        return share
    norms = model.params["post_mlp_norm"].unwrap("layer", "embedding")
    scale = fetch(norms[layer]).astype(np.float64)
    written, added = seen["down"][:, layer], seen["mlp"][:, layer]
    change = np.stack(
        [
            nearest(v, m + r, scale, model.spec.norm_epsilon) - v
            for v, m, r in zip(written, added, share, strict=True)
        ]
    )
    return change.astype(np.float32)


def nearest(
    written: Float[np.ndarray, " embedding"],
    wanted: Float[np.ndarray, " embedding"],
    scale: Float[np.ndarray, " embedding"],
    epsilon: float = 0.0,
    damping: float = 0.01,
) -> Float[np.ndarray, " embedding"]:
    """The v* as long as `written` whose post-norm is nearest to `wanted`.

    With n the direction of v*, at the length that the norm gives it, minimises

        |scale * n - wanted|^2 + damping mean(scale^2) |n - n(written)|^2

    The second term keeps still what hardly reaches the stream, since some scales are
    0. The solution is n = (scale * wanted + g n(written)) / (scale^2 + g + mu), with
    the one mu > -min(scale^2 + g) at which it is as long as n(written).
    """
    from scipy.optimize import brentq

    v = written.astype(np.float64)
    rms = np.sqrt((v**2).mean() + epsilon)
    n, g = v / rms, damping * (scale**2).mean()
    top, bottom = scale * wanted + g * n, scale**2 + g
    length = np.linalg.norm(n)
    excess = lambda mu: np.linalg.norm(top / (bottom + mu)) - length
    low = -bottom.min() * (1 - 1e-12)
    high = np.linalg.norm(top) / length
    mu = brentq(excess, low, high) if excess(low) > 0 else low
    return rms * top / (bottom + mu)
