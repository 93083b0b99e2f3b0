"""CounterFact: single facts of many kinds, each with a wrong answer (method §2)."""

import dataclasses
import random
from importlib import resources

from mu_jax import inputs
from mu_jax.errors import UserError
from mu_jax.facts import hub, published, table
from mu_jax.facts.counterfact_formats import (
    CHOICE,
    FEWSHOT,
    REVERSED,
    Listed,
    Neighbours,
    Paraphrases,
    Train,
    ask,
)
from mu_jax.facts.groups import cut, drawn, exactly, grouped, held_out, ordered
from mu_jax.facts.reversed import with_rivals
from mu_jax.facts.splits import (
    needs_tune,
    set_aside,
    too_few,
    tuning,
    untrained_neighbours,
)
from mu_jax.facts.templates import Format
from mu_jax.types import Fact, Facts, Question


@dataclasses.dataclass(frozen=True)
class CounterFact:
    """CounterFact as published, from a file or the hub; or the facts shipped here.

    Attributes:
      path: a JSON, JSON Lines, CSV or Parquet file, a folder with such files in the
        hub's layout, or a data set of the hub (`owner/name`); without one, the shipped
        facts. `published` says which fields are read.
      hub_split: which split of a folder or a data set; by default the only one or
        `train`.
      limit: at most this many facts are read, the first ones; all without it.
      forget: how many facts to forget, the first that the model knows.
      parts: into how many groups of equal size they are cut, to be forgotten one after
        the other.
      reserved: how many of the known facts, the last ones, are kept for few-shot
        examples (64 in the paper).
      heldout: share of the retained facts, the last ones, kept from training; nothing
        else is trained about their subjects.
      tune: how many known facts, the last of the source, are set aside to choose
        settings on, whatever is drawn: half of them to forget, half to hold out.
      tuning: they are forgotten in place of the ones to report; see `splits.tuning`.
      seed: draws which facts are first and last, the rivals, and the distractors where
        the records name none. Without one the source's order counts.
    """

    path: str | None = None
    hub_split: str | None = None
    limit: int | None = None
    forget: int = 16
    parts: int = 1
    reserved: int = 0
    heldout: float = 0.2
    tune: int = 0
    tuning: bool = False
    seed: int | None = None

    def __post_init__(self):
        inputs.local(self.path or "", "facts.path")
        least_of = {"forget": 1, "parts": 1, "reserved": 0, "limit": 1, "tune": 0}
        for name, least in least_of.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"facts.{name} = {value}", f"at least {least}")
        if self.forget % self.parts:
            raise UserError(
                f"facts.forget {self.forget} in facts.parts = {self.parts}",
                "a number of facts that the number of parts divides",
            )
        if not 0 < self.heldout < 1:
            raise UserError(f"facts.heldout {self.heldout}", "a share between 0 and 1")
        needs_tune(self.tune, self.tuning)

    @property
    def templates(self) -> tuple[Train, *tuple[Format, ...]]:
        """The training prompt first, then the formats that only evaluations see.

        The paper's multiple choice is `counterfact_formats.PaperChoice`.
        """
        others = (Paraphrases(), Neighbours(), Listed(), FEWSHOT, CHOICE, REVERSED)
        return (Train(), *others)

    def alone(self, fact: Fact) -> Question:
        """The subject and nothing else, for probes."""
        return ask(fact, fact.subject, 0)

    def load(self) -> tuple[Fact, ...]:
        """One fact a record, in order.

        Raises:
          UserError: no such file or data set, or a record that is malformed or repeats
            an id.
        """
        facts: dict[str, Fact] = {}
        for row, record in enumerate(self._records()[: self.limit]):
            fact = published.fact(record, row)
            if fact.id in facts:
                raise UserError(
                    f"{record.place}: the id {fact.id.partition('/')[2]!r} once more",
                    "a case_id of its own",
                    "correct the record or remove it",
                )
            facts[fact.id] = fact
        complete = self._with_distractors(tuple(facts.values()))
        return with_rivals(complete, self.seed or 0)

    def split(self, known: list[tuple[Fact, float]]) -> Facts:
        """Forget, retain, held-out, tuning and reserved facts (method §2).

        All records of one fact (`groups`) go into one split. Neighbours about subjects
        that are trained on are left out.

        Raises:
          UserError: too few known facts for any of them, or as many to forget or to
            reserve as would cut the records of one fact in two.
        """
        facts = [fact for fact, _ in known]
        tune, groups = set_aside(grouped(facts), self.tune)
        forget, rest = exactly(drawn(groups, self.seed), self.forget)
        reserved, rest = exactly(rest[::-1], self.reserved)
        retain, heldout = held_out(rest[::-1], self.heldout, facts, forget)
        if not retain or not heldout:
            raise too_few(
                len(known), self.forget, self.tune, self.heldout, self.reserved
            )
        found = cut(
            known,
            forget=forget,
            retain=retain,
            heldout=heldout,
            tune=tune,
            reserved=reserved,
        )
        found = tuning(found) if self.tuning else found
        return untrained_neighbours(found)

    def partitions(self, facts: Facts) -> tuple[tuple[Fact, ...], ...]:
        """The forgotten facts in `parts` consecutive groups of equal size.

        All records of one fact are in one of them.

        Raises:
          UserError: as many parts as do not divide the facts, or would cut one in two.
        """
        forget = facts.forget
        size, rest = divmod(len(forget), self.parts)
        if not size or rest:
            raise UserError(
                f"{len(forget)} forgotten facts in facts.parts = {self.parts}",
                "groups of equal size",
                "split the facts with these settings",
            )
        parts, rest = [], grouped(forget)
        while rest:
            part, rest = exactly(rest, size)
            parts.append(tuple(forget[i] for i in ordered(part)))
        return tuple(parts)

    def _records(self) -> list[table.Record]:
        shipped = resources.files("mu_jax.facts") / "data/counterfact.jsonl"
        path = self.path or str(shipped)
        if hub.is_dataset(path):
            return hub.read(path, self.hub_split)
        if self.hub_split is not None:
            raise UserError(
                f"facts.hub_split {self.hub_split!r} of the file {path}",
                "a split of a folder or of a data set of the hub",
                "leave it out",
            )
        return table.read(path)

    def _with_distractors(self, facts: tuple[Fact, ...]) -> tuple[Fact, ...]:
        """Draws two for a fact without any: other answers to the same relation.

        What is drawn depends on the fact and on which answers there are, not on their
        order. A relation with fewer than two other answers gives none.
        """
        answers: dict[str, set[str]] = {}
        for fact in facts:
            answers.setdefault(fact.relation, set()).add(fact.answer.strip())
        out = []
        for fact in facts:
            own, injected = fact.answer.strip(), fact.counterfact.strip()
            others = sorted(answers[fact.relation] - {own, injected})
            if not fact.distractors and len(others) >= 2:
                drawn = random.Random(f"{self.seed or 0}/{fact.id}").sample(others, 2)
                space = fact.answer.removesuffix(own)
                wrong = tuple(f"{space}{answer}" for answer in drawn)
                fact = dataclasses.replace(fact, distractors=wrong)
            out.append(fact)
        return tuple(out)
