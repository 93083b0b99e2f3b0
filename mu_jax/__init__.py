"""mu_jax: mechanistic unlearning in JAX. The public API, in pipeline order."""

# A model as a value, and what it knows.
from mu_jax.load import load as load
from mu_jax.model.model import Model as Model
from mu_jax.facts.counterfact import CounterFact as CounterFact
from mu_jax.facts.sports import Sports as Sports
from mu_jax.facts.text import Text as Text
from mu_jax.evals.known import KnownFilter as KnownFilter

# How to ask for it.
from mu_jax.facts.tokens import distinct as distinct
from mu_jax.facts.tokens import prompts as prompts
from mu_jax.facts.corrupt import GaussianNoise as GaussianNoise
from mu_jax.facts.corrupt import OtherSubject as OtherSubject
from mu_jax.facts.corrupt import RandomTokens as RandomTokens

# Where it is looked up, and which tensors to edit.
from mu_jax.localizers.attribution import AttributionPatching as AttributionPatching
from mu_jax.localizers.edges import EdgeAttribution as EdgeAttribution
from mu_jax.localizers.paths import PathPatching as PathPatching
from mu_jax.localizers.probes import Probes as Probes
from mu_jax.localizers.tracing import CausalTracing as CausalTracing
from mu_jax import selectors as selectors

# Change those and nothing else.
from mu_jax.edits.gradient import GradientEdit as GradientEdit
from mu_jax.edits import losses as losses
from mu_jax.edits.losses import Inject as Inject
from mu_jax.edits.lora import LoRA as LoRA
from mu_jax.edits.memit import MEMIT as MEMIT
from mu_jax.edits.rmu import RMU as RMU
from mu_jax.edits.rome import ROME as ROME
from mu_jax.edits.staged import Layered as Layered
from mu_jax.edits.staged import Sequential as Sequential

# What the edit did.
from mu_jax.evals.recall import Recall as Recall
from mu_jax.evals.depth import UnlearningDepth as UnlearningDepth
from mu_jax.evals.distance import WeightDistance as WeightDistance
from mu_jax.evals.lens import LogitLens as LogitLens
from mu_jax.evals.probes import LatentProbes as LatentProbes
from mu_jax.evals.samples import Samples as Samples
from mu_jax.evals.text_loss import TextLoss as TextLoss

# Does the fact stay gone?
from mu_jax.attacks.victim import Victim as Victim
from mu_jax.attacks.directions import AblateDirection as AblateDirection
from mu_jax.attacks.hints import Hints as Hints
from mu_jax.attacks.perturb import Perturb as Perturb
from mu_jax.attacks.quantize import Quantize as Quantize
from mu_jax.attacks.relearn import Relearn as Relearn
from mu_jax.attacks.restore import Restore as Restore
from mu_jax.attacks.soft_adapter import SoftAdapter as SoftAdapter
from mu_jax.attacks.soft_prompt import SoftPrompt as SoftPrompt
from mu_jax.facts.invented import twins as twins

# The whole of it as one run.
from mu_jax.runs.config import Config as Config
from mu_jax.errors import UserError as UserError

# Not a word about TPUs where there are none, whatever runs first.
from mu_jax.devices.backends import without_pod as _without_pod

_without_pod()
