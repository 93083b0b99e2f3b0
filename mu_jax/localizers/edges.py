"""Edge attribution: what flows from each component's write to each component's read.

EAP (Syed et al., arXiv 2310.10348) and EAP-IG (Hanna et al., arXiv 2403.17806). The
residual stream is a sum of writes, and every component reads it; with M the normalised
metric of `attribution` (0 clean, -1 corrupt),

    score(u -> v) = sum of (u_corrupt - u_clean) * dM / d(input of v)

over rows, positions and dimensions.

Writers are the embedding, each head and each MLP; readers each head's query, each
group's key and value, each MLP, and the final norm. How one batch is scored: `flow`. A
node's outgoing edges add up to its node score, exactly.
"""

import dataclasses
from collections.abc import Mapping, MutableMapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from mu_jax.devices.sharding import fetch
from mu_jax.errors import UserError
from mu_jax.facts.corrupt import Corruption, OtherSubject
from mu_jax.facts.tokens import batches, shared_prefix
from mu_jax.localizers.flow import READS, flow
from mu_jax.localizers.localizer import Needs
from mu_jax.localizers.metrics import LogitDiff, Metric
from mu_jax.localizers.patching import (
    Inputs,
    checked,
    corruptions,
    effect,
    midpoints,
)
from mu_jax.model.model import Model
from mu_jax.model.specs import Spec
from mu_jax.types import Progress, Prompts, Scores, Site, silent

EMBED, LOGITS = "embed", "logits"


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
                    scores, ends = flow(
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


def _names(spec: Spec) -> tuple[list[str], list[str]]:
    """Writers and readers in the order of `flow`."""
    writers, readers = [EMBED], []
    for layer in range(spec.layers):
        writers += [f"{layer}.head.{h}" for h in range(spec.heads)] + [f"{layer}.mlp"]
        readers += [f"{layer}.query.{h}" for h in range(spec.heads)]
        for kind in READS[1:]:
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
