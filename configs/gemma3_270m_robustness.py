"""Does the fact stay gone? Baselines and attacks on the real Gemma 3 270M.

    mu sweep configs/gemma3_270m_robustness.py --choose score \\
      --over baselines.npo.edit.learning_rate 3e-5 1e-4 3e-4
    mu run configs/gemma3_270m_robustness.py
    mu attack runs/gemma3_270m_robustness --edit flu,late,random
    mu mask runs/gemma3_270m_robustness --edit flu,late
    mu report runs/gemma3_270m_robustness

The three edits of `gemma3_270m_sports.py`, and beside them other methods on the same
facts, all on the fact-lookup MLPs: losses that only forget (NPO, SimNPO, GradDiff),
RMU, ROME, MEMIT, LoRA, layer by layer and part by part. The sweeps give each the same
number of tries, on 32 athletes set aside for it, 16 to forget and 16 to hold out. They
were not made yet: as it stands only RMU's defaults were chosen there, by hand.
"""

from mu_jax.edits.gradient import GradientEdit
from mu_jax.edits.lora import LoRA
from mu_jax.edits.losses import NPO, Ascent, SimNPO
from mu_jax.edits.memit import MEMIT
from mu_jax.edits.rmu import RMU
from mu_jax.edits.rome import ROME
from mu_jax.edits.staged import Layered, Sequential
from mu_jax.facts.sports import Sports
from mu_jax.localizers.probes import Probes
from mu_jax.runs.config import Baseline, Config
from mu_jax.selectors import FactLookup, LateMLPs, RandomMLPs


def get_config() -> Config:
    return Config(
        name="gemma3_270m_robustness",
        facts=Sports(tune=32),
        localizers={"probes": Probes()},
        selections={
            "flu": FactLookup(),
            "late": LateMLPs(budget="flu"),
            "random": RandomMLPs(budget="flu"),
        },
        baselines={
            "npo": Baseline("flu", GradientEdit(loss=NPO())),
            "simnpo": Baseline("flu", GradientEdit(loss=SimNPO())),
            "graddiff": Baseline("flu", GradientEdit(loss=Ascent())),
            "rmu": Baseline("flu", RMU()),
            "rome": Baseline("flu", ROME()),
            "memit": Baseline("flu", MEMIT()),
            "lora": Baseline("flu", LoRA(learning_rate=1e-3)),
            "layered": Baseline("flu", Layered()),
            "sequential": Baseline("flu", Sequential()),
        },
    )
