"""Settings that were chosen by a sweep, on facts set aside for it, and what it cost.

`mu sweep CONFIG --over SETTING VALUE... --choose METRIC` keeps them in `chosen.jsonl`,
in the run directory of CONFIG; commands that make or read that run edit with them. They
do so in every draw of facts and for every seed, but only as long as the facts that were
looked at stay set aside, and the model is the one that was edited.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

from mu_jax.errors import UserError
from mu_jax.types import Fact

NAME = "chosen.jsonl"

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Choice:
    """One setting of the edit of one model.

    Attributes:
      model: the edited model's name.
      setting: a field of its edit, dotted where it lies deeper ("loss.weight").
      value: the one chosen.
      metric: by which; larger is better.
      facts: the ids of those that it was measured on, none of which is reported.
      weights: which model was edited, as `Run.weights` says it.
      tried: each value as it was written, and what was measured.
    """

    model: str
    setting: str
    value: float | int | str | bool
    metric: str
    facts: tuple[str, ...]
    weights: str
    tried: dict[str, float]


def replaced(edit: T, setting: str, value: Any) -> T:
    """The edit with one of its fields set, by its dotted name.

    Raises:
      UserError: it has no such field.
    """
    name, _, rest = setting.partition(".")
    fields: Any = edit
    if name not in {field.name for field in dataclasses.fields(fields)}:
        raise UserError(
            f"the setting {setting!r} of {type(edit).__name__}",
            f"one of {', '.join(field.name for field in dataclasses.fields(fields))}",
        )
    if rest:
        value = replaced(getattr(edit, name), rest, value)
    return dataclasses.replace(fields, **{name: value})


def check(chosen: Sequence[Choice], aside: Sequence[Fact], weights: str) -> None:
    """Raises UserError where something was chosen elsewhere, or on facts now used.

    Args:
      aside: the facts that the run to be made with the choices sets aside.
      weights: of its model.
    """
    names = {fact.id for fact in aside}
    for choice in chosen:
        used = [name for name in choice.facts if name not in names]
        if choice.weights != weights:
            got, expected = (
                "for another model",
                "the weights and dtype that were edited",
            )
        elif used:
            got = (
                f"on {len(choice.facts)} facts, of which {len(used)} are not set aside"
            )
            got += f" (one: {used[0]})"
            expected = "the facts.path and facts.tune of the sweep"
        else:
            continue
        raise UserError(
            f"{choice.setting} of {choice.model} was chosen {got}",
            expected,
            f"sweep again, or remove {NAME} and say the value yourself",
        )
