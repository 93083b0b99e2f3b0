"""How deep does the forgetting go? The Unlearning Depth Score (arXiv 2605.24614).

Hidden states of a model that does not know a fact, put into the model that does, make
it lose the answer where the fact is written. Those of the edited model are compared:

    drop_never_knew   d1(K) = log p(answer) - log p(answer | never-knew state after K)
    drop_edited       d2(K) = log p(answer) - log p(answer | edited state after K)
    erased            e(K) = clip(d2 / d1, 0, 1), at the layers K where d1 > threshold
    uds               sum of d1 e over those layers / sum of d1 over them

Drops are in nats, the others lie in [0, 1]: 0 the original's own knowledge is intact, 1
as gone as if it had never been there; higher means deeper erased. The edited model
itself makes no answer here: an edit that only taught it what to say, behind the layers
where the answer arrives, erases nothing before them.

Different from the paper: nobody trained a model without the fact, so that the
never-knew state is the original's own on a *twin* prompt, the same one about an
invented subject; d1 therefore holds whatever tells the two subjects apart, at layers
where that moves this answer. States are patched at the prompt's last token only, and
the answer is judged by its first token, where the paper takes the mean over the tokens
of the answer's span. The threshold is the paper's.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mu_jax.errors import UserError
from mu_jax.evals.recall import posed
from mu_jax.facts.templates import Format
from mu_jax.facts.tokens import batches, shared_prefix
from mu_jax.facts.tokens import prompts as tokenized
from mu_jax.localizers.metrics import LogProbability
from mu_jax.localizers.patched_runs import Cell, base, sites_of, sweep
from mu_jax.localizers.patching import Inputs
from mu_jax.localizers.residuals import residuals
from mu_jax.model.model import Model
from mu_jax.types import Fact, Facts, Progress, Prompts, Row, silent

METRIC = LogProbability()
Table = Float[np.ndarray, "layer fact"]


class Baseline(NamedTuple):
    """log p(answer) in nats, with the state after each layer replaced.

    intact:     by the original's own, which changes nothing: the same in every layer
        but for rounding, and through the program that all are compared by.
    never_knew: by that on the twins' prompts, the mean over their rounds.
    """

    intact: Table
    never_knew: Table


@dataclasses.dataclass(frozen=True)
class UnlearningDepth:
    """The score of each forgotten fact, and the curves behind it.

    Attributes:
      threshold: nats; a layer with a larger d1 counts as encoding the fact.
      batch: facts a forward pass.
      cells: patched layers run together; their facts' logits are in memory at once.
      limit: at most this many facts, the first ones.
    """

    threshold: float = 0.05
    batch: int = 16
    cells: int = 5
    limit: int = 32

    def __post_init__(self):
        for knob in ("batch", "cells", "limit"):
            if getattr(self, knob) < 1:
                raise UserError(f"depth.{knob} = {getattr(self, knob)}", "at least 1")
        if not self.threshold > 0:
            raise UserError(f"depth.threshold = {self.threshold}", "over 0 nats")

    def __call__(
        self,
        model: Model,
        name: str,
        original: Model,
        facts: Facts,
        template: Format,
        twins: Sequence[Fact],
        progress: Progress = silent,
        baseline: Baseline | None = None,
    ) -> list[Row]:
        """`uds`, a value for each fact that some layer encodes, and the curves.

        Rows `layer=K` are about the stream after K layers; of `erased` they hold the
        facts that K encodes.

        Args:
          original: the model that `model` was edited from.
          twins: the forgotten facts, in order, about subjects that nobody knows; or
            several rounds of them, one after the other: d1 is the mean over the rounds.
          baseline: `self.baseline` of the original, facts, template and twins, which is
            most of the work, made once where several edited models are measured.

        Raises:
          UserError: the format asks about none of the facts, or twins that do not
            correspond to them.
        """
        if baseline is None:
            baseline = self.baseline(original, facts, template, twins, progress)
        asked, _ = posed(original, facts, template, {"forget": self.limit})
        edited = self._said(original, asked, model, asked, progress)
        d1, d2 = baseline.intact - baseline.never_knew, baseline.intact - edited
        return self._rows(d1, d2, model=name, eval="depth", prompt=template.name)

    def baseline(
        self,
        original: Model,
        facts: Facts,
        template: Format,
        twins: Sequence[Fact],
        progress: Progress = silent,
    ) -> Baseline:
        """What the original says with its own states, and with those of the twins."""
        asked, _ = posed(original, facts, template, {"forget": self.limit})
        intact, *never = (
            self._said(original, asked, original, donors, progress)
            for donors in (asked, *self._rounds(original, facts, template, twins))
        )
        return Baseline(intact, np.mean(never, axis=0))

    def _rounds(
        self, original: Model, facts: Facts, template: Format, twins: Sequence[Fact]
    ) -> list[Prompts]:
        """The twins' prompts, one batch a round, row by row those of the facts."""
        forget = facts.forget
        if not twins or len(twins) % len(forget):
            raise UserError(
                f"{len(twins)} twins of {len(forget)} forgotten facts",
                "one of each, or several rounds of them",
                "make them of these facts",
            )
        asked = [i for i, fact in enumerate(forget) if template.questions(fact)]
        rounds = [twins[i : i + len(forget)] for i in range(0, len(twins), len(forget))]
        return [
            tokenized(
                [template.questions(twin[i])[0] for i in asked[: self.limit]],
                original.tokenizer,
                context=original.spec.context,
            )
            for twin in rounds
        ]

    def _said(
        self,
        original: Model,
        asked: Prompts,
        donor: Model,
        donors: Prompts,
        progress: Progress,
    ) -> Table:
        """log p(answer), the state after each layer in turn being the donor's."""
        _, at_end = residuals(donor, donors, self._batch(donors), progress)
        cells = [Cell((site,), "end") for site in sites_of("resid", original.spec)]
        prefix, pieces = shared_prefix(asked), []
        for rows, n in batches(len(asked.tokens), self._batch(asked)):
            part, state = asked.rows(rows), at_end[1:, rows, None]
            run, ends = base(original, Inputs(part), {}, prefix)
            everywhere = np.broadcast_to(state, run.entering[1:].shape)
            run = run._replace(donors={"resid": everywhere.astype(run.entering.dtype)})
            said = sweep(
                original,
                run,
                cells,
                METRIC,
                METRIC.reference(original.network, original.params, ends),
                prefix=prefix,
                batch=self.cells,
                progress=progress,
            )
            pieces.append(said[:, :n])
        return np.concatenate(pieces, axis=1)

    def _batch(self, prompts: Prompts) -> int:
        return min(self.batch, len(prompts.tokens))

    def _rows(self, d1: Table, d2: Table, **where: Any) -> list[Row]:
        erased, uds = depth(d1, d2, self.threshold)
        found = [("uds", "", uds)]
        for k, layer in enumerate(zip(d1, d2, erased, strict=True), 1):
            names = ("drop_never_knew", "drop_edited", "erased")
            found += [
                (name, f"layer={k}", v) for name, v in zip(names, layer, strict=True)
            ]
        return [
            Row.of(
                kept,
                split="forget",
                metric=metric,
                at=at,
                share=metric in ("uds", "erased"),
                **where,
            )
            for metric, at, values in found
            if len(kept := values[~np.isnan(values)])
        ]


def depth(
    d1: Table, d2: Table, threshold: float
) -> tuple[Table, Float[np.ndarray, " fact"]]:
    """The erasure e of each layer, and the score of each fact.

    NaN where there is nothing to erase: e where d1 is not over the threshold, the score
    where no layer's is.
    """
    encoding = d1 > threshold
    share = np.divide(d2, d1, out=np.full_like(d1, np.nan), where=encoding)
    erased = np.clip(share, 0, 1)
    there = np.where(encoding, d1, 0)
    gone, total = (there * np.nan_to_num(erased)).sum(axis=0), there.sum(axis=0)
    uds = np.divide(gone, total, out=np.full_like(total, np.nan), where=total > 0)
    return erased, uds
