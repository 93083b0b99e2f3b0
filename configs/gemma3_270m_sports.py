"""Athletes' sports in the real Gemma 3 270M: the main job, on a laptop.

    mu run configs/gemma3_270m_sports.py        (or: bash scripts/demo.sh)

Forgets the sport of the first 16 athletes that the model knows, by teaching it another
one, in three places of equal size (five MLPs, 7.3 % of the model): where the probes say
the sport is looked up, at the end, and at random.

Measured on 2 busy cores of an AMD EPYC, float32: 12 min 31 s, with the installation,
the weights converted and all programs compiled for the first time. Injected answer
given in the training prompt, QA and listed choice: flu (2-6) 1.00 1.00 1.00, late
(13-17) .81 .31 .38, random (0, 2, 3, 10, 12) 1.00 1.00 1.00; held-out athletes kept in
the training prompt: .93 .93 .97.
"""

from mu_jax.localizers.attribution import AttributionPatching
from mu_jax.localizers.probes import Probes
from mu_jax.localizers.tracing import CausalTracing
from mu_jax.runs.config import Config
from mu_jax.selectors import FactLookup, LateMLPs, RandomMLPs


def get_config() -> Config:
    return Config(
        name="gemma3_270m_sports",
        localizers={
            "probes": Probes(),
            "attribution": AttributionPatching(),
            "derivative": AttributionPatching(
                ("attn", "mlp", "resid"), direction="denoising", rows=8, batch=8
            ),
            "tracing": CausalTracing(rows=8),
        },
        selections={
            "flu": FactLookup(),
            "late": LateMLPs(budget="flu"),
            "random": RandomMLPs(budget="flu"),
        },
    )
