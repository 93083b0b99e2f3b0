"""What a model says, to read: greedy continuations of a few prompts."""

import dataclasses
from collections.abc import Sequence

from mu_jax.errors import UserError
from mu_jax.evals.recall import askable
from mu_jax.facts.templates import Format
from mu_jax.facts.tokens import batches, padded
from mu_jax.model.generate import ended, generate
from mu_jax.model.model import Model
from mu_jax.types import Facts, Progress, Split, silent


@dataclasses.dataclass(frozen=True)
class Sample:
    """One continuation: `said` is what `model` wrote behind `asked`.

    `split`, `prompt` (the format) and `fact` (its id) are the same for all models, so
    before and after can be laid side by side.
    """

    model: str
    split: Split
    prompt: str
    fact: str
    asked: str
    said: str


@dataclasses.dataclass(frozen=True)
class Samples:
    """Greedy continuations of some facts' prompts, in every format.

    Greedy, so that a change in what is said is the edit's and not the dice's. Examples,
    no measurement: `Recall` counts.

    Attributes:
      per_split: facts of each split, the first ones that a format asks about; of each
        the first question.
      length: tokens a continuation, at most: an end of sequence ends it.
      splits: which are asked; those that a run does not have are left out.
      batch: prompts a forward pass.
    """

    per_split: int = 4
    length: int = 16
    splits: tuple[Split, ...] = ("forget", "heldout")
    batch: int = 16

    def __post_init__(self):
        for name in ("per_split", "length", "batch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)}", "at least 1")

    def __call__(
        self,
        model: Model,
        name: str,
        facts: Facts,
        templates: Sequence[Format],
        progress: Progress = silent,
    ) -> list[Sample]:
        """What the model called `name` says, format by format.

        Raises:
          UserError: a prompt that leaves no room for its continuation.
        """
        chosen = [
            (template.name, split, fact.id, template.questions(fact)[0].text)
            for template in templates
            for split in self.splits
            for fact in askable(facts.split(split), template)[: self.per_split]
        ]
        said = self._said(model, [text for *_, text in chosen], progress)
        return [
            Sample(name, split, prompt, fact, asked, text)
            for (prompt, split, fact, asked), text in zip(chosen, said, strict=True)
        ]

    def _said(self, model: Model, texts: list[str], progress: Progress) -> list[str]:
        if not texts:
            return []
        tokenizer, said = model.tokenizer, []
        ids = [tokenizer.encode(text).ids for text in texts]
        tokens, valid = padded(ids, tokenizer.pad)  # all formats, one program
        progress("writing samples", 0, len(texts))
        for rows, n in batches(len(texts), min(self.batch, len(texts))):
            found = generate(
                model, tokens[rows], valid[rows], self.length, tokenizer.ends
            )
            rows_said = (ended(row, tokenizer.ends) for row in found[:n])
            said += [tokenizer.decode(row) for row in rows_said]
            progress("writing samples", len(said), len(texts))
        return said
