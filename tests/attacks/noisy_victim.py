"""A victim in miniature: a tiny model whose edit is noise in two MLPs."""

import dataclasses

import jax
import numpy as np

from mu_jax.attacks.victim import Victim
from mu_jax.facts.sports import TRAIN, Sports
from mu_jax.model.params import take
from mu_jax.selectors.selections import components
from mu_jax.types import Edit, Site

EDITED = (2, 4)
INVENTED = ("Dorvan Kelmick", "Tarvin Trasky", "Jorel Quistrom", "Wendro Hardel")


def made(model, seed: int = 0) -> Victim:
    """Four facts to forget, twelve retained, four held out."""
    source = Sports(forget=4, heldout=0.25)
    facts = source.split([(fact, 1.0) for fact in source.load()[:20]])
    selection = components([Site(i, "mlp") for i in EDITED], model.sizes, "two")
    rng = np.random.default_rng(1)
    old = take(model.params, dict(selection.tensors))
    noise = lambda array: 0.3 * rng.standard_normal(array.shape).astype(np.float32)
    noisy = {k: jax.tree.map(lambda x: x + noise(x), a) for k, a in old.items()}
    twins = {
        fact.id: dataclasses.replace(fact, id=f"twin/{i}", subject=INVENTED[i])
        for i, fact in enumerate(facts.forget)
    }
    return Victim(
        name="two",
        model=model.update(Edit(selection, noisy, [])),
        original=model,
        selection=selection,
        facts=facts,
        twins=twins,
        templates=(TRAIN,),
        text=np.zeros((0, 8), np.int32),
        seed=seed,
    )
