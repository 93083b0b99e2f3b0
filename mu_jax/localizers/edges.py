"""Edge attribution: what flows from each component's write to each component's read.

EAP (Syed et al., arXiv 2310.10348) and EAP-IG (Hanna et al., arXiv 2403.17806). The
residual stream is a sum of writes, and every component reads it; with M the normalised
metric of `attribution` (0 clean, -1 corrupt),

    score(u -> v) = sum of (u_corrupt - u_clean) * dM / d(input of v)

over rows, positions and dimensions.

Writers are the embedding, each head and each MLP; readers each head's query, each
group's key and value, each MLP, and the final norm. What Gemma needs for this:

    post-norms      a head's write is not separable from the other heads' of its layer;
                    it is taken to first order, through the norm's Jacobian
    q/k-norms       a read is pulled back through norm, rotation and projection, head by
                    head, by the vector-Jacobian product of the block's own layers
    grouped queries a key or value is one reader, however many heads attend to it

So a node's outgoing edges add up to its node score, exactly.
"""

import dataclasses
import functools
from collections.abc import Mapping, MutableMapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mu_jax.devices.sharding import fetch
from mu_jax.errors import UserError
from mu_jax.facts.corrupt import Corruption, OtherSubject
from mu_jax.facts.tokens import batches, shared_prefix
from mu_jax.localizers.localizer import Needs
from mu_jax.localizers.metrics import LogitDiff, Metric
from mu_jax.localizers.patching import (
    Donors,
    Inputs,
    checked,
    corruptions,
    effect,
    midpoints,
    record,
)
from mu_jax.model.model import Model
from mu_jax.model.network import Network, take_last
from mu_jax.model.precision import EXACT
from mu_jax.model.specs import Spec
from mu_jax.types import Progress, Prompts, Scores, Site, silent

EMBED, LOGITS = "embed", "logits"
_READS = ("query", "key", "value")


class Edges(NamedTuple):
    """Scores of all edges; NaN where a writer stands behind a reader.

    Writers are called as their sites are (`3.head.1`, `3.mlp`) or `embed`; readers
    `5.query.2`, `5.key.0`, `5.value.0`, `5.mlp` or `logits`.
    """

    writers: list[str]
    readers: list[str]
    scores: Float[np.ndarray, "writer reader"]

    def nodes(self) -> dict[str, float]:
        """Each writer's score: the sum over its outgoing edges."""
        return dict(
            zip(self.writers, np.nansum(self.scores, axis=1).tolist(), strict=True)
        )

    def top(self, n: int) -> list[list]:
        """The n edges of largest magnitude: [writer, reader, score]."""
        size = np.nan_to_num(np.abs(self.scores), nan=-1.0)
        order = np.argsort(-size, axis=None, kind="stable")[:n]
        places = zip(*np.unravel_index(order, size.shape), strict=True)
        return [
            [self.writers[w], self.readers[r], float(self.scores[w, r])]
            for w, r in places
            if size[w, r] >= 0
        ]


def told(notes: Mapping[str, Any]) -> dict[str, str]:
    """Finding, heading and caption of such scores."""
    largest = (f"{a} -> {b} {v:+.2f}" for a, b, v in notes["edges"][:4])
    how = f" (integrated, {notes['steps']} steps)" if notes["steps"] else ""
    return {
        "finding": f"largest: {', '.join(largest)}",
        "heading": "The circuit",
        "caption": f"Edge attribution{how} over {notes['rows']} prompts: the largest"
        " edges from a component's write to another's read.",
    }


