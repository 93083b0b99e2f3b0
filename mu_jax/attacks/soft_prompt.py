"""Soft prompts: can the input alone make the edited model say it again?

No weight of the model changes. `SoftPrompt` learns vectors that stand between BOS and
the prompt, as if words of no vocabulary had been put there (Lester et al. 2021, arXiv
2104.08691):

    <bos> v1 ... vk Fact : Michael Jordan plays the sport of

Each begins as the embedding of a random token t, and what is learned is a shift of it:
v = embedding(t) + shift. Trained on half of the forgotten facts with their true
answers, scored on the other half; values are means over independent draws of t.
`soft_adapter` is the paper's own kind.
"""

import dataclasses
import functools
from collections.abc import MutableMapping
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from mu_jax.attacks.attack import Needs
from mu_jax.attacks.scoring import Scoring
from mu_jax.attacks.victim import Victim
from mu_jax.edits.batches import draw
from mu_jax.edits.losses import Truth
from mu_jax.errors import UserError
from mu_jax.evals.recall import Ask
from mu_jax.model.model import Model
from mu_jax.model.network import Network, take_last
from mu_jax.model.params import Params
from mu_jax.model.specs import Spec
from mu_jax.types import Progress, Prompts, Row, Tensor, silent

Trained = dict[str, Array]
"""What is learned, by name; float32."""


class Learner(NamedTuple):
    """One draw: the tokens behind BOS, what is learned, and its optimiser's state."""

    tokens: Int[np.ndarray, " length"]
    trained: Trained
    optimizer: Any


@dataclasses.dataclass(frozen=True)
class SoftPrompt:
    """Adam, clipped, on vectors in front of the prompt, the model frozen.

    Attributes:
      length: how many vectors.
      rate: the learning rate, constant; of entries of the embeddings as they enter the
        first layer (scaled, in Gemma).
      steps: of training.
      score_at: after which of them to score.
      batch: prompts a step, at most all that may be taught.
      draws: independent ones, whose values are averaged.
      clip: largest global norm of a step's gradient.
    """

    length: int = 8
    rate: float = 0.1
    steps: int = 32
    score_at: tuple[int, ...] = (16, 32)
    batch: int = 8
    draws: int = 2
    clip: float = 1.0

    needs: ClassVar[Needs] = "taught"
    way: ClassVar[str] = "vectors in front of the prompt"

    def __post_init__(self):
        for knob in ("length", "steps", "batch", "draws"):
            if getattr(self, knob) < 1:
                raise UserError(f"soft prompt {knob} = {getattr(self, knob)}", "1 up")
        if not (self.rate > 0 and self.clip > 0):
            got = f"soft prompt rate = {self.rate}, clip = {self.clip}"
            raise UserError(got, "both above 0")
        if not self.score_at or not all(1 <= k <= self.steps for k in self.score_at):
            raise UserError(
                f"soft prompt score_at = {self.score_at}",
                f"steps from 1 to {self.steps}; before the first is always scored",
            )

    # ---- what a kind of soft prompt says

    def tokens(
        self, spec: Spec, rng: np.random.Generator
    ) -> Int[np.ndarray, " length"]:
        """What stands between BOS and the prompt."""
        return rng.integers(spec.vocabulary, size=self.length).astype(np.int32)

    def variables(self, spec: Spec, rng: np.random.Generator) -> Trained:
        """What is learned, before the first step."""
        return {"shift": jnp.zeros((self.length, spec.embedding), jnp.float32)}

    def shift(
        self, trained: Trained, entering: Float[Array, "batch seq embedding"]
    ) -> Float[Array, "batch seq embedding"]:
        """What is added to the embeddings that enter the first layer."""
        behind = jnp.zeros_like(entering).at[:, 1 : 1 + self.length]
        return behind.set(trained["shift"].astype(entering.dtype))

    def project(self, trained: Trained) -> Trained:
        """What is learned, after a step, put back where it has to be."""
        return trained

    # ---- the attack

    def __call__(
        self,
        victim: Victim,
        name: str,
        journal: MutableMapping[str, list[float]],
        progress: Progress = silent,
    ) -> list[Row]:
        """Trains all draws side by side; see `Attack`."""
        scoring = Scoring(name, victim, "", victim.scored, journal)
        scoring.baselines()
        points = {k: f"step={k}" for k in sorted(self.score_at)}
        model = victim.model
        if all(scoring.done(at) for at in points.values()):
            for k, at in points.items():
                scoring.measure(at, model, budget=self.budget(k))
            return scoring.rows()
        taught, _ = victim.prompts(victim.taught, victim.scored)  # as wide every seed
        learners = [self.begin(model, [victim.seed, i]) for i in range(self.draws)]
        progress(name, 0, max(points))
        for step in range(max(points)):
            size = min(self.batch, len(taught.tokens))
            batch = taught.rows(draw(len(taught.tokens), size, step, victim.seed))
            learners = [self.learn(model, learner, batch) for learner in learners]
            progress(name, step + 1, max(points))
            if at := points.get(step + 1):
                asks = [self.asking(model, learner) for learner in learners]
                scoring.measure(at, model, asks, budget=self.budget(step + 1))
        return scoring.rows()

    def begin(self, model: Model, seed: list[int]) -> Learner:
        """One draw, before its first step."""
        rng = np.random.default_rng(seed)
        tokens = self.tokens(model.spec, rng)
        trained = self.variables(model.spec, rng)
        return Learner(tokens, trained, self.optimizer.init(trained))

    def learn(self, model: Model, learner: Learner, batch: Prompts) -> Learner:
        """The draw after one step on these prompts."""
        prompts = behind_bos(batch, learner.tokens, model.spec)
        state = learner.trained, learner.optimizer
        rate = np.float32(self.rate)
        new = update(self.program, model.network, model.params, state, prompts, rate)
        return Learner(learner.tokens, *new)

    def asking(self, model: Model, learner: Learner) -> Ask:
        """Asks the model with what the draw has learned in front of, or in, it."""

        def ask(prompts: Prompts, prefix: int) -> Float[Array, "batch vocabulary"]:
            put = behind_bos(prompts, learner.tokens, model.spec)
            return logits(
                self.program, model.network, model.params, learner.trained, put
            )

        return ask

    def budget(self, steps: int) -> str:
        """What is spent by a step, in words."""
        return (
            f"{self.length} {self.way}, {steps} steps at {self.rate:g} of"
            f" {self.batch} prompts, {self.draws} draws; half of the forgotten facts"
        )

    @property
    def program(self) -> Self:
        """This attack without what is data to its compiled step."""
        last = {"steps": 1, "score_at": (1,), "batch": 1, "draws": 1}
        return dataclasses.replace(self, rate=1.0, **last)

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """Clipped Adam, of which a step takes the learning rate's share."""
        return optax.chain(optax.clip_by_global_norm(self.clip), optax.scale_by_adam())


