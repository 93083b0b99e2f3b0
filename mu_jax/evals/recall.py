"""Recall: which answer does a model give, in each prompt format?

Metrics, per fact (the mean over its questions in that format); all lie in [0, 1]:

    p_true, p_injected                probability over the whole vocabulary
    choice_p_true, choice_p_injected  the paper's: softmax over the options only
    choice_true, choice_injected      1 where that option has the largest logit
    top_true, top_injected            1 where it is the likeliest of all tokens

Answers are judged by their first token (method §5).
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mu_jax.devices.sharding import fetch
from mu_jax.errors import UserError
from mu_jax.facts.templates import Format
from mu_jax.facts.tokens import batched, prompts, shared_prefix
from mu_jax.model.model import Model, run
from mu_jax.model.precision import wide
from mu_jax.types import Fact, Facts, Progress, Prompts, Row, Split, silent

Ask = Callable[[Prompts, int], Float[Array, "batch vocabulary"]]
"""Logits where the answers to prompts begin; the number is that of shared tokens."""

METRICS = tuple(
    f"{kind}_{answer}"
    for kind in ("p", "choice_p", "choice", "top")
    for answer in ("true", "injected")
)

Measured = dict[tuple[str, str], dict[str, np.ndarray]]
"""(prompt format, split) -> metric -> one value a fact.

