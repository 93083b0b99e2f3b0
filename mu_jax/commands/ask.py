"""`mu ask`: what models say to a prompt, the edited ones beside the unedited."""

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from mu_jax import inputs
from mu_jax.checkpoints.cache import keep_programs
from mu_jax.commands.words import Parser, at_home
from mu_jax.console import Console
from mu_jax.devices import distributed
from mu_jax.errors import UserError
from mu_jax.load import load
from mu_jax.model.asking import Answer, ask
from mu_jax.runs import loading
from mu_jax.runs.directory import RunDir
from mu_jax.runs.run import Run
from mu_jax.types import UNEDITED

USAGE = (
    "mu ask RUN|MODEL [PROMPT ...] [--file FILE] [--edit NAME,...] [--top N]"
    " [--length N] [--json]"
)
_MOST = 1 << 20
"""Bytes of a file or a pipe of prompts."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """A prompt, and the fact of the run that it asks for, if one is found."""

    prompt: str
    answer: str = ""
    foil: str = ""
    fact: str = ""

    @property
    def options(self) -> tuple[str, ...]:
        return (self.answer, self.foil) if self.fact else ()


def main(args: list[str], console: Console) -> None:
    """Runs the command; see USAGE.

    Raises:
      UserError: an option or a word too few or too many, a run without edits that are
        up to date, and what `asking.ask` raises.
    """
    said = _parser().parse_intermixed_args(args)
    distributed.alone()
    keep_programs()
    models, recognise = _models(said.target, said.edit, console)
    asked = lambda prompts: {
        name: ask(
            model,
            [one.prompt for one in prompts],
            options=[one.options for one in prompts],
            top=said.top,
            length=said.length,
            progress=console.progress,
        )
        for name, model in models.items()
    }
    for prompts in _prompts(said.prompt, said.file):
        known = [recognise(prompt) for prompt in prompts]
        answers = asked(known)
        console.finish()
        for number, one in enumerate(known):
            of = {name: found[number] for name, found in answers.items()}
            if said.json:
                print(json.dumps(_record(one, of), ensure_ascii=False), flush=True)
            else:
                console.show(_table(one, of))


def _parser() -> Parser:
    parser = Parser("ask", USAGE, __doc__)
    parser.add_argument(
        "target", metavar="RUN|MODEL", help="a run directory, or what `mu.load` takes"
    )
    parser.add_argument(
        "prompt", nargs="*", metavar="PROMPT",
        help="some text to go on from, without a space at its end; without one, lines"
        " of a pipe or of what is typed",
    )  # fmt: skip
    parser.add_argument("--file", metavar="FILE", help="prompts, one a line")
    parser.add_argument(
        "--edit", default="", metavar="NAME,...", help="edits of the run (default: all)"
    )
    parser.add_argument("--top", type=int, default=5, help="how many next tokens")
    parser.add_argument(
        "--length", type=int, default=16, help="tokens of a continuation, at most"
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON a prompt")
    return parser


def _models(target: str, edits: str, console: Console):
    """{name: model}, all of the same frozen weights, and what finds a prompt's fact."""
    source = inputs.local(target, "the run or model")
    if not (source / "stamps").is_dir():  # a checkpoint has a config.json, too
        if edits:
            raise UserError(f"--edit {edits} of a model", "a run directory", USAGE)
        return {target: load(target, progress=console.progress)}, Asked
    config = at_home(loading.load(target), (), console.say)
    run = Run(config, RunDir(source), console, only={"--edit": edits})
    names = run.chosen("--edit", config.edited)
    if edits:
        for name in names:
            run.need(f"edits/{name}")
    elif names:
        names = run.usable({name: [f"edits/{name}"] for name in names})
    models = {name: run.edited(name) for name in (UNEDITED, *names)}
    questions = _questions(run)
    return models, lambda prompt: questions.get(prompt, Asked(prompt))


def _questions(run: Run) -> Mapping[str, Asked]:
    """Every question about a known fact of the run, by its text."""
    if not run.fresh("facts"):
        return {}
    facts = [known.fact for known in run.dir.read_facts().known]
    return {
        question.text: Asked(question.text, question.answer, question.foil, fact.id)
        for fact in facts
        for template in run.config.facts.templates
        for question in template.questions(fact)
    }


def _prompts(words: Sequence[str], file: str | None) -> Iterator[list[str]]:
    """The prompts, those that are there at once together; typed ones one by one."""
    given = [*words]
    if file:
        given += _lines(inputs.read(inputs.local(file, "--file"), _MOST), file)
    elif not given and sys.stdin.isatty():
        while line := _typed():
            yield [line]
        return
    elif not given:
        given = _lines(sys.stdin.buffer.read(_MOST), "what is piped")
    if not given:
        raise UserError("nothing to ask", "a prompt, or lines of them", USAGE)
    yield given


def _lines(data: bytes, of: str) -> list[str]:
    """Those that say something.

    Raises:
      UserError: they are no text.
    """
    try:
        return [line for line in data.decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise UserError(f"{of} ({error})", "text in UTF-8, a prompt a line") from None


def _typed() -> str:
    """What a person types next; empty at the end."""
    try:
        return input("ask> ").rstrip()
    except EOFError:
        return ""


def _record(one: Asked, answers: Mapping[str, Answer]) -> dict:
    """A prompt and all that was said to it, for JSON."""
    known = {"fact": one.fact, "answer": one.answer, "foil": one.foil}
    return {
        "prompt": one.prompt,
        **(known if one.fact else {}),
        "models": {
            name: {
                "next": [{"text": text, "p": round(p, 6)} for text, p in answer.next],
                "said": answer.said,
                **({"options": answer.options} if one.fact else {}),
            }
            for name, answer in answers.items()
        },
    }


def _table(one: Asked, answers: Mapping[str, Answer]) -> Table:
    """A prompt's answers, a line a model."""
    table = Table(
        title=Text(one.prompt, style="bold"), title_justify="left", box=SIMPLE_HEAD
    )
    for title in (
        "model",
        *(f"p({o.strip()})" for o in one.options),
        "next",
        "goes on",
    ):
        table.add_column(Text(title), overflow="fold")
    for name, answer in answers.items():
        of = [answer.options[option] for option in one.options]
        shown = ["-" if p is None else f"{p:.2f}" for p in of]
        likely = ", ".join(f"{text!r} {p:.2f}" for text, p in answer.next)
        table.add_row(*map(Text, (name, *shown, likely, answer.said)))
    return table
