"""What every attack is: a frozen callable whose fields are its knobs."""

from collections.abc import MutableMapping
from typing import Protocol, runtime_checkable

from mu_jax.attacks.victim import Victim
from mu_jax.types import Progress, Row, silent


@runtime_checkable
class Attack(Protocol):
    """A way to bring forgotten facts back.

    Attributes:
      learns: whether it learns from the facts taught, so that what it does to those
        who never knew is only seen where it learns from twins.
      undoes: whether there is nothing to attack without an edit.
    """

    @property
    def learns(self) -> bool: ...

    @property
    def undoes(self) -> bool: ...

    def __call__(
        self,
        victim: Victim,
        name: str,
        journal: MutableMapping[str, list[float]],
        progress: Progress = silent,
    ) -> list[Row]:
        """Attacks a copy of the victim; the victim itself stays as it is.

        Args:
          name: of the attack, `eval` of its rows.
          journal: what an earlier call, cut short, has measured is not measured again.

        Returns:
          The rows that `scoring` describes: the baselines, then every point of the
          attack's curve, in order.
        """
        ...
