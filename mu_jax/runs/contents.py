"""The records in a run's files, checked field by field: nothing read is trusted.

Each function takes what JSON says and returns the record; it raises ValueError,
TypeError or LookupError where that is not what mu writes, and says what is wrong.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from mu_jax import inputs
from mu_jax.runs.swept import Choice
from mu_jax.types import Fact, Known, Row, Scores, Selection, Site

LAYERS = 1024
"""More layers than any model has."""
UNITS = 1 << 24
"""More heads or neurons than any layer has."""


def fact(record: Any) -> Fact:
    names = [f.name for f in dataclasses.fields(Fact) if f.name in mapping(record)]
    fields = {name: record[name] for name in names}
    start = fields.pop("start", None)
    for name, value in fields.items():
        several = Fact.__dataclass_fields__[name].type == tuple[str, ...]
        fields[name] = tuple(map(text, items(value))) if several else text(value)
    made = Fact(**fields, start=start)
    if start is not None and (
        whole(start) < 0 or not made.prompt.startswith(made.subject, start)
    ):
        raise ValueError(f"no {made.subject!r} at {start} of the prompt")
    return made


def known(record: Any) -> Known:
    return Known(
        fact(record), text(record["split"]), float(number(record["probability"]))
    )


def asked(record: Any) -> tuple[Fact, float]:
    return fact(record), float(number(record["probability"]))


def row(record: Any) -> Row:
    values = tuple(float(number(v)) for v in items(mapping(record)["values"]))
    facts = tuple(text(id) for id in items(record.get("facts", [])))
    made = Row(**{**record, "values": values, "facts": facts})
    for said in (made.model, made.split, made.prompt, made.metric, made.at):
        text(said)
    text(made.budget), text(made.note), _name(made.eval)
    whole(made.seed)
    number(made.mean)
    if (made.low is None) != (made.high is None):
        raise ValueError("half an interval")
    for end in (made.low, made.high):
        number(0 if end is None else end)
    if whole(made.n) != len(values) or not values:
        raise ValueError(f"{len(values)} values of n = {made.n!r} facts")
    if facts and len(set(facts)) != len(values):
        raise ValueError(f"{len(values)} values of {len(set(facts))} different facts")
    if made.share is not True and made.share is not False:
        raise ValueError(f"share = {made.share!r}")
    if made.share and any(v < 0 or v > 1 for v in values):
        raise ValueError(f"shares from {min(values)} to {max(values)}")
    return made


def step(record: Any) -> dict[str, float]:
    """One line of an edit's history."""
    return {text(name): number(value) for name, value in mapping(record).items()}


def sample(record: Any) -> dict[str, str]:
    names = ("model", "split", "prompt", "fact", "asked", "said")
    return {name: text(mapping(record)[name]) for name in names}


def scores(record: Any) -> Scores:
    made = Scores(**mapping(record))
    values = {site(k): finite(v) for k, v in mapping(made.values).items()}
    axes = mapping(made.axes)
    for table, rows in mapping(made.tables).items():
        columns = [text(name) for name in items(axes[table])]
        if not 0 < len(items(rows)) <= LAYERS + 1:
            raise ValueError(f"the table {table!r} of {len(rows)} rows")
        if any(len(list(map(finite, items(r)))) != len(columns) for r in rows):
            raise ValueError(f"the table {table!r} is not as wide as its axis")
    if axes.keys() != made.tables.keys():
        raise ValueError("axes that are of no table")
    for said in (made.method, made.finding, made.heading, made.caption):
        text(said)
    for name, check in _NOTED.items():
        if name in mapping(made.notes):
            check(made.notes[name])
    return dataclasses.replace(made, values=values)


def selection(record: Any) -> Selection:
    made = Selection(**mapping(record))
    tensors = tuple(
        (text(label), tuple(_layer(i) for i in items(layers)))
        for label, layers in map(items, items(made.tensors))
    )
    for label, layers in tensors:
        if not layers or list(layers) != sorted(set(layers)):
            raise ValueError(f"the layers {list(layers)} of {label}")
    labels = [label for label, _ in tensors]
    if not labels or len(set(labels)) < len(labels):
        raise ValueError("each tensor once, at least one")
    if whole(made.n_params) < 0:
        raise ValueError(f"{made.n_params} parameters")
    _name(made.name), text(made.origin)
    return dataclasses.replace(made, tensors=tensors)


def choice(record: Any) -> Choice:
    fields = mapping(record)
    value = fields["value"]
    if not isinstance(value, bool | str):
        number(value)
    return Choice(
        text(fields["model"]),
        text(fields["setting"]),
        value,
        text(fields["metric"]),
        tuple(map(text, items(fields["facts"]))),
        text(fields["weights"]),
        {text(k): float(number(v)) for k, v in mapping(fields["tried"]).items()},
    )


# ---- parts of them


def mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{_brief(value)} is no object")
    return value


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{_brief(value)} is no text")
    value.encode()  # half a surrogate pair could not be written again
    return value


def number(value: Any) -> float:
    """A number; JSON's NaN and Infinity too: a broken model's loss is one."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{_brief(value)} is no number")
    if isinstance(value, int) and abs(value) > 1 << 64:
        raise ValueError("a number too large")
    return value


def finite(value: Any) -> float:
    if not math.isfinite(number(value)):
        raise ValueError(f"{value} is not finite")
    return float(value)


def whole(value: Any) -> int:
    if not isinstance(number(value), int):
        raise TypeError(f"{_brief(value)} is no whole number")
    return value


def site(value: Any) -> Site:
    made = Site.parse(text(value))
    if str(made) != value or not made.kind or not 0 <= (made.unit or 0) < UNITS:
        raise ValueError(f"{_brief(value)} is no place in a network")
    _layer(made.layer)
    return made


def items(value: Any) -> list:
    if not isinstance(value, list):
        raise TypeError(f"{_brief(value)} is no list")
    return value


def _name(value: Any) -> str:
    if not inputs.is_name(value):
        raise ValueError(f"{_brief(value)} is no name")
    return value


def _layer(value: Any) -> int:
    if not 0 <= whole(value) < LAYERS:
        raise ValueError(f"layer {value}")
    return value


def _end(value: Any) -> str:
    """An end of an edge: a component that writes, or the input of one that reads."""
    if value in ("embed", "logits"):
        return value
    if site(value).unit is None and site(value).kind != "mlp":
        raise ValueError(f"{_brief(value)} is no end of an edge")
    return value


def _edges(value: Any) -> None:
    for writer, reader, strength in map(items, items(value)):
        _end(writer), _end(reader), finite(strength)


def _heads(value: Any) -> None:
    if any(site(head).unit is None for head in items(value)):
        raise ValueError("a head without its number")


def _groups(value: Any) -> None:
    if whole(value) < 1:
        raise ValueError(f"{value} groups of heads")


def _brief(value: Any) -> str:
    return repr(value)[:40]


_NOTED: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("first", "last", "extraction_first", "extraction"), _layer),
    **dict.fromkeys(("flat", "measures", "metric", "direction", "prompts"), text),
    **{"chance": finite, "edges": _edges, "head_groups": _groups},
    "extraction_heads": _heads,
}
"""The notes that reports and selectors read: see `Scores`."""
