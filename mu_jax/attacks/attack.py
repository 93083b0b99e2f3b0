"""What every attack is: a frozen callable whose fields are its knobs."""

from collections.abc import MutableMapping
from typing import Literal, Protocol, get_args, runtime_checkable

from mu_jax.attacks.victim import Victim
from mu_jax.types import Progress, Row, silent

Needs = Literal["model", "taught", "edit"]
"""What an attack works with, beside the model.

model     nothing; what it does to those who never knew is seen when twins are asked
taught    the facts taught; what it does to those who never knew is seen only where it
          is taught twins, so it is made once more with them
edit      what an edit changed; the unedited model has nothing to attack
"""
NEEDS: tuple[str, ...] = get_args(Needs)


@runtime_checkable
class Attack(Protocol):
    """A way to bring forgotten facts back; it says what it needs."""

    @property
    def needs(self) -> Needs: ...

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
