"""One page a run: `report.html`, self-contained, and `report.md` with its tables."""

import base64
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
from matplotlib.figure import Figure

from mu_jax.console import Console
from mu_jax.report import (
    attacks,
    benchmarks,
    chosen,
    curves,
    differences,
    figures,
    findings,
    latent,
    masks,
    own_evals,
    paper,
    tables,
    terminal,
)
from mu_jax.report.grid import Grid
from mu_jax.runs.config import Config
from mu_jax.runs.directory import RunDir
from mu_jax.selectors.selections import sized
from mu_jax.types import UNEDITED, Row, Scores, shipped


class Section(NamedTuple):
    """Part of the page: a table, pictures, or both."""

    title: str
    caption: str
    figures: list[Figure]
    grid: Grid | None = None


def write(
    run: RunDir, config: Config, rows: Sequence[Row], models: Sequence[str]
) -> Path:
    """Writes both files from rows and what the run directory holds.

    Args:
      models: the edited ones that it is about.

    Returns:
      The page's path.
    """
    # All is read before any of it is drawn, which takes far longer.
    facts, edited = run.read_facts(), _edited(run, models)
    scores = {name: run.read_scores(name) for name in config.localizers}
    histories = {name: run.read_history(name) for name in models}
    said = samples(run, (UNEDITED, *models))
    settings = run.read_json("config.json", "facts")
    table = tables.Table(rows)
    results = list(_results(table, edited))
    if how := chosen.settings(models, config.chosen):
        results.insert(1, Section(how.title, how.caption, [], how))
    details = [g for split in facts.used.splits if (g := tables.details(table, split))]
    details += [attacks.every_point(table, name) for name in attacks.names(table)]
    agreement = findings.agreement(scores)
    pictures = [_section(name, found) for name, found in scores.items()]
    pictures.append(_histories(histories))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mu_jax.report", "."), autoescape=True
    )
    page = environment.get_template("page.html.j2").render(
        title=config.name,
        model=config.model,
        results=[_shown(section) for section in results],
        details=details,
        pictures=[_shown(section) for section in pictures],
        agreement=agreement,
        samples=said,
        settings=settings,
        facts=[k for k in facts.known if k.split == "forget"],
    )
    run.write_text("report.html", page)
    grids = [section.grid for section in results if section.grid]
    grids += [*details, *([agreement] if agreement else [])]
    run.write_text(
        "report.md", f"# {config.name}\n\n" + "\n".join(g.markdown() for g in grids)
    )
    return run.path / "report.html"


def show(
    run: RunDir, rows: Sequence[Row], models: Sequence[str], console: Console
) -> None:
    """Prints the summary, and what attacks brought back if there were any."""
    table = tables.Table(rows)
    grids = [tables.summary(table, _edited(run, models)), attacks.worst_cases(table)]
    for grid in filter(None, grids):
        terminal.show(grid, console)


def samples(run: RunDir, models: Sequence[str]) -> list[dict]:
    """What was said before and after, one record a question: {asked, said: {model}}."""
    out: dict[tuple[str, ...], dict] = {}
    for record in (record for name in models for record in run.read_samples(name)):
        where = tuple(record[k] for k in ("split", "prompt", "fact"))
        asked = {"where": where, "asked": record["asked"], "said": {}}
        entry = out.setdefault(where, asked)
        entry["said"][record["model"]] = record["said"]
    return list(out.values())


def _results(table: tables.Table, edited: dict[str, str]) -> Iterator[Section]:
    """What came of the edits, the most telling first."""
    summary = tables.summary(table, edited)
    bars = [figures.transfer(table)] if table.direct else []
    yield Section(summary.title, summary.caption, bars, summary)
    pairs = differences.in_pairs(differences.within(table))
    found = [
        (paper.metrics(table), []),
        (pairs, []),
        (attacks.worst_cases(table), curves.attacks(table)),
        (latent.knowledge(table), curves.latent(table)),
        (masks.curves(table), curves.masks(table)),
        (benchmarks.scores(table), []),
        (own_evals.measured(table), []),
    ]
    for grid, pictures in found:
        if grid:
            yield Section(grid.title, grid.caption, pictures, grid)


def _histories(runs: Mapping[str, list[dict[str, float]]]) -> Section:
    """How the losses of the gradient edits went; other methods have other terms."""
    terms = {"step", *curves.TERMS}
    like = {k: v for k, v in runs.items() if terms <= v[0].keys()}
    return Section(
        "The edits",
        "The terms of the loss, step by step.",
        [curves.histories(like)] if like else [],
    )


def _edited(run: RunDir, models: Sequence[str]) -> dict[str, str]:
    """{edited model: its components and parameters}."""
    out = {UNEDITED: "-"}
    for name in models:
        if run.exists(f"edits/{name}/selection.json"):
            said = sized(run.read_edited(name))
            out |= dict.fromkeys((name, shipped(name, "bfloat16")), said)
    return out


def _section(name: str, scores: Scores) -> Section:
    """Heading, caption and pictures of one localizer."""
    heading = scores.heading or scores.method
    if name != scores.method:
        heading = f"{heading} ({name})"
    return Section(heading, scores.caption, figures.of_scores(scores))


def _shown(section: Section) -> dict:
    """A section as the page's template wants it."""
    return {**section._asdict(), "images": [_embedded(f) for f in section.figures]}


def _embedded(figure: Figure) -> str:
    """A figure as a data URI."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # tokens in scripts that the font lacks
        warnings.filterwarnings("ignore", "Glyph|Matplotlib currently", UserWarning)
        figure.savefig(buffer, format="png", dpi=130)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
