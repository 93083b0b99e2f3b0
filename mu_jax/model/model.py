"""A model as a value: its network (static), its parameters (data), its tokenizer."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from mu_jax.errors import UserError
from mu_jax.model import params as parameters
from mu_jax.model.asking import Answer, ask
from mu_jax.model.network import Network, take_last
from mu_jax.model.params import Params
from mu_jax.model.specs import Spec
from mu_jax.model.taps import Patch
from mu_jax.types import Edit, Prompts, Selection, Sizes, Tokenizer


class Run(NamedTuple):
    """One forward pass over prompts.

    logits: [batch, vocabulary] where each row's answer would begin.
    reads:  {kind: [layer, batch, rest, ...]}, positions counted behind the prefix.
    """

    logits: Float[Array, "batch vocabulary"]
    reads: dict[str, Array]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A pretrained decoder. Never changed in place: `update` returns another one.

    `origin` is the directory of the checkpoint that it was read from, if it was one.
    """

    name: str
    network: Network
    params: Params
    tokenizer: Tokenizer
    origin: Path | None = None

    @property
    def spec(self) -> Spec:
        return self.network.spec

    @property
    def sizes(self) -> Sizes:
        """What may be edited, and how many parameters each tensor has."""
        return parameters.sizes(self.spec)

    def run(
        self,
        prompts: Prompts,
        *,
        prefix: int = 0,
        patch: Mapping[str, Patch] | None = None,
        read: tuple[str, ...] = (),
    ) -> Run:
        """The logits behind each prompt, and the sites asked for.

        `prefix` leading tokens, the same in every row, are computed once for all rows
        (`prompts.shared_prefix` finds how many). Compiled once per shape.
        """
        return run(
            self.network, self.params, prompts, patch or {}, prefix=prefix, read=read
        )

    def ask(
        self, *prompts: str, options: Sequence[str] = (), top: int = 5, length: int = 16
    ) -> list[Answer]:
        """What it says behind each prompt: `asking.ask`.

        Args:
          options: texts whose probabilities are of interest too.
        """
        each = [options] * len(prompts)
        return ask(self, prompts, options=each, top=top, length=length)

    def generate(self, prompt: str, length: int = 32) -> str:
        """How it goes on behind a prompt, greedily, for so many tokens at most."""
        (answer,) = ask(self, [prompt], length=length)
        return answer.said

    def tokens(self, text: str) -> list[str]:
        """The pieces that it reads a text in, after BOS."""
        _, *spans = self.tokenizer.encode(text).spans
        return [text[start:stop] for start, stop in spans]

    def __repr__(self) -> str:
        count = self.sizes.model
        return f"Model({self.name}: {self.spec.layers} layers, {count:,} parameters)"

    def update(self, edit: Edit) -> "Model":
        """This model with the tensors of `edit` in place; the rest is shared."""
        tensors = dict(edit.selection.tensors)
        known = {label: a.named_shape for label, a in self.params.items()}
        for label, layers in tensors.items():
            want = {**known.get(label, {}), "layer": len(layers)}
            got = dict(edit.params[label].named_shape)
            if label not in known or got != want:
                raise UserError(
                    f"the edit's tensor {label!r} has shape {got}",
                    f"{want if label in known else 'a tensor of this model'}",
                    f"apply it to the model it was made from, not to {self.name}",
                )
        return dataclasses.replace(
            self, params=parameters.put(self.params, tensors, dict(edit.params))
        )

    def copy(self) -> "Model":
        """The same with a mapping of its own: what is put into that stays there."""
        return dataclasses.replace(self, params=dict(self.params))

    def selected(self, selection: Selection) -> Params:
        """The tensors that `selection` names, copied out of the stacks."""
        return parameters.take(self.params, dict(selection.tensors))


@functools.partial(jax.jit, static_argnames=("network", "prefix", "read"))
def run(
    network: Network,
    params: Params,
    prompts: Prompts,
    patch: Mapping[str, Patch],
    *,
    prefix: int = 0,
    read: tuple[str, ...] = (),
) -> Run:
    """`Model.run` as a pure function of its arrays."""
    stream, reads = network.stream(
        params, prompts.tokens, prompts.valid, prefix=prefix, patch=patch, read=read
    )
    last = take_last(stream, prompts.last - prefix)
    return Run(network.logits(params, last), reads)
