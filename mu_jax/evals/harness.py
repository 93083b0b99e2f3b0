"""Standard benchmarks: the tasks of EleutherAI's lm-eval, asked of our models.

lm-eval makes the requests and counts what is right (its `multiple_choice`,
`loglikelihood`, `loglikelihood_rolling` and `generate_until` tasks); the numbers come
from our forward passes, and the intervals from `statistics`.
"""

import contextlib
import dataclasses
import difflib
import functools
import importlib.metadata
import importlib.util
import itertools
import json
import logging
import re
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from mu_jax.errors import UserError
from mu_jax.evals.adapter import adapter
from mu_jax.model.model import Model
from mu_jax.types import Progress, Row, silent

NAME = "harness"
"""What these rows have as `eval`."""
SHARES = ("acc", "acc_norm", "acc_bytes", "exact_match", "f1")
"""Its metrics that lie in [0, 1], document by document."""
_SEED = 1234  # lm-eval's own, for the choice of few-shot examples

Loaded = Mapping[str, Mapping[str, Any]]
"""What `Harness.load` found: each name asked for, with lm-eval's tasks and groups."""


@dataclasses.dataclass(frozen=True)
class Harness:
    """Tasks of lm-eval on one model.

    Attributes:
      tasks: names of tasks, groups or tags, as `lm-eval ls tasks` lists them.
      limit: at most this many documents of each task, the first ones; None: all.
      num_fewshot: solved examples before each question; None: as the task says. A
        task that asks for none keeps to that.
      batch: rows a forward pass; changes no result.
      context: tokens a row at most. Longer requests lose their oldest tokens.
      include_path: a directory with further task files (YAML). Those may name Python
        functions, which lm-eval runs: only from people you trust.
    """

    tasks: tuple[str, ...]
    limit: int | None = None
    num_fewshot: int | None = None
    batch: int = 16
    context: int = 2048
    include_path: str | None = None

    def __post_init__(self):
        if not self.tasks:
            raise UserError("no tasks", "at least one", "for example: hellaswag,sciq")
        for name, least in (("limit", 1), ("num_fewshot", 0), ("batch", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{name} {value}", f"at least {least}")
        if self.context < 2:
            raise UserError(f"context {self.context}", "at least 2")
        if self.include_path and not Path(self.include_path).is_dir():
            raise UserError(
                f"no directory {self.include_path}", "one with task files (YAML)"
            )

    def __call__(
        self,
        model: Model,
        name: str,
        progress: Progress = silent,
        loaded: Loaded | None = None,
    ) -> list[Row]:
        """One row a task and metric, and a group and metric, for the model `name`.

        `values` has one score a document, in the task's order (a group: its tasks one
        after another), where the metric is a mean of such; of another (perplexity,
        bleu) it holds the one number and `note` says so. A filter of the task's other
        than lm-eval's default is named behind the metric: "exact_match,strict-match".
        What is better, more or less, is for each metric to say.

        Args:
          loaded: what `load` made, where that is to be done once for several models.

        Raises:
          UserError: what `load` raises.
        """
        found = loaded or self.load()
        return [
            row
            for part in found.values()
            for row in self.measure(model, name, part, progress)
        ]

    def load(self) -> Loaded:
        """The tasks with their data, before any model is asked.

        Raises:
          UserError: lm-eval is not installed, an unknown task, one whose data cannot be
            had here, or one that this adapter cannot ask.
        """
        if not importlib.util.find_spec("lm_eval"):
            raise UserError(
                "lm-eval is not installed",
                "the package that has the tasks",
                "pip install 'mu_jax[harness]'",
            )
        with _quiet():
            manager = self._manager()
            return {name: self._loaded(manager, name) for name in self.tasks}

    def measure(
        self,
        model: Model,
        name: str,
        part: Mapping[str, Any],
        progress: Progress = silent,
        journal: MutableMapping[str, Any] | None = None,
    ) -> list[Row]:
        """The rows of one of the loaded names.

        Args:
          journal: what an earlier call, cut short, was answered is not asked again.
        """
        from lm_eval.evaluator import evaluate

        asked = adapter(model, self.batch, self.context, progress, journal)
        with _quiet():
            for task in part["tasks"].values():
                task.set_fewshot_seed(_SEED)
            results = evaluate(
                asked, dict(part), limit=self.limit, log_samples=True, bootstrap_iters=0
            )  # the intervals are ours
        return list(_rows(name, results or {}, part))

    def settings(self, part: Mapping[str, Any]) -> str:
        """All that the numbers of a loaded name depend on beside the model, as text."""
        described = {
            task_name: [
                task.dump_config(),
                list(itertools.islice(task.eval_docs, self.limit)),
            ]
            for task_name, task in part["tasks"].items()
        }
        version = importlib.metadata.version("lm-eval")
        whole = [version, self.limit, self.num_fewshot, self.context, described]
        text = json.dumps(whole, sort_keys=True, default=str)
        return re.sub(r" at 0x[0-9a-f]+", "", text)

    def _manager(self) -> Any:
        """lm-eval's index of tasks, its own tasks left out if none is asked for.

        There are thousands of them; reading their names takes seconds.
        """
        from lm_eval.tasks import TaskManager

        if self.include_path:
            own = TaskManager(include_path=self.include_path, include_defaults=False)
            if set(self.tasks) <= own.task_index.keys():
                return own
        return TaskManager(include_path=self.include_path)

    def _loaded(self, manager: Any, name: str) -> Mapping[str, Any]:
        if name not in manager.task_index:
            near = difflib.get_close_matches(name, manager.all_tasks, n=3, cutoff=0.5)
            raise UserError(
                f"no task called {name!r}",
                "one that `lm-eval ls tasks` lists",
                f"perhaps you meant {', '.join(near)}" if near else "",
            )
        try:
            part = manager.load([name])
        except Exception as error:  # whatever a task's own code and its data raise
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            raise UserError(
                f"the task {name!r} cannot be loaded ({reason})",
                "its data, downloaded before or reachable from here",
                "load it once where the hub can be reached, or give --include-path a"
                " task with data of its own",
            ) from None
        for task_name, task in part["tasks"].items():
            _askable(task_name, task)
            own = task.get_config("num_fewshot")
            if own != 0:  # a task that says 0 cannot have any
                wanted = own if self.num_fewshot is None else self.num_fewshot
                task.set_config(key="num_fewshot", value=wanted or 0)
        return part


def _askable(name: str, task: Any) -> None:
    """Raises UserError for a task that a greedy model of text cannot be asked."""
    how = task.get_config("generation_kwargs") or {}
    for barred, why in (
        (getattr(task, "UNSAFE_CODE", False), "runs code that the model writes"),
        (getattr(task, "MULTIMODAL", False), "asks about images or sounds"),
        (how.get("do_sample") and how.get("temperature", 1) > 0, "draws its answers"),
    ):
        if barred:
            raise UserError(f"the task {name!r}, which {why}", "one of text, greedy")


def _rows(name: str, results: Mapping, part: Mapping[str, Any]) -> Iterator[Row]:
    from lm_eval.api.metrics import mean

    scores: dict[str, dict[str, list[float]]] = {}
    for task_name, task in part["tasks"].items():
        of_task = scores.setdefault(task_name, {})
        documents = results["samples"][task_name]
        for metric, kind in _metrics(documents):
            values = [d[metric] for d in documents if d["filter"] == kind]
            how = task.aggregation().get(metric)
            label = metric if kind == "none" else f"{metric},{kind}"
            row = functools.partial(
                Row.of,
                model=name,
                eval=NAME,
                split="test",
                metric=label,
                prompt=task_name,
            )
            if how is mean and all(np.isscalar(v) for v in values):
                of_task[label] = [float(v) for v in values]
                yield row(np.array(of_task[label]), share=metric in SHARES)
                continue
            whole = results["results"][task_name].get(f"{metric},{kind}")
            if isinstance(whole, int | float):
                note = f"one number for all {len(values)} documents, no mean of theirs"
                yield row(np.array([whole]), note=note)
    for group in (part.get("groups") or {}).values():
        yield from _of_group(name, group, scores)


def _of_group(name: str, group: Any, scores: Mapping) -> Iterator[Row]:
    """Over all documents of its tasks, for metrics that lm-eval gives the group."""
    leaves = [task.task_name for task in group.get_all_tasks()]
    common = set.intersection(*(set(scores[leaf]) for leaf in leaves))
    for rule in group.aggregate_metric_list or ():
        note = "" if rule.weight_by_size else "weighs documents, not tasks, equally"
        for label in sorted(common):
            if label.partition(",")[0] == rule.metric:
                values = np.concatenate([scores[leaf][label] for leaf in leaves])
                yield Row.of(
                    values, model=name, eval=NAME, split="test", prompt=group.name,
                    metric=label, note=note, share=rule.metric in SHARES,
                )  # fmt: skip


def _metrics(documents: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(metric, filter) of a task's documents, in order of appearance."""
    pairs = ((m, d["filter"]) for d in documents for m in d["metrics"])
    return list(dict.fromkeys(pairs))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars and the log lines of lm-eval and of what it loads data with."""
    import datasets
    import tqdm
    from lm_eval.api import task

    bars = datasets.are_progress_bars_disabled()
    shown, disabled = task.tqdm, logging.root.manager.disable
    datasets.disable_progress_bars()
    logging.disable(logging.WARNING)
    task.tqdm = lambda items, **_: tqdm.tqdm(items, disable=True)  # it has no switch
    try:
        yield
    finally:
        task.tqdm = shown
        logging.disable(disabled)
        if not bars:
            datasets.enable_progress_bars()
