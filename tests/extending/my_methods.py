"""A config with a method of one's own of every kind, each under 30 lines."""

import dataclasses
from typing import ClassVar

import numpy as np

from mu_jax.attacks.scoring import Scoring
from mu_jax.edits.gradient import GradientEdit
from mu_jax.edits.losses import Loss
from mu_jax.evals.known import KnownFilter
from mu_jax.evals.recall import Recall
from mu_jax.evals.text_loss import TextLoss
from mu_jax.facts.templates import Template
from mu_jax.runs.config import Baseline, Config
from mu_jax.selectors.selections import components
from mu_jax.types import Edit, Fact, Facts, Known, Question, Row, Scores, Site

CITIES = (" Paris", " Rome", " Berlin")


@dataclasses.dataclass(frozen=True)
class Towers:
    """A source of facts that are written down nowhere."""

    count: int = 24
    path: None = None
    tune: int = 0
    tuning: bool = False

    @property
    def templates(self):
        return (Template("train", "{subject} is in", tuple((c, c) for c in CITIES)),)

    def alone(self, fact):
        answers = fact.answer, fact.counterfact
        return Question(fact.subject, fact.subject, 0, *answers, CITIES)

    def load(self):
        names = [f"Tower{i} House{i}" for i in range(self.count)]
        answers = [(CITIES[i % 3], CITIES[(i + 1) % 3]) for i in range(self.count)]
        return tuple(
            Fact(f"tower/{i}", name, "city", *answers[i], f"{name} is in")
            for i, name in enumerate(names)
        )

    def split(self, known):
        splits = ("forget", "retain", "heldout")
        return Facts(
            tuple(Known(fact, splits[i % 3], p) for i, (fact, p) in enumerate(known))
        )


@dataclasses.dataclass(frozen=True)
class Norms:
    """A localizer: how long the stream is at the subject's last token."""

    layers: int = 4
    threshold: float = 0.0
    needs: ClassVar[str] = "subjects"

    def __call__(self, model, prompts, progress=None, journal=None):
        _, reads = model.run(prompts["train"], read=("resid",))
        sizes = np.linalg.norm(np.asarray(reads["resid"]), axis=-1).mean(axis=(1, 2))
        values = {Site(i, "mlp"): float(sizes[i]) for i in range(self.layers)}
        table = {"curves": [[v] for v in values.values()]}
        said = f"the stream grows to {max(values.values()):.2f}"
        return Scores("norms", values, table, {"curves": ["length"]}, {}, said, "Norms")


@dataclasses.dataclass(frozen=True)
class Last:
    """A selector: the MLPs of the highest scores."""

    scores: str = "norms"
    count: int = 2

    def __call__(self, scores, sizes):
        ranked = sorted(scores.of("mlp"), key=lambda site: -scores.values[site])
        return components(ranked[: self.count], sizes, "the longest streams")


@dataclasses.dataclass(frozen=True)
class Hinge(Loss):
    """A loss: the true answer's logit, as long as it is above the other's."""

    margin: float = 1.0

    def __call__(self, logits, prompts, original=None):
        rows = np.arange(len(prompts.answer))
        gap = logits[rows, prompts.answer] - logits[rows, prompts.foil]
        return (gap + self.margin).clip(0).mean()


@dataclasses.dataclass(frozen=True)
class Shrink:
    """An editor: the selected tensors, a share of themselves."""

    share: float = 0.5

    def __call__(
        self, model, selection, forget, keep, text, progress=None, snapshots=None
    ):
        params = {k: v * self.share for k, v in model.selected(selection).items()}
        return Edit(selection, params, [{"step": 1, "share": self.share}])


@dataclasses.dataclass(frozen=True)
class Length:
    """An evaluation: how long each forgotten subject's name is."""

    times: int = 1

    def __call__(self, model, name, facts, template, progress=None):
        values = np.array([self.times * len(f.subject) for f in facts.forget], float)
        where = {"split": "forget", "prompt": template.name, "metric": "letters"}
        return [Row.of(values, model=name, eval="length", **where)]


@dataclasses.dataclass(frozen=True)
class AskAgain:
    """An attack: to ask once more."""

    times: int = 2
    needs: ClassVar[str] = "model"

    def __call__(self, victim, name, journal, progress=None):
        scoring = Scoring(name, victim, "nothing", victim.facts.forget, journal)
        scoring.baselines()
        for time in range(self.times):
            scoring.measure(f"time={time}", victim.model)
        return scoring.rows()


def get_config() -> Config:
    edit = GradientEdit(
        loss=Hinge(), steps=2, forget_batch=8, retain_batch=8, text_batch=1
    )
    return Config(
        name="mine",
        model="tiny",
        facts=Towers(),
        known=KnownFilter(threshold=0.0, batch=24),
        localizers={"norms": Norms()},
        selections={"last": Last()},
        edit=edit,
        baselines={"shrunk": Baseline("last", Shrink())},
        recall=Recall(batch=24, limit=24),
        text_loss=TextLoss(limit=8),
        evals={"length": Length()},
        attacks={"again": AskAgain()},
        probe=None,
        lens=None,
        depth=None,
        samples=None,
    )
