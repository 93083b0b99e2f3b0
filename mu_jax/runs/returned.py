"""What methods hand over, checked before it is kept: one's own may give anything.

Each function takes what a method gave and returns what can be written, and read again;
it raises UserError, in one line, for everything else.
"""

import contextlib
import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from typing import Any

import jax.numpy as jnp

from mu_jax.edits.editor import Record
from mu_jax.errors import UserError
from mu_jax.facts.source import FactSource
from mu_jax.model.params import Params
from mu_jax.runs import contents
from mu_jax.selectors.selections import matrices
from mu_jax.types import Edit, Fact, Facts, Row, Scores, Selection, Sizes


def plain(record: Any) -> Any:
    """A dataclass, or records of JSON's types, as they will be read again.

    Arrays and their scalars become lists and numbers.

    Raises:
      TypeError, AttributeError: something else in it.
    """
    if dataclasses.is_dataclass(record):
        record = dataclasses.asdict(record)  # pyright: ignore[reportArgumentType]
    return json.loads(json.dumps(record, default=lambda value: value.tolist()))


def facts(given: Any, of: str) -> tuple[Fact, ...]:
    """All the facts of a source."""
    with _read(f"the facts of {of}", "what load of a FactSource gives", FactSource):
        found = tuple(given)
        for fact in found:
            contents.fact(plain(fact))
    _once(found, of)
    return found


def splits(given: Any, asked: Set[str], of: str) -> Facts:
    """The facts that a model knows, in splits; `asked` are the ids of all of them."""
    with _read(f"the splits of {of}", "what split of a FactSource gives", FactSource):
        found = Facts(tuple(given.known))
        for known in found.known:
            contents.fact(plain(known.fact)), contents.text(known.split)
            contents.number(plain(known.probability))
    every = [known.fact for known in found.known]
    _once(every, of)
    if strangers := [fact.id for fact in every if fact.id not in asked]:
        raise UserError(
            f"{of} splits {strangers[0]!r}, of which the model was not asked",
            "facts that it is given",
        )
    return found


def scores(made: Any, name: str, layers: int) -> Scores:
    """What a localizer found in a model of so many layers."""
    with _read(
        f"the scores of the localizer {name!r}",
        "Scores: finite numbers at sites of the network, tables as wide as their axes",
        Scores,
    ):
        values = {str(site): value for site, value in made.values.items()}
        found = contents.scores(plain(dataclasses.replace(made, values=values)))
        for site in found.values:
            if site.layer >= layers:
                raise ValueError(f"{site}, of a model of {layers} layers")
    return found


def selection(made: Any, name: str, sizes: Sizes) -> Selection:
    """What a selector selected, of a model of these sizes."""
    with _read(
        f"the selection {name!r}", "a Selection of tensors that the model has", matrices
    ):
        parts = [(label, int(i)) for label, layers in made.tensors for i in layers]
        if outside := [i for _, i in parts if not 0 <= i < sizes.layers]:
            raise ValueError(f"layer {outside[0]} of {sizes.layers}")
        found = matrices(parts, sizes, contents.text(made.origin))
    return dataclasses.replace(found, name=name)


def edit(made: Any, of: str, before: Params) -> Edit:
    """What an editor made of the tensors `before`, which it has selected."""
    history = _history(made, of)
    same, named = True, lambda array: dict(getattr(array, "named_shape", {}))
    if others := {*map(str, made.params)} - before.keys():
        raise UserError(
            f"{of}: {', '.join(sorted(others))} beside its selection",
            f"{', '.join(before)}",
            "give every tensor of its selection, and no other",
        )
    for label, old in before.items():
        shape = named(old)
        if (got := named(made.params.get(label))) != shape:
            raise UserError(
                f"{of}: {label} with the axes {got}",
                f"{shape}",
                "give every tensor of its selection, named as in Model.selected",
            )
        if not jnp.issubdtype(made.params[label].dtype, jnp.floating):
            raise UserError(f"{of}: {label} as {made.params[label].dtype}", "float32")
        values = made.params[label].unwrap(*shape)
        if not bool(jnp.isfinite(values).all()):
            raise UserError(
                f"{of}: {label} is not finite",
                "numbers",
                "take smaller steps (learning_rate), or see its history",
            )
        same &= bool((values == old.unwrap(*shape)).all())
    if same:
        raise UserError(
            f"{of} changes nothing",
            "at least one weight that is another",
            "see its loss and its learning_rate",
        )
    return Edit(made.selection, made.params, history)


def measurements(made: Any, where: str, before: Sequence[Row], **of: Any) -> list[Row]:
    """What an evaluation measured of a model, and `before` of the unedited one.

    Models are compared in pairs: the values are as many, in the same order.
    """
    found = rows(made, where, **of)
    many = {measured(row): row.n for row in before if row.eval == of["eval"]}
    for row in found:
        known = many.get(measured(row), row.n)
        if row.n != known or not all(map(math.isfinite, row.values)):
            raise UserError(
                f"{where}: the {row.n} values of {row.metric} for {row.model}",
                f"{known} numbers, as of the unedited model",
            )
    return found


def rows(made: Any, where: str, **of: Any) -> list[Row]:
    """What an attack measured.

    A model that an attack has broken may give NaN.

    Args:
      of: what the rows say whatever it says: their eval, their model.
    """
    with _read(f"the rows of {where}", "a list of Row, each made by Row.of", Row):
        found = [dataclasses.replace(one, **of) for one in made]
        if not found:
            raise ValueError("none")
        for one, many in Counter(map(measured, found)).items():
            if many > 1:
                raise ValueError(f"{many} of {' '.join(map(str, filter(None, one)))}")
        return [contents.row(plain(one)) for one in found]


def measured(row: Row) -> tuple[str, str, str, str, int]:
    """What a row measures of its model, in its eval."""
    return row.split, row.prompt, row.metric, row.at, row.seed


@contextlib.contextmanager
def _read(got: str, expected: str, see: Any) -> Iterator[None]:
    """Inside, what is wrong with something that a method gave is said in one line."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{got}: {error}") from None
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(f"{got} ({error})", expected, f"see {see.__module__}") from None


def _once(facts: Any, of: str) -> None:
    for id, many in Counter(fact.id for fact in facts).items():
        if many > 1:
            raise UserError(
                f"{of} gives the fact {id!r} {many} times",
                "each fact once, in one split, with an id of its own",
            )


def _history(made: Any, of: str) -> list[Record]:
    """The records of an edit's steps, all of the same terms."""
    with _read(of, "an Edit with a record a step, all of the same terms", Edit):
        if not isinstance(made, Edit):
            raise TypeError(f"{type(made).__name__}")
        history = [contents.step(plain(one)) for one in made.history]
        if not history:
            raise ValueError("no record")
        for one in history:
            if one.keys() != history[0].keys():
                raise ValueError(f"{', '.join(one)} after {', '.join(history[0])}")
    return history
