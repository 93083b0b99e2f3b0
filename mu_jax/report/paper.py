"""The paper's own metrics (method §5), each beside its top-1 version.

Theirs is a mean probability: over the options for sports and multiple choice, over the
whole vocabulary for CounterFact's other formats. Top-1 counts how often the answer is
the likeliest of all tokens, so that mass on a thousand other words does not pass for
knowledge.
"""

from mu_jax.report.grid import Grid
from mu_jax.report.tables import INTERVALS, NEIGHBOURS, Measure, Table, columns

QA, PARAPHRASE, CHOICE = "qa", "paraphrase", "mcq"


def metrics(table: Table) -> Grid | None:
    """The metrics by the paper's names, all of them higher is better; None without any.

    Where a class was forgotten by halves (Full-Sport), the half that the edit did not
    see is scored, as theirs is.
    """
    wanted = [m for what in _measures(table) for m in (what, _top(what))]
    forget = _forget(table)
    unseen = " (the half that no edit saw)" if forget != "forget" else ""
    return columns(
        table,
        "The paper's metrics",
        "Forget Error: 1 - p(true answer) of the forgotten facts"
        f"{unseen}. Edit Accuracy: p(injected answer) of the same. Maintain Accuracy:"
        " p(true answer) of held-out facts. Neighborhood: of prompts about other"
        " subjects with the same true answer. Always over the options, or for"
        " CounterFact over the whole vocabulary; (format) unless in the training"
        " prompt. Top-1: as likeliest of all tokens instead. Higher is better"
        f" throughout. {INTERVALS}",
        wanted,
    )


def forget_error(table: Table) -> Measure:
    """1 - p(true answer) of the forgotten facts in the training prompt."""
    return _measures(table)[0]


def _measures(table: Table) -> list[Measure]:
    train, forget = table.train, _forget(table)
    sports = QA in table.prompts
    p = "choice_p_" if sports else "p_"

    def error(title: str, prompt: str, answer: str, p: str = p) -> Measure:
        where = ("recall", forget, prompt, f"{p}{answer}")
        return Measure(title, *where, missing=True)

    def accuracy(title: str, prompt: str, answer: str, p: str = p) -> Measure:
        return Measure(title, "recall", forget, prompt, f"{p}{answer}")

    wanted = [error("Forget Error", train, "true")]
    if sports:
        wanted.append(accuracy("Edit Accuracy (qa)", QA, "injected"))
    wanted += [
        accuracy("Edit Accuracy", train, "injected"),
        Measure("Maintain Accuracy", "recall", "heldout", train, f"{p}true"),
    ]
    for name in (x for x in table.telling if x.startswith(CHOICE)):
        title = name.replace(CHOICE, "MCQ").replace("_", " ")
        wanted += [
            error(f"{title} Forget Error", name, "true", "choice_p_"),
            accuracy(f"{title} Edit Accuracy", name, "injected", "choice_p_"),
        ]
    if PARAPHRASE in table.telling:
        wanted += [
            error("Paraphrase Forget Error", PARAPHRASE, "true"),
            accuracy("Paraphrase Edit Accuracy", PARAPHRASE, "injected"),
        ]
    if NEIGHBOURS in table.telling:
        wanted += [
            error("Neighborhood Edit Error", NEIGHBOURS, "injected"),
            accuracy("Neighborhood kept", NEIGHBOURS, "true"),
        ]
    return wanted


def _top(what: Measure) -> Measure:
    """The same by the likeliest of all tokens."""
    answer = what.metric.rpartition("_")[2]
    return Measure(
        f"{what.title}, top-1", what.eval, what.split, what.prompt, f"top_{answer}",
        missing=what.missing,
    )  # fmt: skip


def _forget(table: Table) -> str:
    """The split that the paper's forget metrics are taken on."""
    splits = {row.split for row in table.of("recall")}
    return "forget_heldout" if "forget_heldout" in splits else "forget"
