"""The derivative of a patched run with respect to every site's weight.

With f(w) the metric of a base run whose sites move towards a donor run (`patching`), of

    f(w) / (m_clean - m_corrupt)

at w = 0; with steps, integrated gradients, the mean derivative

    together   along w = t * 1: that of all sites adds up to f(1) - f(0)
    apart      along w = t * e_i, site by site: as steps grow, exhaustive patching
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mu_jax.devices.sharding import fetch
from mu_jax.facts.corrupt import Corruption
from mu_jax.facts.tokens import batches, shared_prefix
from mu_jax.localizers.metrics import Metric
from mu_jax.localizers.patched_runs import Cell, base, sites_of, sweep
from mu_jax.localizers.patching import (
    Inputs,
    checked,
    constant_weights,
    corruptions,
    effect,
    measure,
    midpoints,
    patched,
    record,
)
from mu_jax.model.model import Model
from mu_jax.types import Progress, Prompts, silent


@dataclasses.dataclass(frozen=True)
class Derivative:
    """Of `metric` with respect to the weights of all sites of `kinds`.

    Attributes:
      corruption: of the subject; noise is averaged over its draws.
      noising: whether clean runs move towards corrupt ones, or the other way.
      steps: of the path integral; 0 is the plain derivative.
    """

    kinds: tuple[str, ...]
    corruption: Corruption
    metric: Metric
    noising: bool
    steps: int

    def together(
        self,
        model: Model,
        clean: Prompts,
        corrupt: Prompts,
        batch: int,
        progress: Progress = silent,
    ) -> dict[str, np.ndarray]:
        """{kind: [layer, row, seq(, head)]} at every position, all sites together.

        For neurons [layer, row, neuron], summed over positions.
        """
        checked(clean, corrupt)
        prefix = shared_prefix(clean, corrupt)
        runs = list(corruptions(model, clean, corrupt, self.corruption, prefix))
        path = midpoints(self.steps) or [0.0]
        total, done = len(clean.tokens), 0
        parts = len(runs) * len(path) * total
        progress("attribution patching", 0, parts)
        sums: dict[str, np.ndarray] = {}
        ends = np.zeros(2)
        for corrupted in runs:
            for index, n in batches(total, batch):
                both = Inputs(clean).rows(index), corrupted.rows(index)
                for t in path:
                    found, values = gradient(
                        model.network,
                        model.params,
                        *both,
                        np.asarray(t, model.params["embedder"].dtype),
                        kinds=self.kinds,
                        metric=self.metric,
                        prefix=prefix,
                        noising=self.noising,
                        plain=not self.steps,
                    )
                    for kind, array in found.items():
                        part = fetch(array)[:, :n]
                        shape = (part.shape[0], total, *part.shape[2:])
                        whole = sums.setdefault(kind, np.zeros(shape, part.dtype))
                        whole[:, index[:n]] += part / (len(runs) * len(path))
                    done += n
                    progress("attribution patching", done, parts)
                ends += fetch(values)[:, :n].sum(axis=1) / len(runs)
        gap = effect(*ends, self.metric)
        out = {kind: array / gap for kind, array in sums.items()}
        for kind in self.kinds:
            if kind != "neuron":  # nothing differs inside the prefix
                pad = [(0, 0)] * out[kind].ndim
                pad[2] = (prefix, 0)
                out[kind] = np.pad(out[kind], pad)
        return out

    def apart(
        self,
        model: Model,
        clean: Prompts,
        corrupt: Prompts,
        progress: Progress = silent,
    ) -> dict[str, Float[np.ndarray, "layer row *head"]]:
        """Integrated along one site at a time, all its positions together.

        Costs two forward passes a site and step, and converges to patching the site.
        """
        checked(clean, corrupt)
        prefix = shared_prefix(clean, corrupt)
        layers = model.spec.layers
        sites = {kind: sites_of(kind, model.spec) for kind in self.kinds}
        cells = [Cell((site,)) for members in sites.values() for site in members]
        runs = list(corruptions(model, clean, corrupt, self.corruption, prefix))
        slopes, ends = [], np.zeros(2)
        for number, corrupted in enumerate(runs):
            start, finish = self._ordered(Inputs(clean), corrupted)
            finish_end, donors = record(
                model.network, model.params, finish, kinds=self.kinds, prefix=prefix
            )
            made, start_end = base(model, start, donors, prefix)
            both = self._ordered(start_end, finish_end)  # clean, corrupt
            ends += np.array([self._judge(model, end, clean, both[0]) for end in both])
            reference = self.metric.reference(model.network, model.params, both[0])
            for t in midpoints(self.steps):
                slopes.append(
                    sweep(
                        model,
                        made,
                        cells,
                        self.metric,
                        reference,
                        prefix=prefix,
                        batch=4,
                        weight=t,
                        slope=True,
                        name=f"run {number} at {t:.3f} ",
                        progress=progress,
                    )
                )
        flat = np.mean(slopes, axis=0) * len(runs) / effect(*ends, self.metric)
        out, start = {}, 0
        for kind, members in sites.items():
            part = flat[start : start + len(members)].reshape(layers, -1, flat.shape[1])
            part = np.moveaxis(part, 1, 2)
            out[kind] = part if kind == "head" else part[:, :, 0]
            start += len(members)
        return out

    def _ordered(self, clean, corrupt):
        """(start, finish) of clean and corrupt, and the other way round."""
        return (clean, corrupt) if self.noising else (corrupt, clean)

    def _judge(self, model: Model, end: Array, clean: Prompts, clean_end: Array):
        """The metric of runs that end in `end`, summed over rows."""
        rows = measure(
            model.network, model.params, end, clean, clean_end, metric=self.metric
        )
        return fetch(rows).sum()


@functools.partial(
    jax.jit,
    static_argnames=("network", "kinds", "metric", "prefix", "noising", "plain"),
)
def gradient(
    network,
    params,
    clean: Inputs,
    corrupt: Inputs,
    at: Float[Array, ""],
    *,
    kinds: tuple[str, ...],
    metric: Metric,
    prefix: int,
    noising: bool,
    plain: bool,
):
    """d sum(f) / d weight where all weights are `at`; [2, batch] f(clean), f(corrupt).

    The gradient of each kind has the shape of its weights. If `plain`, `at` is 0: then
    the pass that is differentiated is the start itself, and measures it as well.
    """
    start, finish = (clean, corrupt) if noising else (corrupt, clean)
    finish_end, donors = record(network, params, finish, kinds=kinds, prefix=prefix)
    start_end = finish_end
    if not plain or (noising and metric.remembers):
        start_end, _ = record(network, params, start, kinds=(), prefix=prefix)
    clean_end = start_end if noising else finish_end
    reference = metric.reference(network, params, clean_end)

    def total(weights):
        rows = patched(
            network, params, start, weights, donors, metric, reference, prefix
        )
        return rows.sum(), rows

    found, rows = jax.grad(total, has_aux=True)(constant_weights(donors, at))
    judge = lambda end: metric(network, params, end, clean.prompts, reference)
    ends = [rows if plain else judge(start_end), judge(finish_end)]
    return found, jnp.stack(ends if noising else ends[::-1])
