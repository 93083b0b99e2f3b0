"""Tiny lm-eval tasks on disk, one of each kind; their data lie beside them."""

import json
from pathlib import Path

CHOICES = (
    ("one two", ["three", "four five", "six"], 0),
    ("red green", ["blue", "cold"], 1),
    ("a b c", ["d", "e", "f", "g"], 2),
    ("a b c", ["d", "e", "g"], 0),
)
TEXTS = ("one two three four", "red green blue", "a b c d e f g")

_TASKS = {
    "mu_choice": (
        {
            "output_type": "multiple_choice",
            "doc_to_text": "{{question}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{label}}",
        },
        [{"question": q, "choices": c, "label": a} for q, c, a in CHOICES],
    ),
    "mu_likelihood": (
        {
            "output_type": "loglikelihood",
            "doc_to_text": "{{text.split(' ')[:-1] | join(' ')}}",
            "doc_to_target": "{{' ' + text.split(' ')[-1]}}",
            "target_delimiter": "",
            "metric_list": [
                {"metric": m, "aggregation": how, "higher_is_better": m == "acc"}
                for m, how in (("perplexity", "perplexity"), ("acc", "mean"))
            ],
        },
        [{"text": text} for text in TEXTS],
    ),
    "mu_generate": (
        {
            "output_type": "generate_until",
            "doc_to_text": "{{text}}",
            "doc_to_target": "{{said}}",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 3},
            "metric_list": [
                {
                    "metric": "exact_match",
                    "aggregation": "mean",
                    "higher_is_better": True,
                }
            ],
        },
        [{"text": text, "said": "nothing"} for text in TEXTS],
    ),
    "mu_rolling": (
        {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [
                {
                    "metric": "word_perplexity",
                    "aggregation": "weighted_perplexity",
                    "higher_is_better": False,
                }
            ],
        },
        [{"text": text} for text in TEXTS],
    ),
}


def write(
    folder: Path, extra: dict | None = None, said: list[str] | None = None
) -> Path:
    """The folder, with the tasks and a group `mu_both` of the first two.

    Args:
      extra: further tasks, {name: (settings, documents)}.
      said: the right answers of `mu_generate`.
    """
    folder.mkdir(exist_ok=True)
    for name, (settings, documents) in {**_TASKS, **(extra or {})}.items():
        if name == "mu_generate" and said:
            documents = [d | {"said": s} for d, s in zip(documents, said, strict=True)]
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(d) + "\n" for d in documents))
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "target_delimiter": " ",
            **settings,
        }
        (folder / f"{name}.yaml").write_text(json.dumps(task))  # YAML holds JSON
    group = {
        "group": "mu_both",
        "task": ["mu_choice", "mu_likelihood"],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": False}],
    }
    (folder / "mu_both.yaml").write_text(json.dumps(group))
    return folder
