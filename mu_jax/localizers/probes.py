"""Probes: at which layer can the answer be read off the subject?

One multinomial logistic regression a layer (method §4.3), on the residual stream at

    alone    the last token of the subject, with nothing but BOS before it
    subject  the subject's last token inside the prompt
    end      the prompt's last token

cross-validated so that every subject is scored by a probe that never saw it, also where
several rows have the same subject. The control is the probe `alone` on shuffled labels:
what it can do with nothing to learn.
"""

import dataclasses
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, ClassVar

import numpy as np

from mu_jax.errors import UserError
from mu_jax.localizers.classifier import classifier, fitting
from mu_jax.localizers.localizer import Needs
from mu_jax.localizers.ranges import Lookup, LookupRange
from mu_jax.localizers.residuals import residuals
from mu_jax.model.model import Model
from mu_jax.types import Progress, Prompts, Scores, Site, silent


@dataclasses.dataclass(frozen=True)
class Probes:
    """Accuracy curves over layers, and the range over which they climb.

    Attributes:
      folds: of the stratified cross-validation.
      penalty: inverse strength of the L2 penalty, on standardised features.
      batch: prompts a forward pass.
      threshold: subjects whose fact has at least this probability take part; a probe
        wants more of them than the well-known ones.
      max_subjects: at most this many, the first ones.
      bootstraps: resamples of the subjects, for the interval of the range.
      seed: shuffles the subjects into folds, and resamples them.
      lookup: the rule that turns the curve of `alone` into the lookup layers.
    """

    folds: int = 5
    penalty: float = 0.01
    batch: int = 64
    threshold: float = 0.2
    max_subjects: int = 400
    bootstraps: int = 200
    seed: int = 0
    lookup: LookupRange = LookupRange()

    needs: ClassVar[Needs] = "subjects"

    def __post_init__(self):
        if self.folds < 2:
            raise UserError(f"probes.folds {self.folds}", "at least 2")

    def __call__(
        self,
        model: Model,
        prompts: Mapping[str, Prompts],
        progress: Progress = silent,
        journal: MutableMapping[str, list[float]] | None = None,
    ) -> Scores:
        """Curves for `alone`, `subject`, `end` and `control`, with Wilson intervals.

        The value of a site is the accuracy of `alone`.

        Args:
          prompts: `alone` and `train`, row by row the same facts; the label of a row is
            its answer. Sites are `resid` after each layer.
          journal: probes that an earlier call, cut short, has fitted are not fitted
            again.
        """
        labels = np.asarray(prompts["train"].answer)[: self.max_subjects]
        counts = np.unique(labels, return_counts=True)[1]
        if len(counts) < 2 or counts.min() < self.folds:
            raise UserError(
                f"{len(labels)} known subjects in {len(counts)} classes"
                f" (the smallest has {counts.min()})",
                f"two classes of at least {self.folds} subjects",
                "give more facts or lower the threshold of known",
            )
        asked = {name: p.rows(slice(len(labels))) for name, p in prompts.items()}
        alone, _ = residuals(model, asked["alone"], self.batch, progress)
        subject, end = residuals(model, asked["train"], self.batch, progress)
        features = {"alone": alone, "subject": subject, "end": end, "control": alone}
        shuffled = np.random.default_rng(self.seed).permutation(labels)
        groups = _same_subject(asked["alone"])
        kept = {} if journal is None else journal
        right = {}  # name -> [layer + 1, subject], 1 where the probe is right
        n_layers = model.spec.layers
        for i, (name, layers) in enumerate(features.items()):
            right[name] = np.empty(layers.shape[:2])
            for layer, x in enumerate(layers):
                target = shuffled if name == "control" else labels
                if (key := f"{name} {layer}") not in kept:
                    kept[key] = self._correct(x, target, groups).tolist()
                right[name][layer] = kept[key]
                step = i * (n_layers + 1) + layer + 1
                progress("fitting probes", step, len(features) * (n_layers + 1))
        chance = float(counts.max() / counts.sum())
        found = self._range(right, chance, np.arange(len(labels)))
        columns, rows = self._table(right)
        sites = {Site(i, "resid"): a for i, a in enumerate(right["alone"].mean(1)[1:])}
        values = {site: float(a) for site, a in sites.items()}
        notes = {
            "chance": chance,
            "subjects": len(labels),
            **found._asdict(),
            **self._interval(right, chance),
        }
        curves = {"curves": rows}, {"curves": columns}
        return Scores("probes", values, *curves, notes, **told(notes))

    def _range(self, right: dict[str, np.ndarray], chance: float, which) -> Lookup:
        curve = {name: r[:, which].mean(axis=1) for name, r in right.items()}
        return self.lookup(
            curve["alone"][1:],
            floor=max(chance, curve["alone"][0]),
            n=len(which),
            end=curve["end"][1:],
            control=curve["control"][1:],
        )

    def _interval(self, right: dict[str, np.ndarray], chance: float) -> dict:
        """The middle 90 % of first and last over resampled subjects."""
        rng = np.random.default_rng(self.seed)
        n = right["alone"].shape[1]
        draws = [
            self._range(right, chance, rng.integers(n, size=n))
            for _ in range(self.bootstraps)
        ]
        quantiles = {
            end: np.quantile([getattr(d, end) for d in draws], (0.05, 0.95)).tolist()
            for end in ("first", "last")
        }
        return {f"{end}_interval": q for end, q in quantiles.items()}

    def _table(self, right: dict[str, np.ndarray]):
        """Accuracy and 95 % interval of each curve: columns, and a row a layer."""
        from scipy.stats import binomtest

        columns, values = [], []
        for name, r in right.items():
            columns += [name, f"{name} low", f"{name} high"]
            tests = [binomtest(int(hits), r.shape[1]) for hits in r.sum(axis=1)]
            ends = np.array([t.proportion_ci(method="wilson") for t in tests])
            values += [r.mean(axis=1), *ends.T]
        return columns, np.stack(values, axis=1).tolist()

    def _correct(
        self, features: np.ndarray, labels: np.ndarray, groups: np.ndarray
    ) -> np.ndarray:
        """[subject] 1 where the held-out prediction is right; groups stay together."""
        from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

        folds = StratifiedGroupKFold(self.folds, shuffle=True, random_state=self.seed)
        with fitting():
            predicted = cross_val_predict(
                classifier(self.penalty), features, labels, groups=groups, cv=folds
            )
        return np.asarray(predicted == labels, float)


