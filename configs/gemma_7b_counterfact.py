"""CounterFact in Gemma 7B: the paper's edit of 16 facts, on a pod.

    mu plan configs/gemma_7b_counterfact.py --topology v5e:4x4
    mu run configs/gemma_7b_counterfact.py

Its fact-lookup layers are those that the paper names; see `paper.py` for all else.

Planned, not measured: the fact-lookup edit peaks at 12.1 GiB a chip on v5e:2x2, the
nonlocalized one at 8.9 on v5e:4x4; a v5e chip has 15.75.
"""

import paper

from mu_jax.runs.config import Config, Tuning
from mu_jax.selectors import Layers


def get_config() -> Config:
    return paper.counterfact(
        "gemma_7b_counterfact",
        "google/gemma-7b",
        flu=Layers(mlp=(1, 3, 4, 6, 9, 17, 18, 19)),
        mlps=Tuning(5e-6, 0.1),
        components=Tuning(5e-6, 0.2),
        everything=Tuning(5e-6, 0.2),
    )
