"""Athletes and their sports: the paper's first kind of facts (method §2)."""

import dataclasses
import random
from importlib import resources

from mu_jax import inputs
from mu_jax.errors import UserError
from mu_jax.facts.choice import Choice
from mu_jax.facts.fewshot import FewShot
from mu_jax.facts.groups import (
    cut,
    drawn,
    exactly,
    grouped,
    held_out,
    ordered,
    taken,
)
from mu_jax.facts.reversed import Reversed, with_rivals
from mu_jax.facts.splits import needs_tune, set_aside, too_few, tuning
from mu_jax.facts.table import read_csv
from mu_jax.facts.templates import Format, Template
from mu_jax.types import Fact, Facts, Question

RELATION = "plays the sport of"
SPORTS = (" football", " baseball", " basketball", " golf")
_WORDS = tuple((sport, sport) for sport in SPORTS)
_LETTERS = tuple(zip(SPORTS, (" A", " B", " C", " D"), strict=True))
_SYSTEM = (
    "You are a helpful chatbot that answers questions about athletes. "
    "Please be maximally helpful and factually correct."
)
_OUT_OF = "Out of football, baseball, basketball and golf"
_CHOICES = "A: Football\nB: Baseball\nC: Basketball\nD: Golf\n\nAnswer:"

TRAIN = Template(
    "train",
    "Fact: Tiger Woods plays the sport of golf\nFact: {subject} plays the sport of",
    _WORDS,
)
QA = Template(
    "qa",
    f"{_SYSTEM} Question: What sport does Tiger Woods play? Answer: golf\n"
    "Question: What sport does {subject} play? Answer:",
    _WORDS,
)
LISTED = Template(
    "listed",
    f"{_OUT_OF}, the sport of Tiger Woods is golf.\n"
    f"{_OUT_OF}, the sport of {{subject}} is",
    _WORDS,
)
MCQ_PAPER = Template(
    "mcq_paper",
    f"{_SYSTEM}\nQuestion: What sport does Tiger Woods play?\n{_CHOICES} D\n\n"
    f"Question: What sport does {{subject}} play?\n{_CHOICES}",
    _LETTERS,
)
ALONE = Template("alone", "{subject}", _WORDS)


def _said(subject: str, answer: str, rival: str = "") -> Fact:
    """What is true of somebody who is not in the shipped table."""
    wrong = next(sport for sport in SPORTS if sport != answer)
    return Fact(f"said/{subject}", subject, RELATION, answer, wrong, "", rival=rival)


SHOTS = (
    _said("Pat Tillman", " football", "Reggie Jackson"),
    _said("Tiger Woods", " golf", "Pat Tillman"),
    _said("Cheryl Miller", " basketball", "Tiger Woods"),
    _said("Reggie Jackson", " baseball", "Cheryl Miller"),
)
FEWSHOT = FewShot("Fact: {subject} plays the sport of", SHOTS, SPORTS)
CHOICE = Choice(
    "Question: {options} What sport does {subject} play? Answer:", SHOTS, SPORTS
)
REVERSED = Reversed("Question: Who plays {answer}, {first} or {second}? Answer:", SHOTS)
_GOLFERS = tuple(  # rivals where golf is injected: tables may have none
    _said(name, " golf") for name in ("Arnold Palmer", "Jack Nicklaus", "Rory McIlroy")
)


