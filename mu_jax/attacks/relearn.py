"""Relearning: a little fine-tuning, and is the rest of what was forgotten back?

The attacker trains on facts, on retained prompts and on general text, each with its
true answers, and is scored on forgotten facts that it never trained on:

    data      it is taught                         what comes back
    half      one half of the forgotten facts      the other half (Deeb & Roger 2024)
    related   held-out facts of the same kind,     all forgotten facts, scored on the
              never the forgotten ones             same half
    retain    retained facts and nothing else      the same: "benign" relearning (Hu et
                                                   al. 2024, arXiv 2406.13356)

`how` is LoRA on every attention and MLP matrix, as in the paper (method §5), or full
fine-tuning of them. Of a sweep over learning rates the worst case counts: an attacker
may choose (method §7).
"""

import dataclasses
import math
from collections.abc import MutableMapping
from typing import Any, Literal

from mu_jax.attacks.attack import Needs
from mu_jax.attacks.scoring import Scoring
from mu_jax.attacks.victim import Victim
from mu_jax.edits.gradient import GradientEdit
from mu_jax.edits.lora import LoRA
from mu_jax.edits.losses import Truth
from mu_jax.errors import UserError
from mu_jax.selectors import Nonlocalized
from mu_jax.types import Progress, Prompts, Row, silent

TAUGHT = {
    "half": "half of the forgotten facts",
    "related": "held-out facts of the same kind",
    "retain": "retained facts only",
}


@dataclasses.dataclass(frozen=True)
class Relearn:
    """Fine-tuning on true answers.

    Attributes:
      how: "lora" or "full".
      data: "half", "related" or "retain".
      rates: learning rates, each a run of its own; a cosine takes them to 0.
      steps: of each run.
      score_at: after which of them to score.
      rank, alpha: of LoRA, see there.
      taught, retain, text: rows of each a step.
      clip: largest global norm of a step's gradient.
    """

    how: Literal["lora", "full"] = "lora"
    data: Literal["half", "related", "retain"] = "half"
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    steps: int = 20
    score_at: tuple[int, ...] = (10, 20)
    rank: int = 16
    alpha: float = 32.0
    taught: int = 8
    retain: int = 8
    text: int = 1
    clip: float = 1.0

    @property
    def needs(self) -> Needs:
        """Facts taught, if they are forgotten ones."""
        return "taught" if self.data == "half" else "model"

    def __post_init__(self):
        for name, known in (("how", ("lora", "full")), ("data", tuple(TAUGHT))):
            if getattr(self, name) not in known:
                raise UserError(
                    f"relearn.{name} = {getattr(self, name)!r}",
                    f"one of {', '.join(known)}",
                )
        if not self.rates or not all(rate > 0 for rate in self.rates):
            raise UserError(f"relearn.rates = {self.rates}", "learning rates above 0")
        if not self.score_at or not all(1 <= k <= self.steps for k in self.score_at):
            raise UserError(
                f"relearn.score_at = {self.score_at}",
                f"steps from 1 to {self.steps}; before the first is always scored",
            )

    @classmethod
    def paper(cls) -> "Relearn":
        """The paper's attack (method §5), with the batch that its code used.

        Without dropout, and on general text as long as the victim's is.
        """
        return cls(
            rates=(2e-4,),
            rank=512,
            taught=4,
            retain=4,
            text=2,
            clip=math.inf,
        )

    def __call__(
        self,
        victim: Victim,
        name: str,
        journal: MutableMapping[str, list[float]],
        progress: Progress = silent,
    ) -> list[Row]:
        """One run a learning rate; see `Attack`.

        Raises:
          UserError: no facts of the kind that is to be taught.
        """
        lesson, keep = self.lesson(victim)
        scoring = Scoring(name, victim, "", victim.scored, journal)
        scoring.baselines()
        total = len(self.rates) * self.steps
        for i, rate in enumerate(self.rates):
            told = lambda _, done, __, i=i: progress(name, i * self.steps + done, total)
            self._run(rate, victim, lesson, keep, scoring, told)
        return scoring.rows()

    def _run(
        self,
        rate: float,
        victim: Victim,
        lesson: Prompts,
        keep: Prompts,
        scoring: Scoring,
        progress: Progress,
    ) -> None:
        """Scores every point of one learning rate's curve."""
        points = {k: f"rate={rate:g} step={k}" for k in sorted(self.score_at)}
        model, last = victim.model, max(points)
        if all(scoring.done(at) for at in points.values()):
            for k, at in points.items():
                scoring.measure(at, model, budget=self.budget(rate, k))
            return
        everything = Nonlocalized()(None, model.sizes)
        walk = self.descent(rate, victim.seed).walk(
            model, everything, lesson, keep, victim.text, progress
        )
        for step in walk:
            k = step.number
            if k in points:
                learned = model if scoring.done(points[k]) else model.update(step())
                scoring.measure(points[k], learned, budget=self.budget(rate, k))
                del learned  # a copy of every matrix, which would stay while it trains
            if k == last:
                return

    def lesson(self, victim: Victim) -> tuple[Prompts, Prompts]:
        """What is taught and what is retained, as wide for every seed and data.

        Raises:
          UserError: no facts of that kind.
        """
        facts = victim.facts
        groups = victim.taught, victim.scored, victim.related, facts.retain
        taught, _, related, retain = victim.prompts(*groups)
        if self.data == "retain":  # apart, or a step would see its rows twice
            taught = retain.rows(slice(0, None, 2))
            retain = retain.rows(slice(1, None, 2))
        elif self.data == "related":
            taught = related
        if not len(taught.tokens) or not len(retain.tokens):
            raise UserError(
                f"no facts to teach ({TAUGHT[self.data]}), or none to retain",
                "some of both",
                "give more facts of that kind, or relearn from other data",
            )
        return taught, retain

    def descent(self, rate: float, seed: int) -> GradientEdit:
        """The fine-tuning of one run."""
        knobs: Any = {
            "steps": self.steps,
            "learning_rate": rate,
            "clip": self.clip,
            "forget_batch": self.taught,
            "retain_batch": self.retain,
            "text_batch": self.text,
            "seed": seed,
            "loss": Truth(),
        }
        if self.how == "full":
            return GradientEdit(**knobs)
        return LoRA(**knobs, rank=self.rank, alpha=self.alpha)

    def budget(self, rate: float, steps: int) -> str:
        """What is spent by a step, in words."""
        way = f"LoRA of rank {self.rank}" if self.how == "lora" else "fine-tuning"
        return (
            f"{way} of all attention and MLP matrices, {steps} steps at {rate:g} of"
            f" {self.taught} + {self.retain} prompts and {self.text} texts;"
            f" {TAUGHT[self.data]}"
        )
