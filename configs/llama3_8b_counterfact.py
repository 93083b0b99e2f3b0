"""CounterFact in Llama 3 8B: the paper's edit of 16 facts, on a pod.

    mu plan configs/llama3_8b_counterfact.py --topology v5e:4x4
    mu run configs/llama3_8b_counterfact.py

Its fact-lookup layers are those that the paper names; see `paper.py` for all else.

Planned, not measured: the fact-lookup edit peaks at 7.1 GiB a chip on v5e:2x2, the
nonlocalized one at 7.8 on v5e:4x4; a v5e chip has 15.75.
"""

import paper

from mu_jax.runs.config import Config, Tuning
from mu_jax.selectors import Layers


def get_config() -> Config:
    return paper.counterfact(
        "llama3_8b_counterfact",
        "meta-llama/Meta-Llama-3-8B",
        flu=Layers(mlp=(5, 6, 9, 13)),
        mlps=Tuning(1e-4, 1),
        components=Tuning(2e-5, 0.1),
        everything=Tuning(2e-5, 2),
    )
