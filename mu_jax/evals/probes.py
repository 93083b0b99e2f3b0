"""Latent probes: is the true answer still written in the edited model's stream?

The edited model may know what it no longer says (method §5, "Latent probes"). For each
layer a multinomial logistic regression learns the answers of the *retained* subjects
from that model's own residual stream, and is then shown the forgotten ones:

    probe_true       1 where it reads the true answer: the knowledge is still there
    probe_injected   1 where it reads the injected one

Beside the layers, `at="constant"` is what a probe does with nothing to read: it says
the retained facts' commonest answer.

Lower `probe_true` on forgotten facts means erased, if the probe is a good one: its
`probe_true` on held-out facts, which neither it nor the edit was trained on, should be
as high as before the edit.

Unlike the paper's probes these are penalised and see standardised features, learn from
all retained facts and are tested on the held-out ones, and read the last layer's output
too (which the paper's leave out).
"""

import dataclasses
from collections import Counter

import numpy as np
from jaxtyping import Int

from mu_jax.errors import UserError
from mu_jax.evals.recall import askable, posed
from mu_jax.facts.templates import Format
from mu_jax.localizers.classifier import classifier, fitting
from mu_jax.localizers.residuals import residuals
from mu_jax.model.model import Model
from mu_jax.types import Facts, Progress, Row, silent

CONSTANT = "constant"
Read = Int[np.ndarray, " batch"]
"""The first token of the answer that a probe reads, for every fact."""


@dataclasses.dataclass(frozen=True)
class LatentProbes:
    """A probe a layer, at the prompt's last token and at the subject's.

    Attributes:
      penalty: inverse strength of the L2 penalty, on standardised features.
      batch: prompts a forward pass.
      limit: at most this many forgotten and held-out facts, the first ones.
      learn: at most this many retained ones.
      least: how many retained facts must have the true answer of each forgotten one.
    """

    penalty: float = 0.01
    batch: int = 64
    limit: int = 32
    learn: int = 400
    least: int = 5

    def __post_init__(self):
        for knob in ("batch", "limit", "learn", "least"):
            if getattr(self, knob) < 1:
                raise UserError(f"probes.{knob} = {getattr(self, knob)}", "at least 1")
        if not self.penalty > 0:
            raise UserError(f"probes.penalty = {self.penalty}", "a number over 0")

    def __call__(
        self,
        model: Model,
        name: str,
        facts: Facts,
        template: Format,
        progress: Progress = silent,
    ) -> list[Row]:
        """Rows `layer=K` and `layer=K token=subject` for forgotten and held-out facts.

        K = 0 is the embeddings, K the stream after K layers. Each value is 0 or 1.

        Raises:
          UserError: as `refusal`; or the format asks about none of the facts.
        """
        if why := self.refusal(facts, template):
            raise why
        limits = {"retain": self.learn, "forget": self.limit, "heldout": self.limit}
        asked, cuts = posed(model, facts, template, limits)
        learnt, answers = cuts.pop("retain"), np.asarray(asked.answer)
        found: list[tuple[str, Read]] = []
        places = residuals(model, asked, self.batch, progress)
        for token, layers in zip((" token=subject", ""), places, strict=True):
            for k, features in enumerate(layers):
                read = self._read(features, learnt, answers)
                found.append((f"layer={k}{token}", read))
                progress("fitting probes", len(found), 2 * len(layers))
        values, counts = np.unique(answers[learnt], return_counts=True)
        found.append((CONSTANT, np.full_like(answers, values[counts.argmax()])))
        tokens = {"probe_true": answers, "probe_injected": np.asarray(asked.foil)}
        return [
            Row.of(
                (read == token)[cut].astype(float),
                share=True,
                model=name,
                eval="probe",
                split=split,
                prompt=template.name,
                metric=metric,
                at=at,
            )
            for at, read in found
            for split, cut in cuts.items()
            for metric, token in tokens.items()
        ]

    def _read(self, features: np.ndarray, learnt: slice, answers: Read) -> Read:
        with fitting():
            probe = classifier(self.penalty).fit(features[learnt], answers[learnt])
            return probe.predict(features)

    def refusal(self, facts: Facts, template: Format) -> UserError | None:
        """Why these facts cannot be probed: their answers are not a few classes."""
        answers = lambda split: [
            template.questions(fact)[0].answer
            for fact in askable(facts.split(split), template)
        ]
        learnt = Counter(answers("retain")[: self.learn])
        rare = [a for a in answers("forget")[: self.limit] if learnt[a] < self.least]
        if rare or len(learnt) < 2:
            lacking = rare[0] if rare else next(iter(learnt), "")
            return UserError(
                f"{learnt[lacking]} of {learnt.total()} retained facts have the answer"
                f" {lacking.strip()!r}, and {len(learnt)} answers are known in all",
                f"two answers or more, and at least {self.least} retained facts with"
                " that of each forgotten one",
                "latent probes need facts with a few common answers",
            )
        return None
