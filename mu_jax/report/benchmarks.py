"""Standard benchmarks, as lm-eval scores them."""

from mu_jax.report.grid import Grid
from mu_jax.report.tables import Measure, Table, columns


def scores(table: Table) -> Grid | None:
    """A line a model, a column a task and metric; None where none was run."""
    rows = table.of("harness")
    where = dict.fromkeys((r.split, r.prompt, r.metric) for r in rows)
    notes = dict.fromkeys(f"{r.prompt}: {r.note}." for r in rows if r.note)
    return columns(
        table,
        "Standard benchmarks",
        " ".join(
            (
                "Tasks of lm-eval, as it scores them (accuracy: higher is better). In"
                " brackets: 95 % intervals over documents, which n"
                " counts.",
                *notes,
            )
        ),
        [Measure(f"{t}: {m}", "harness", s, t, m) for s, t, m in where],
    )
