"""Settings that were chosen by a sweep, on facts set aside for it, and what it cost.

`mu sweep CONFIG --over SETTING VALUE... --choose METRIC` keeps them in `chosen.jsonl`,
in the run directory of CONFIG; commands that make or read that run edit with them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

from mu_jax import run_records
from mu_jax.errors import UserError
from mu_jax.run_dir import RunDir

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
      facts: how many facts it was measured on, none of which is reported.
      tried: each value as it was written, and what was measured.
    """

    model: str
    setting: str
    value: float | int | str | bool
    metric: str
    facts: int
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


def read(run: RunDir) -> tuple[Choice, ...]:
    """What was chosen for a run; nothing without a `chosen.jsonl`.

    Raises:
      UserError: one that is damaged.
    """
    if not run.exists(NAME):
        return ()
    return tuple(run.read_lines(NAME, "sweep", _choice))


def keep(run: RunDir, found: Sequence[Choice]) -> None:
    """Adds to what was chosen; a setting chosen again replaces what it was."""
    new = {(choice.model, choice.setting): choice for choice in (*read(run), *found)}
    run.write_lines(NAME, [dataclasses.asdict(choice) for choice in new.values()])


def _choice(record: Any) -> Choice:
    fields = run_records.mapping(record)
    tried = run_records.mapping(fields["tried"])
    value = fields["value"]
    if not isinstance(value, bool | str):
        run_records.number(value)
    return Choice(
        run_records.text(fields["model"]),
        run_records.text(fields["setting"]),
        value,
        run_records.text(fields["metric"]),
        run_records.whole(fields["facts"]),
        {run_records.text(k): float(run_records.number(v)) for k, v in tried.items()},
    )
