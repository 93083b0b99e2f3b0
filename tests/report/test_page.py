"""The page: whatever the run holds is text in it, and it needs nothing else."""

import dataclasses
import re
import warnings

import pytest
from made_scores import ALL, tracing

from mu_jax.console import Console
from mu_jax.localizers.attribution import AttributionPatching
from mu_jax.localizers.edges import EdgeAttribution
from mu_jax.localizers.paths import PathPatching
from mu_jax.localizers.probes import Probes
from mu_jax.localizers.tracing import CausalTracing
from mu_jax.report import page
from mu_jax.runs.config import Config
from mu_jax.runs.directory import RunDir
from mu_jax.selectors import Layers
from mu_jax.types import Fact, Facts, Known, Row, Selection

EVIL = "<script>alert('1')</script>\"<img src=x onerror=y>"
TAGS = (
    "html head meta title style body h1 h2 p div table thead tbody tr th td details"
    " summary pre img br span"
)
FORMATS = ("train", "mcq")
LOCALIZERS = {
    "probes": Probes(),
    "attribution": AttributionPatching(),
    "tracing": CausalTracing(),
    "paths": PathPatching(),
    "edges": EdgeAttribution(),
}
CONFIG = Config("mine", localizers=LOCALIZERS, selections={"flu": Layers(mlp=(1, 2))})


def filled(path, config=CONFIG, evil="fine", scores=ALL) -> RunDir:
    """A run directory with everything in it but tensors."""
    run = RunDir(path)
    run.write_json("config.json", {"config": evil})
    fact = Fact("x/1", evil, "plays", f" {evil}", " golf", f"{evil} plays")
    splits = ("forget", "retain", "heldout")
    run.write_facts(Facts(tuple(Known(fact, split, 0.5) for split in splits)))
    run.write_asked([(fact, 0.5)])
    for name in config.localizers:
        run.write_scores(name, scores.get(name, scores["attribution"]))
    for name in config.selections:
        tensors = (("mlp/down", (1, 2)), ("mlp/gate", (1, 2)), ("mlp/up", (1, 2)))
        run.write_selection(Selection(name, tensors, 1_500_000, evil))
        run.write_edited(Selection(name, tensors, 1_500_000, evil))
        steps = [{"step": i, "forget": 2.0, "retain": 1.0, "text": 3.0} for i in (1, 2)]
        run.write_lines(f"edits/{name}/history.jsonl", steps)
    models = ("unedited", *config.selections)
    asked = {"split": "forget", "prompt": "train", "fact": evil, "asked": evil}
    for model in models:
        run.write_samples(model, [{"model": model, **asked, "said": f"{evil} \x00"}])
    return run


def rows(config=CONFIG, evil="fine") -> list[Row]:
    """What an evaluation might have measured."""
    note = f"not informative: {evil}"
    return [
        Row(*where, (0.5,) * 8, 0.5, 0.4, 0.6, 8, note=note if prompt == "mcq" else "")
        for model in ("unedited", *config.selections)
        for split in ("forget", "retain", "heldout")
        for prompt in FORMATS
        for metric in ("choice_true", "choice_injected")
        for where in [(model, "recall", split, prompt, metric)]
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    odd = {**ALL, "tracing": tracing([EVIL, "東京", "مصر", "\x00", "🙂"])}
    scores = {
        name: dataclasses.replace(made, notes={**made.notes, "metric": EVIL})
        for name, made in odd.items()
    }
    return filled(tmp_path_factory.mktemp("run"), evil=EVIL, scores=scores)


@pytest.fixture(scope="module")
def text(run):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return page.write(run, CONFIG, rows(evil=EVIL), CONFIG.edited).read_text(
            encoding="utf-8"
        )


def test_nothing_that_a_run_holds_is_markup(text):
    assert "<script" not in text.lower() and "onerror=y>" not in text
    assert "&lt;script&gt;" in text
    tags = set(re.findall(r"<(\w+)", text))
    assert tags <= set(TAGS.split())


def test_every_picture_of_every_localizer_is_in_the_page(text):
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings == [
        "Selections compared",
        "In their own words",
        "Where the fact is looked up",
        "What the output depends on",
        "What restores the answer",
        "Who writes the answer, and what feeds them",
        "The circuit",
        "The edits",
        "How well attribution predicts tracing",
        "Everything measured",
    ]
    assert text.count("data:image/png;base64,") == 1 + 2 + 2 + 1 + 1 + 2
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", text)


def test_the_tables_are_in_markdown_too(run, text):
    said = (run.path / "report.md").read_text(encoding="utf-8")
    assert said.startswith("# mine\n")
    assert "### How well attribution predicts tracing" in said
    assert "mlp 1-2, 1.5M" in said
    for line in said.splitlines():
        assert not line.startswith("|") or line.endswith("|")


def test_two_localizers_of_one_kind_have_headings_of_their_own(tmp_path):
    pair = {"tracing": CausalTracing(), "noise": CausalTracing()}
    config = Config("x", localizers=pair, selections={})
    run = filled(tmp_path, config, scores={**ALL, "noise": ALL["tracing"]})
    text = page.write(run, config, rows(config), config.edited).read_text(
        encoding="utf-8"
    )
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert "What restores the answer" in headings
    assert "What restores the answer (noise)" in headings
    assert "How well attribution predicts tracing" not in headings


def test_the_summary_is_shown_in_the_terminal(run, capsys):
    page.show(run, rows(), CONFIG.edited, Console())
    said = capsys.readouterr()
    assert "Selections compared" in said.out + said.err
    assert "flu" in said.out + said.err
