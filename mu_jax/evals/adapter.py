"""A model as lm-eval sees one: it answers requests for likelihoods and for text."""

from collections.abc import Mapping, MutableMapping
from typing import Any

from mu_jax.evals.continuations import (
    continuations,
    log_likelihood_of_text,
    log_likelihoods,
)
from mu_jax.evals.pairs import pair
from mu_jax.model.model import Model
from mu_jax.types import Progress

LENGTH = 256
"""Tokens to generate where a task does not say; lm-eval's own."""


def adapter(
    model: Model,
    batch: int,
    context: int,
    progress: Progress,
    journal: MutableMapping[str, Any] | None = None,
) -> Any:
    """An `lm_eval.api.model.LM` that asks `model`.

    Its class is made here, as importing lm-eval takes seconds.

    Args:
      batch: rows a forward pass.
      context: tokens a row at most; the model's own context if that is smaller.
      journal: what was answered before, batch by batch; that is not asked again.
    """
    from lm_eval.api.model import LM

    how: dict[str, Any] = {"batch": batch, "progress": progress, "journal": journal}
    how["context"] = min(context, model.spec.context)

    class Adapter(LM):
        def loglikelihood(self, requests: list[Any]):
            pairs = [pair(model.tokenizer, *request.args) for request in requests]
            return log_likelihoods(model, pairs, **how)

        def loglikelihood_rolling(self, requests: list[Any]):
            texts = [request.args[0] for request in requests]
            return log_likelihood_of_text(model, texts, **how)

        def generate_until(self, requests: list[Any]):
            out: list[str] = [""] * len(requests)
            alike: dict[tuple, list[int]] = {}
            for at, request in enumerate(requests):
                alike.setdefault(_ends(request.args[1]), []).append(at)
            for (until, length), members in alike.items():
                texts = [requests[at].args[0] for at in members]
                said = continuations(model, texts, until=until, length=length, **how)
                for at, text in zip(members, said, strict=True):
                    out[at] = text
            return out

    return Adapter()


def _ends(how: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
    """Where a request's answer ends: at one of these strings, after so many tokens."""
    until = how.get("until") or ()
    names = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
    lengths = [int(how[name]) for name in names if how.get(name)]
    until = (until,) if isinstance(until, str) else tuple(until)
    return until, (lengths or [LENGTH])[0]