def told(notes: Mapping[str, Any]) -> dict[str, str]:
    """Finding, heading and caption of such scores."""
    read = (
        "A linear probe reads the answer off the residual stream of"
        f" {notes['subjects']} subjects, each scored by a probe that never saw it"
        " (bands: 95 % intervals; control: shuffled labels)."
    )
    heading = "Where the fact is looked up"
    if why := notes.get("flat"):
        shown = f"{read} It shows no lookup: {why}."
        said = f"no lookup range: {why}"
        return {"finding": said, "heading": heading, "caption": shown}
    layers = f"layers {notes['first']}{{}}{notes['last']}"
    moved = f"layers {notes['extraction_first']}{{}}{notes['extraction']}"
    return {
        "finding": f"the probe climbs from {notes['floor']:.2f} to"
        f" {notes['plateau']:.2f} over {layers.format('-')} ({notes['subjects']}"
        " subjects); the answer reaches the prompt's end over"
        f" {moved.format('-')}",
        "heading": heading,
        "caption": f"{read} It climbs over {layers.format(' to ')} (90 % of resampled"
        f" subjects: first {_span(notes['first_interval'])}, last"
        f" {_span(notes['last_interval'])}). The answer reaches the prompt's end over"
        f" {moved.format(' to ')}.",
    }


def _span(interval: Sequence[float]) -> str:
    low, high = (round(x) for x in interval)
    return f"{low}" if low == high else f"{low}-{high}"


def _same_subject(alone: Prompts) -> np.ndarray:
    """[subject] a number that rows with the same subject share."""
    return np.unique(np.asarray(alone.tokens), axis=0, return_inverse=True)[1]