@dataclasses.dataclass(frozen=True)
class EdgeAttribution:
    """Scores of every edge, from one backward pass a batch and step.

    Attributes:
      corruption: of the subject; noise is averaged over its draws.
      metric: what is differentiated.
      steps: 0 for EAP; otherwise EAP-IG, gradients averaged over that many points
        between the clean and the corrupt embeddings.
      rows: at most this many prompts, the first ones.
      batch: rows differentiated together; the sum over batches is exact.
      keep: how many edges, the largest, the scores hold.
    """

    corruption: Corruption = OtherSubject()
    metric: Metric = LogitDiff()
    steps: int = 5
    rows: int = 16
    batch: int = 8
    keep: int = 500

    needs: ClassVar[Needs] = "pairs"

    def __post_init__(self):
        if self.steps < 0:
            raise UserError(f"edges.steps {self.steps}", "0 (EAP) or more (EAP-IG)")

    def __call__(
        self,
        model: Model,
        clean: Prompts,
        corrupt: Prompts,
        progress: Progress = silent,
        journal: MutableMapping[str, Any] | None = None,  # quick: nothing is kept
    ) -> Scores:
        """Node scores as values; the largest edges in the notes."""
        clean, corrupt = (p.rows(slice(self.rows)) for p in (clean, corrupt))
        found = self.edges(model, clean, corrupt, progress)
        nodes = found.nodes()
        notes = {
            "rows": len(clean.tokens),
            "metric": self.metric.name,
            "steps": self.steps,
            "head_groups": model.spec.head_groups,
            "embed": nodes.pop(EMBED),
            "edges": found.top(self.keep),
        }
        values = {Site.parse(name): score for name, score in nodes.items()}
        return Scores("edges", values, {}, {}, notes, **told(notes))

    def edges(
        self,
        model: Model,
        clean: Prompts,
        corrupt: Prompts,
        progress: Progress = silent,
    ) -> Edges:
        """The score of every edge."""
        checked(clean, corrupt)
        prefix = shared_prefix(clean, corrupt)
        runs = list(corruptions(model, clean, corrupt, self.corruption, prefix))
        path = midpoints(self.steps) or [0.0]
        total, done = len(clean.tokens), 0
        size = model.network.whole(self.batch)  # on a mesh
        parts = total * len(runs) * len(path)
        progress("edge attribution", 0, parts)
        sums, totals = np.zeros(()), np.zeros(2)
        dtype = model.params["embedder"].dtype
        for corrupted in runs:
            for index, n in batches(total, size):
                real = (np.arange(size) < n).astype(dtype)
                for t in path:
                    scores, ends = _scores(
                        model.network,
                        model.params,
                        Inputs(clean).rows(index),
                        corrupted.rows(index),
                        real,
                        np.asarray(t, dtype),
                        metric=self.metric,
                        prefix=prefix,
                    )
                    sums = sums + fetch(scores) / (len(runs) * len(path))
                    done += n
                    progress("edge attribution", done, parts)
                totals += fetch(ends) / len(runs)
        writers, readers = _names(model.spec)
        shares = sums / effect(*totals, self.metric)
        reachable = _reachable(writers, readers)
        return Edges(writers, readers, np.where(reachable, shares, np.nan))


@functools.partial(jax.jit, static_argnames=("network", "metric", "prefix"))
def _scores(
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
    """Sums over the rows that are `real`, and the metric of clean and corrupt runs.

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
    kinds = (*_READS, "mlp_in", "resid")
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
        write = functools.partial(network.write_stream, params, layer)
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
    for kind in _READS:
        read = functools.partial(
            network.read_stream,
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


def _names(spec: Spec) -> tuple[list[str], list[str]]:
    """Writers and readers in the order of `_scores`."""
    writers, readers = [EMBED], []
    for layer in range(spec.layers):
        writers += [f"{layer}.head.{h}" for h in range(spec.heads)] + [f"{layer}.mlp"]
        readers += [f"{layer}.query.{h}" for h in range(spec.heads)]
        for kind in _READS[1:]:
            readers += [f"{layer}.{kind}.{g}" for g in range(spec.head_groups)]
        readers.append(f"{layer}.mlp")
    return writers, [*readers, LOGITS]


def _reachable(writers: list[str], readers: list[str]) -> np.ndarray:
    """[writer, reader] whether what is written has been written when it is read."""

    def when(name: str, writing: bool) -> float:
        if name in (EMBED, LOGITS):
            return -1 if writing else np.inf
        layer, kind, *_ = name.split(".")
        return int(layer) + 0.5 * (kind == "mlp")

    written = np.array([when(name, True) for name in writers])
    read = np.array([when(name, False) for name in readers])
    return written[:, None] < read[None, :]