@dataclasses.dataclass(frozen=True)
class Sports:
    """The athletes of a CSV file, or the well-known ones shipped here.

    Attributes:
      path: a CSV with the columns athlete and sport, the paper's `sports.csv` included;
        without one, the shipped list.
      forget: how many athletes to forget (the first that the model knows), or the name
        of one sport to forget whole.
      heldout: share of the retained athletes, the last ones, kept from training.
      tune: how many known athletes, the last of the file, are set aside to choose
        settings on, whatever is drawn: half of them to forget, half to hold out.
      tuning: they are forgotten in place of the ones to report; see `splits.tuning`.
      seed: draws which athletes are first and last, the rivals, and the injected sport
        where the file does not name it. Without one the file's order counts.
    """

    path: str | None = None
    forget: int | str = 16
    heldout: float = 0.2
    tune: int = 0
    tuning: bool = False
    seed: int | None = None

    def __post_init__(self):
        inputs.local(self.path or "", "facts.path")
        sports = [sport.strip() for sport in SPORTS if sport != " golf"]
        known = self.forget in sports
        if not (known if isinstance(self.forget, str) else self.forget >= 1):
            raise UserError(
                f"facts.forget {self.forget!r}",
                f"a number from 1, or one of {', '.join(sports)}",
            )
        if not 0 < self.heldout < 1:
            raise UserError(f"facts.heldout {self.heldout}", "a share between 0 and 1")
        if self.tune < 0 or (self.tune and isinstance(self.forget, str)):
            raise UserError(
                f"facts.tune {self.tune} with facts.forget {self.forget!r}",
                "a number from 0, and a number of athletes to forget",
            )
        needs_tune(self.tune, self.tuning)

    @property
    def templates(self) -> tuple[Template, *tuple[Format, ...]]:
        """The training prompt first, then the formats that only evaluations see.

        The paper's multiple choice, in which golf is always D, is `MCQ_PAPER`.
        """
        return (TRAIN, QA, LISTED, FEWSHOT, CHOICE, REVERSED)

    def alone(self, fact: Fact) -> Question:
        """The subject and nothing else, for probes."""
        return ALONE(fact)

    def load(self) -> tuple[Fact, ...]:
        """One fact an athlete, in file order; of a repeated name the first row.

        The injected sport is never the truth: golf where a whole sport is forgotten,
        else the file's `inject_sport_without_golf`, else drawn from the other two. The
        rival is an athlete of the injected sport.
        """
        path = self.path or str(resources.files("mu_jax.facts") / "data/athletes.csv")
        facts: dict[str, Fact] = {}
        for row in read_csv(path, required=("athlete", "sport")):
            name, sport = row["athlete"], f" {row['sport']}"
            injected = row.get("inject_sport_without_golf", "")
            wrong = f" {injected}" if injected else self._draw(name, sport)
            if isinstance(self.forget, str):
                wrong = " golf"
            for said in (sport, wrong):
                if said not in SPORTS:
                    raise UserError(
                        f"{row.place}: the sport {said.strip()!r}",
                        f"one of {', '.join(s.strip() for s in SPORTS)}",
                        "correct the row or remove it",
                    )
            if sport == wrong:
                raise UserError(
                    f"{row.place}: the injected sport is the true one",
                    "another sport",
                    "correct the row or remove it",
                )
            fact = Fact(
                id=f"sports/{name}",
                subject=name,
                relation=RELATION,
                answer=sport,
                counterfact=wrong,
                prompt=TRAIN.text.replace("{subject}", name),
                start=TRAIN.text.index("{subject}"),
            )
            facts.setdefault(name, fact)
        return with_rivals(tuple(facts.values()), self.seed or 0, _GOLFERS)

    def split(self, known: list[tuple[Fact, float]]) -> Facts:
        """Forget, retain, held-out and tuning facts as in the paper (method §2).

        A whole sport is forgotten by training on its first half; `forget_heldout` is
        the other one. Otherwise the forgotten athletes are the first `forget`. All rows
        of an athlete whose name is spelt in several ways go into one split.

        Raises:
          UserError: too few known athletes for any of them.
        """
        facts = [fact for fact, _ in known]
        tune, groups = set_aside(grouped(facts), self.tune)
        groups = drawn(groups, self.seed)
        if isinstance(self.forget, str):
            plays = lambda i: known[i][0].answer.strip() == self.forget
            gone = [group for group in groups if any(map(plays, group))]
            rest = [group for group in groups if not any(map(plays, group))]
            forget, unseen = taken(gone, (len(ordered(gone)) + 1) // 2)
        else:
            (forget, rest), unseen = exactly(groups, self.forget), []
        retain, heldout = held_out(rest, self.heldout, facts, forget)
        if not (forget and retain and heldout):
            whole = len(ordered(forget + unseen))
            wanted = whole if isinstance(self.forget, str) else self.forget
            raise too_few(len(known), wanted, self.tune, self.heldout)
        found = cut(
            known,
            forget=forget,
            forget_heldout=unseen,
            retain=retain,
            heldout=heldout,
            tune=tune,
        )
        return tuning(found) if self.tuning else found

    def _draw(self, name: str, sport: str) -> str:
        others = [s for s in SPORTS if s not in (sport, " golf")]
        return random.Random(f"{self.seed or 0}/{name}").choice(others)
