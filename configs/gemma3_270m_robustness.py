"""Does the fact stay gone? Baselines and attacks on the real Gemma 3 270M.

    mu sweep configs/gemma3_270m_robustness.py --choose score \\
      --over baselines.npo.edit.learning_rate 3e-5 1e-4 3e-4
    mu run configs/gemma3_270m_robustness.py
    mu attack runs/gemma3_270m_robustness --edit flu,late,random
    mu mask runs/gemma3_270m_robustness --edit flu,late
    mu report runs/gemma3_270m_robustness

The three edits of `gemma3_270m_sports.py`, and beside them other methods on the same
facts, all on the fact-lookup MLPs: losses that only forget (NPO, SimNPO, GradDiff),
RMU, ROME, MEMIT, LoRA, layer by layer and part by part.

One setting of each was chosen by such a sweep, of three values, on 32 athletes set
aside for it, 16 to forget and 16 to hold out. The score is the harmonic mean of what is
forgotten and what is kept. The best value is written below, or is the default:

    flu         learning rate   3e-5  .97    1e-4 1.00    3e-4  .96
    late        learning rate   3e-5  .68    1e-4  .68    3e-4  .64
    random      learning rate   3e-5  .99    1e-4 1.00    3e-4  .70
    npo         learning rate   3e-5  .81    1e-4  .93    3e-4 1.00
    simnpo      learning rate   3e-5  .77    1e-4  .93    3e-4 1.00
    graddiff    learning rate   3e-5  .77    1e-4  .88    3e-4  .92
    rmu         learning rate   1e-5  .56  2.5e-5  .65    6e-5  .72
    rome        clamp             .5  .97       1  .84       2  .76
    memit       weight             3  .66      30  .66     300  .46
    lora        learning rate   1e-3 1.00    3e-3 1.00    1e-2  .70

Where the best value is the first or last, a wider sweep may find a better one. The
methods layered and sequential have their defaults, no sweep of them is finished.
"""

from mu_jax.edits.gradient import GradientEdit
from mu_jax.edits.lora import LoRA
from mu_jax.edits.losses import NPO, Ascent, SimNPO
from mu_jax.edits.memit import MEMIT
from mu_jax.edits.rmu import RMU
from mu_jax.edits.rome import ROME
from mu_jax.edits.staged import Layered, Sequential
from mu_jax.edits.values import Value
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
            "npo": Baseline("flu", GradientEdit(loss=NPO(), learning_rate=3e-4)),
            "simnpo": Baseline("flu", GradientEdit(loss=SimNPO(), learning_rate=3e-4)),
            "graddiff": Baseline(
                "flu", GradientEdit(loss=Ascent(), learning_rate=3e-4)
            ),
            "rmu": Baseline("flu", RMU(learning_rate=6e-5)),
            "rome": Baseline("flu", ROME(value=Value(clamp=0.5))),
            "memit": Baseline("flu", MEMIT(weight=30.0)),
            "lora": Baseline("flu", LoRA(learning_rate=1e-3)),
            "layered": Baseline("flu", Layered()),
            "sequential": Baseline("flu", Sequential()),
        },
    )
