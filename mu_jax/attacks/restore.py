"""Parts of the original put back, one at a time: where does the edit hold the fact?

Not an attack that an outsider can make, since it takes the original's weights, but the
shortest way to see which layer carries an edit. If one layer's tensors bring the facts
back by themselves, the edit broke a chain that has no second way; if none does, what
was changed is spread over all.
"""

import dataclasses
from collections.abc import Iterator, Mapping, MutableMapping
from typing import ClassVar

from mu_jax.attacks.attack import Needs
from mu_jax.attacks.scoring import Scoring
from mu_jax.attacks.victim import Victim
from mu_jax.errors import UserError
from mu_jax.model.model import Model
from mu_jax.model.params import put, take
from mu_jax.types import Progress, Row, Selection, silent

GROUPS = ("layer", "tensor", "below", "above")

Tensors = Mapping[str, tuple[int, ...]]
"""Label -> layers, as in a selection."""


@dataclasses.dataclass(frozen=True)
class Restore:
    """The edited model with some of the edited tensors as they were.

    Attributes:
      groups: what is put back together. "layer": all tensors of one layer ("layer=K");
        "tensor": one tensor of one layer ("layer=K tensor=mlp/down"); "below": up to a
        layer and with it ("layers<=K"); "above": from a layer on ("layers>=K"). What
        puts back all of the edit is left out: it is the original.
    """

    groups: tuple[str, ...] = ("layer", "below")

    needs: ClassVar[Needs] = "edit"

    def __post_init__(self):
        if not self.groups or set(self.groups) - set(GROUPS):
            raise UserError(f"groups = {self.groups}", f"some of {', '.join(GROUPS)}")

    def __call__(
        self,
        victim: Victim,
        name: str,
        journal: MutableMapping[str, list[float]],
        progress: Progress = silent,
    ) -> list[Row]:
        """Rows at every group of tensors with an edited one."""
        forget = victim.facts.forget
        scoring = Scoring(name, victim, "the original's tensors", forget, journal)
        scoring.baselines()
        points = list(self.points(victim.selection))
        for done, (at, tensors) in enumerate(points):
            progress(name, done, len(points))
            made = not scoring.done(at)
            model = restored(victim.model, victim.original, tensors) if made else None
            scoring.measure(at, model or victim.model)
        progress(name, len(points), len(points))
        return scoring.rows()

    def points(self, selection: Selection) -> Iterator[tuple[str, Tensors]]:
        """What is put back, and what it is called."""
        for group in self.groups:
            for at, tensors in _groups(group, selection):
                if tensors != dict(selection.tensors):
                    yield at, tensors


def restored(edited: Model, original: Model, tensors: Tensors) -> Model:
    """The edited model with those tensors of the original; the rest is shared."""
    new = put(edited.params, tensors, take(original.params, tensors))
    return dataclasses.replace(edited, params=new)


def _groups(group: str, selection: Selection) -> Iterator[tuple[str, Tensors]]:
    """One kind of group, from the lowest layer to the highest."""
    last = selection.layers[-1]
    for layer in selection.layers:
        if group == "tensor":
            for label, layers in selection.tensors:
                if layer in layers:
                    yield f"layer={layer} tensor={label}", {label: (layer,)}
        elif group == "below":
            yield f"layers<={layer}", _among(selection, range(layer + 1))
        elif group == "above":
            yield f"layers>={layer}", _among(selection, range(layer, last + 1))
        else:
            yield f"layer={layer}", _among(selection, range(layer, layer + 1))


def _among(selection: Selection, layers: range) -> Tensors:
    """The selected tensors of some layers."""
    chosen = {
        label: tuple(i for i in own if i in layers) for label, own in selection.tensors
    }
    return {label: own for label, own in chosen.items() if own}