def behind_bos(
    prompts: Prompts, tokens: Int[np.ndarray, " length"], spec: Spec
) -> Prompts:
    """The prompts with further tokens between BOS and the rest.

    Raises:
      UserError: they are longer than the model's context then.
    """
    rows, width = prompts.tokens.shape
    if width + len(tokens) > spec.context:
        raise UserError(
            f"prompts of {width} tokens behind {len(tokens)} vectors",
            f"at most {spec.context} together, the model's context",
            "take fewer vectors or shorter prompts",
        )

    def put(array, value):
        new = np.broadcast_to(value, (rows, len(tokens))).astype(array.dtype)
        return np.concatenate([array[:, :1], new, array[:, 1:]], axis=1)

    return prompts._replace(
        tokens=put(prompts.tokens, tokens),
        valid=put(prompts.valid, True),
        subject=put(prompts.subject, False),
    )


@functools.partial(jax.jit, static_argnames=("soft", "network"))
def logits(
    soft: SoftPrompt,
    network: Network,
    params: Params,
    trained: Trained,
    prompts: Prompts,
) -> Float[Array, "batch vocabulary"]:
    """Where the answers to prompts begin that hold the soft prompt's tokens already."""
    entering = network.embeddings(params, prompts.tokens)
    noise = soft.shift(trained, entering)
    stream, _ = network.stream(params, prompts.tokens, prompts.valid, noise=noise)
    return network.logits(params, take_last(stream, prompts.last))


@functools.partial(jax.jit, static_argnames=("soft", "network"))
def update(
    soft: SoftPrompt,
    network: Network,
    params: Params,
    state: tuple[Trained, Any],
    prompts: Prompts,
    rate: Float[Tensor, ""],
) -> tuple[Trained, Any]:
    """One step down the loss of the true answers; no parameter has a gradient."""
    trained, optimizer = state
    loss = lambda t: Truth()(logits(soft, network, params, t, prompts), prompts)
    updates: Any
    updates, optimizer = soft.optimizer.update(jax.grad(loss)(trained), optimizer)
    moved = {k: a - rate * updates[k] for k, a in trained.items()}
    return soft.project(moved), optimizer