A fact of which a format asks nothing is left out, a split of such facts altogether.
"""


@dataclasses.dataclass(frozen=True)
class Recall:
    """Probability and accuracy of the true and the injected answer.

    Attributes:
      batch: prompts a forward pass.
      limit: at most this many facts of each split, the first ones; those set
        aside are not asked.
    """

    batch: int = 48
    limit: int = 32

    def __call__(
        self,
        model: Model,
        facts: Facts,
        templates: Sequence[Format],
        progress: Progress = silent,
    ) -> Measured:
        """Every fact of every split in every format."""
        out: Measured = {}
        for template in templates:
            chosen = self._chosen(facts, template)
            flat = [fact for members in chosen.values() for fact in members]
            values = answers(model, flat, template, self.batch, progress)
            start = 0
            for split, members in chosen.items():
                stop = start + len(members)
                part = {metric: v[start:stop] for metric, v in values.items()}
                out[template.name, split] = part
                start = stop
        return out

    def notes(
        self, unedited: Measured, facts: Facts, templates: Sequence[Format]
    ) -> dict[str, str]:
        """Formats in which the unedited model does no better than a constant answer.

        Returns {format: why}. Chance is the larger of 1 / options and the share of the
        commonest right option among the questions (a word, or a letter); a format
        counts as informative if the accuracy lies more than 1.64 standard errors above
        it (one-sided, 5 %). One that asks nothing is not informative either.
        """
        why = {}
        for template in templates:
            chosen = self._chosen(facts, template)
            asked = [
                q for m in chosen.values() for f in m for q in template.questions(f)
            ]
            if not asked:
                why[template.name] = "not informative: it asks about none of the facts"
                continue
            accuracy = np.concatenate(
                [unedited[template.name, split]["choice_true"] for split in chosen]
            )
            commonest = Counter(q.answer for q in asked).most_common(1)[0][1]
            chance = max(1 / len(asked[0].options), commonest / len(asked))
            margin = 1.64 * np.sqrt(chance * (1 - chance) / len(accuracy))
            if accuracy.mean() <= chance + margin:
                why[template.name] = (
                    "not informative: the unedited model answers"
                    f" {accuracy.mean():.2f} right, a constant answer {chance:.2f}"
                )
        return why

    def _chosen(self, facts: Facts, template: Format) -> dict[Split, list[Fact]]:
        """{split: its facts that are asked about}, where there are any."""
        chosen = {
            split: askable(facts.split(split)[: self.limit], template)
            for split in facts.used.splits
        }
        return {split: members for split, members in chosen.items() if members}


def rows(
    name: str,
    measured: Measured,
    notes: Mapping[str, str],
    eval: str = "recall",
    at: str = "",
) -> list[Row]:
    """One row a (format, split, metric) for the model called `name`."""
    return [
        Row.of(
            values,
            share=True,
            note=notes.get(template, ""),
            model=name,
            eval=eval,
            at=at,
            split=split,
            prompt=template,
            metric=metric,
        )
        for (template, split), metrics in measured.items()
        for metric, values in metrics.items()
    ]


def askable(facts: Sequence[Fact], template: Format) -> list[Fact]:
    """Those facts of which the format asks something, in order."""
    return [fact for fact in facts if template.questions(fact)]


def posed(
    model: Model, facts: Facts, template: Format, limits: Mapping[Split, int]
) -> tuple[Prompts, dict[Split, slice]]:
    """The first question that a format asks about each fact of some splits.

    Args:
      limits: how many facts of each split at most, the first ones.

    Returns:
      One batch of prompts, and which of its rows are each split's; facts of which the
      format asks nothing are left out, and so are splits of such facts.

    Raises:
      UserError: it asks about none of them.
    """
    questions, cuts = [], {}
    for split, limit in limits.items():
        members = askable(facts.split(split), template)[:limit]
        if members:
            cuts[split] = slice(len(questions), len(questions) + len(members))
            questions += [template.questions(fact)[0] for fact in members]
    if not questions:
        raise UserError(
            f"the format {template.name!r} asks about no fact to {' or '.join(limits)}",
            "a question about one of them at least",
            "choose another format",
        )
    return prompts(questions, model.tokenizer, context=model.spec.context), cuts


def answers(
    model: Model,
    facts: Sequence[Fact],
    template: Format,
    batch: int,
    progress: Progress = silent,
    ask: Ask | None = None,
    journal: MutableMapping[str, list[float]] | None = None,
) -> dict[str, np.ndarray]:
    """The metrics of the module's docstring: {metric: [fact]}.

    One value for each of `askable(facts, template)`; no metrics where those are none.

    Args:
      ask: what answers in place of a plain run of the model.
      journal: what an earlier call, cut short, has measured is not measured again.
    """
    kept = {} if journal is None else journal
    each = [template.questions(fact) for fact in askable(facts, template)]
    questions = [q for of_one in each for q in of_one]
    if not questions:
        return {}
    asked = prompts(questions, model.tokenizer, context=model.spec.context)
    turns = np.concatenate([np.arange(len(of_one)) for of_one in each])
    groups, total, done, pieces = _together(asked, turns), len(questions), 0, []
    progress(f"asking in the format {template.name}", 0, total)
    for group in groups:
        own = asked.rows(group)
        size = -(-len(group) // -(-len(group) // batch))  # none mostly filler
        prefix = shared_prefix(own)
        for part, n in batched(own, size):
            if (key := f"{template.name} {done}") not in kept:
                if ask is None:
                    values = _metrics(model.network, model.params, part, prefix)
                else:
                    values = judged(ask(part, prefix), part)
                found = fetch(values)
                flat = np.concatenate([found[metric][:n] for metric in METRICS])
                kept[key] = flat.astype(float).tolist()
            rows = np.array(kept[key], np.float32).reshape(len(METRICS), n)
            pieces.append(dict(zip(METRICS, rows, strict=True)))
            done += n
            progress(f"asking in the format {template.name}", done, total)
    counts = np.array([len(of_one) for of_one in each])
    starts, back = counts.cumsum() - counts, np.concatenate(groups).argsort()
    of_rows = {k: np.concatenate([p[k] for p in pieces])[back] for k in pieces[0]}
    return {k: np.add.reduceat(v, starts) / counts for k, v in of_rows.items()}


def _together(asked: Prompts, turns: np.ndarray) -> list[np.ndarray]:
    """The rows to ask together: those of each turn, if they have a longer prefix.

    `turns` says which of its fact's questions a row is. Multiple choice whose options
    stand before the subject shares them so. One program serves all groups: they are
    equally large, and share equally much.
    """
    groups = [np.flatnonzero(turns == turn) for turn in range(turns.max() + 1)]
    alike = {(len(group), shared_prefix(asked.rows(group))) for group in groups}
    if len(alike) == 1 and alike.pop()[1] > shared_prefix(asked):
        return groups
    return [np.arange(len(turns))]


@functools.partial(jax.jit, static_argnames=("network", "prefix"))
def _metrics(network, params, asked: Prompts, prefix: int) -> dict[str, jax.Array]:
    return judged(run(network, params, asked, {}, prefix=prefix).logits, asked)


@jax.jit
def judged(
    logits: Float[Array, "batch vocabulary"], asked: Prompts
) -> dict[str, jax.Array]:
    """The metrics of the module's docstring, of each question: {metric: [batch]}."""
    logits = wide(logits)
    options = jnp.take_along_axis(logits, asked.options, axis=1)
    p_all = jax.nn.softmax(logits, axis=1)
    p_options = jax.nn.softmax(options, axis=1)
    top = logits.argmax(axis=1)
    best = jnp.take_along_axis(asked.options, options.argmax(axis=1)[:, None], 1)[:, 0]
    out = {}
    for name, token in (("true", asked.answer), ("injected", asked.foil)):
        of_options = jnp.where(asked.options == token[:, None], p_options, 0)
        out[f"p_{name}"] = jnp.take_along_axis(p_all, token[:, None], axis=1)[:, 0]
        out[f"choice_p_{name}"] = of_options.sum(axis=1)
        out[f"choice_{name}"] = (best == token).astype(jnp.float32)
        out[f"top_{name}"] = (top == token).astype(jnp.float32)
    return out
