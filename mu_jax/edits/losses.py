"""What an edit minimises (method §3): L = w_f L_forget + w_r L_retain + w_t L_text.

    Inject        -log p(injected)                             an edit
    Truth         -log p(true)                                 retaining; relearning
    Unlearn       -log(1 - p(true)), none below the cut        forgetting, as the rest
    Ascent        log p(true)
    NPO           -2/b log s(-b log p/p0(true))
    SimNPO        -2/b log s(-b log p(true) - g)
    DPO           -log s(b log p/p0(injected) - b log p/p0(true))
    Uniform       KL(p || uniform) = log V - entropy(p)
    KeepOriginal  KL(p0 || p)                                  retaining

p is the softmax over the whole vocabulary where an answer begins, p0 the unedited
model's, s the logistic function; all in nats, means over rows; answers are their first
token. Gradient ascent is `GradientEdit(loss=Ascent(), retain=Truth(weight=0),
text_weight=0)`; with retain and text terms it is GradDiff. Losses are frozen and
hashable: static arguments of `jit`.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mu_jax.errors import UserError
from mu_jax.model.precision import wide
from mu_jax.types import Prompts, Tensor

Logits = Float[Array, "batch vocabulary"]


@dataclasses.dataclass(frozen=True)
class Loss:
    """A term of the objective: logits and prompts to nats, lower is better.

    `weight` is its factor in the sum (the paper's lambda, for the forget term).
    `compares` says whether it needs the unedited model's logits, given as `original`.
    """

    weight: float = 1.0
    compares: ClassVar[bool] = False

    def __call__(
        self, logits: Logits, prompts: Prompts, original: Logits | None = None
    ) -> Float[Array, ""]:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Inject(Loss):
    """L_inj: -log p(injected answer)."""

    def __call__(self, logits, prompts, original=None):
        return cross_entropy(logits, prompts.foil).mean()


@dataclasses.dataclass(frozen=True)
class Truth(Loss):
    """-log p(true answer): L_retain, and what an attacker relearns."""

    def __call__(self, logits, prompts, original=None):
        return cross_entropy(logits, prompts.answer).mean()


@dataclasses.dataclass(frozen=True)
class Unlearn(Loss):
    """The paper's unlearning loss, -log(1 - p(true answer)), v1.

    Rows with log p < `cut` have unlearned enough: they count as 0, in the mean too.
    """

    cut: float = -5.0

    def __call__(self, logits, prompts, original=None):
        logits = wide(logits)
        token = prompts.answer[:, None]
        rest = jnp.put_along_axis(logits, token, -jnp.inf, axis=1, inplace=False)
        # As a difference of sums: 1 - p itself would round to 0 for p near 1.
        loss = jax.nn.logsumexp(logits, axis=1) - jax.nn.logsumexp(rest, axis=1)
        unlearned = -cross_entropy(logits, prompts.answer) < self.cut
        return jnp.where(unlearned, 0, loss).mean()


@dataclasses.dataclass(frozen=True)
class Ascent(Loss):
    """Gradient ascent on the true answer's cross-entropy; unbounded below."""

    def __call__(self, logits, prompts, original=None):
        return -cross_entropy(logits, prompts.answer).mean()


@dataclasses.dataclass(frozen=True)
class NPO(Loss):
    """Negative preference optimisation (Zhang et al. 2024, arXiv 2404.05868).

    Tends to gradient ascent as `beta` tends to 0, and stops pushing a row once the
    answer is much less likely than it was.
    """

    beta: float = 0.1
    compares: ClassVar[bool] = True

    def __post_init__(self):
        _positive("beta", self.beta)

    def __call__(self, logits, prompts, original=None):
        assert original is not None
        gain = _gain(logits, original, prompts.answer)
        return -2 / self.beta * jax.nn.log_sigmoid(-self.beta * gain).mean()


@dataclasses.dataclass(frozen=True)
class SimNPO(Loss):
    """NPO without a reference, with a margin (Fan et al. 2024, arXiv 2410.07163).

    Their length normalisation is by 1: only an answer's first token is scored.
    """

    beta: float = 2.5
    gamma: float = 0.0

    def __post_init__(self):
        _positive("beta", self.beta)

    def __call__(self, logits, prompts, original=None):
        score = -self.beta * -cross_entropy(logits, prompts.answer) - self.gamma
        return -2 / self.beta * jax.nn.log_sigmoid(score).mean()


@dataclasses.dataclass(frozen=True)
class DPO(Loss):
    """Prefer the injected answer to the true one (Rafailov et al. 2023, 2305.18290)."""

    beta: float = 0.1
    compares: ClassVar[bool] = True

    def __post_init__(self):
        _positive("beta", self.beta)

    def __call__(self, logits, prompts, original=None):
        assert original is not None
        wanted = _gain(logits, original, prompts.foil)
        unwanted = _gain(logits, original, prompts.answer)
        return -jax.nn.log_sigmoid(self.beta * (wanted - unwanted)).mean()


@dataclasses.dataclass(frozen=True)
class Uniform(Loss):
    """KL(p || uniform), in [0, log vocabulary]: know nothing (Yuan et al. 2024, ME)."""

    def __call__(self, logits, prompts, original=None):
        log_p = jax.nn.log_softmax(wide(logits), axis=1)
        entropy = -(jnp.exp(log_p) * log_p).sum(axis=1)
        return jnp.log(logits.shape[1]) - entropy.mean()


@dataclasses.dataclass(frozen=True)
class KeepOriginal(Loss):
    """KL(original || edited), at least 0: say of retained facts what you said before.

    Its gradient is 0 before the first step.
    """

    compares: ClassVar[bool] = True

    def __call__(self, logits, prompts, original=None):
        assert original is not None
        before = jax.nn.log_softmax(wide(original), axis=1)
        after = jax.nn.log_softmax(wide(logits), axis=1)
        return (jnp.exp(before) * (before - after)).sum(axis=1).mean()


def next_token(
    logits: Float[Array, "batch seq vocabulary"], tokens: Int[Tensor, "batch seq+1"]
) -> Float[Array, " batch"]:
    """L_text by row: the mean of -log p(next token) over a row's positions, in nats."""
    return cross_entropy(logits, tokens[:, 1:]).mean(axis=1)


def _gain(logits: Logits, original: Logits, token: Tensor) -> Float[Array, " batch"]:
    """log p(token) - log p0(token)."""
    return cross_entropy(original, token) - cross_entropy(logits, token)


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise UserError(f"a loss with {name} = {value}", "more than 0")


def cross_entropy(
    logits: Float[Array, "*where vocabulary"], target: Int[Tensor, "*where"]
) -> Float[Array, "*where"]:
    """-log p(target), in nats, computed in float32 at least."""
    logits = wide(logits)
    chosen = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen
