"""What a run consists of: what each kind of artefact is made from, and where it lies.

An artefact is called KIND/NAME: `edits/flu`, `attacks/relearn/flu`. From this table
follow which stage redoes what when a setting changes, and what a stamp speaks of.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mu_jax.inputs import name as checked
from mu_jax.runs.config import Config
from mu_jax.types import UNEDITED

Names = list[str]


class Kind(NamedTuple):
    """One kind of artefact.

    Attributes:
      stage: the command that makes it.
      settings: those that it depends on, beside what it is made from depends on.
      made_from: the artefacts that are read while it is made.
      reads: what else is: of "weights", "facts" (the file), "text".
      files: of an artefact of this name, those it needs and those it may go without; by
        default one of rows.
      rows: whether it holds measurements, in a file of its name.
    """

    stage: str
    settings: Callable[[Config, str], Sequence[Any]] = lambda c, name: ()
    made_from: Callable[[Config, str], Names] = lambda c, name: []
    reads: tuple[str, ...] = ()
    files: Callable[[str], tuple[Names, Names]] | None = None
    rows: bool = False


def kind_of(artefact: str) -> tuple[Kind, str]:
    """Its kind, and its name.

    Raises:
      KeyError: there is no such kind.
      UserError: a part of it that is no name.
    """
    kind, _, name = "/".join(map(checked, artefact.split("/"))).partition("/")
    return KINDS[kind], name


def made_from(config: Config, artefact: str) -> Names:
    """The artefacts that are read while this one is made.

    Raises:
      LookupError: of a model, a localizer or an attack that the config has not.
    """
    kind, name = kind_of(artefact)
    return kind.made_from(config, name)


def files(artefact: str) -> tuple[Names, Names]:
    """The files and folders of an artefact, and those that it may go without."""
    kind, name = kind_of(artefact)
    return kind.files(name) if kind.files else ([f"{artefact}.jsonl"], [])


def _measures(c: Config, name: str) -> Sequence[Any]:
    return c.recall, c.text_loss, c.probe, c.lens, c.depth, c.samples, c.evals


def _edit(name: str) -> Names:
    """The edit of a model, if it is an edited one."""
    return [] if name == UNEDITED else [f"edits/{name}"]


def _selected_from(c: Config, name: str) -> Names:
    """Scores, and the selection of whose size it is to be."""
    selector = c.selections[name]
    budget = getattr(selector, "budget", None)
    from_scores = [f"scores/{selector.scores}"] if selector.scores else []
    return from_scores + ([f"selections/{budget}"] if isinstance(budget, str) else [])


def _parted_from(c: Config, name: str) -> Names:
    selection = name.partition("/")[0]
    return [f"selections/{selection}", f"scores/{c.selections[selection].scores}"]


_EDIT = ("params", "selection.json", "history.jsonl")
_last = lambda name: name.rpartition("/")[2]
_first = lambda name: name.partition("/")[0]

KINDS: dict[str, Kind] = {
    "facts": Kind(
        "facts",
        lambda c, _: (c.facts, c.known),
        reads=("weights", "facts"),
        files=lambda _: (["asked.jsonl", "facts.jsonl"], []),
    ),
    "scores": Kind(
        "localize",
        lambda c, name: (c.localizers[name],),
        lambda c, _: ["facts"],
        files=lambda name: ([f"scores/{name}.json"], []),
    ),
    "selections": Kind(
        "select",
        lambda c, name: (c.selections[name],),
        _selected_from,
        reads=("weights",),
        files=lambda name: ([f"selections/{name}.json"], []),
    ),
    "parts": Kind(  # of a selection, each by facts of its own
        "edit",
        lambda c, name: (name,),
        _parted_from,
        files=lambda name: ([f"selections/{name.replace('/', '.')}.json"], []),
    ),
    "edits": Kind(
        "edit",
        lambda c, name: (c.edit_of(name),),
        lambda c, name: ["facts", f"selections/{c.selection_of(name)}"],
        reads=("text",),
        files=lambda name: ([f"edits/{name}/{file}" for file in _EDIT], []),
    ),
    "evals": Kind(
        "evaluate",
        _measures,
        lambda c, name: ["facts", *_edit(name)],
        reads=("text",),
        files=lambda name: ([f"evals/{name}.jsonl"], [f"samples/{name}.jsonl"]),
        rows=True,
    ),
    "rounded": Kind(  # rounded/DTYPE/MODEL
        "evaluate",
        lambda c, name: (_first(name), *_measures(c, name)),
        lambda c, name: ["facts", *_edit(_last(name))],
        reads=("text",),
        rows=True,
    ),
    "masks": Kind(
        "mask",
        lambda c, _: (c.mask, c.recall),
        lambda c, name: ["facts", f"selections/{name}"],
        reads=("text",),
        rows=True,
    ),
    "attacks": Kind(  # attacks/ATTACK/MODEL
        "attack",
        lambda c, name: (c.attacks[_first(name)], c.attack_seeds, c.attack_formats),
        lambda c, name: ["facts", *_edit(_last(name))],
        reads=("text",),
        rows=True,
    ),
    "harness": Kind(  # harness/MODEL/TASK; and what was asked, behind its stamp
        "harness",
        made_from=lambda c, name: _edit(_first(name)),
        reads=("weights",),
        rows=True,
    ),
    "inputs": Kind("run", files=lambda _: ([], [])),  # what a file was, stamped alone
}
"""In the order in which what they hold is reported."""

ROWS = tuple(name for name, kind in KINDS.items() if kind.rows)
"""The kinds that hold rows, each in a folder of its name."""
