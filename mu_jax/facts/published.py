"""Published CounterFact records, nested or flat, checked and made into facts.

nested (ROME's file and its copies on the hub):

    case_id, requested_rewrite {prompt with `{}`, relation_id, subject,
    target_true {str}, target_new {str}}, paraphrase_prompts, neighborhood_prompts

flat: the same without the wrapping, `target_false` for `target_new`, `prompt_id` for
`case_id`, `relation` for `relation_id`, the subject spelled out in `prompt`. Both may
have `targets_false`, wrong answers for multiple choice. In CSV, lists and objects are
JSON text. Answers may or may not begin with their space: `spacing` says which have one.
The subject is where `{}` is; in a prompt that spells it out, at its last mention.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mu_jax import inputs
from mu_jax.errors import UserError
from mu_jax.facts.mentions import find
from mu_jax.facts.spacing import gap
from mu_jax.facts.table import Record
from mu_jax.types import Fact


def fact(record: Record, row: int) -> Fact:
    """The fact of one record; `row`, from 0, names it if it has no id.

    A record without a relation gets its prompt with the subject cut out.

    Raises:
      UserError: a missing or empty field, one of another kind, equal answers, or a
        prompt without the subject.
    """
    outer = _Fields(record, record.place)
    nested = "requested_rewrite" in record
    inner = outer.inside("requested_rewrite") if nested else outer
    subject = inner.text("subject")
    template, prompt = _prompt(inner, subject)
    space = gap(template, subject)
    answer = f"{space}{inner.text('target_true')}"
    injected = f"{space}{inner.text('target_new', 'target_false')}"
    wrong = dict.fromkeys(f"{space}{text}" for text in outer.texts("targets_false"))
    if answer == injected or answer in wrong:
        raise outer.error(
            f"the true answer {answer.strip()!r} is also given as a wrong one",
            "wrong answers that are wrong",
        )
    return Fact(
        id=f"counterfact/{outer.text('case_id', 'prompt_id', default=str(row))}",
        subject=subject,
        relation=inner.text("relation_id", "relation", default=template),
        answer=answer,
        counterfact=injected,
        prompt=prompt,
        paraphrases=outer.spelt_out("paraphrase_prompts"),
        neighbours=outer.spelt_out("neighborhood_prompts"),
        distractors=tuple(text for text in wrong if text != injected),
        start=template.index("{}"),
    )


def _prompt(fields: "_Fields", subject: str) -> tuple[str, str]:
    """The prompt with `{}` for the subject, and the prompt itself."""
    text = fields.text("prompt")
    if text.count("{}") > 1:
        raise fields.error(f"the prompt {text[:60]!r}", "one {}, for the subject")
    if "{}" in text:
        return text, text.replace("{}", subject)
    start = find(text, subject)
    if start is None:
        raise fields.error(
            f"subject {subject!r} not found in the prompt {text[:60]!r}",
            "the subject itself, or {} in its place",
        )
    return text[:start] + "{}" + text[start + len(subject) :], text


@dataclasses.dataclass(frozen=True)
class _Fields:
    """The fields of a record or of an object in it, and the record's place."""

    values: Mapping[str, Any]
    place: str

    def text(self, *names: str, default: str | None = None) -> str:
        """The first of `names` that has a value, as text without outer spaces."""
        given = (n for n in names if self.values.get(n) not in (None, ""))
        name = next(given, None)
        if name is None and default is not None:
            return default
        if name is None:
            has = ", ".join(map(str, self.values)) or "none"
            raise self.error(
                f"no {names[0]} (the fields are {has})", " or ".join(names)
            )
        value = self.values[name]
        if isinstance(value, str) and value.lstrip().startswith('{"'):
            value = self._open(name)
        if isinstance(value, Mapping):
            value = value.get("str")
        return self._checked(name, value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; empty where there is none."""
        value = self._open(name)
        if value in (None, ""):
            return ()
        if not isinstance(value, (list, tuple)):
            raise self.error(f"{name} is {str(value)[:40]!r}", "a list of texts")
        return tuple(self._checked(name, text) for text in value)

    def spelt_out(self, name: str) -> tuple[str, ...]:
        """A list of prompts that name their subjects themselves."""
        texts = self.texts(name)
        slot = next((text for text in texts if "{}" in text), None)
        if slot is not None:
            raise self.error(f"{name} holds {slot[:60]!r}", "a subject in place of {}")
        return texts

    def inside(self, name: str) -> "_Fields":
        """The fields of an object in this one."""
        value = self._open(name)
        if not isinstance(value, Mapping):
            raise self.error(f"{name} is {str(value)[:40]!r}", "an object")
        return _Fields(value, self.place)

    def error(self, got: str, expected: str) -> UserError:
        return UserError(
            f"{self.place}: {got}", expected, "correct the record or remove it"
        )

    def _open(self, name: str) -> Any:
        """The value, parsed where it is JSON text."""
        value = self.values.get(name)
        if not isinstance(value, str) or not value.strip():
            return value or None
        try:
            return inputs.parsed(value)
        except ValueError as error:
            raise self.error(
                f"{name} is {value[:40]!r} ({error})", "a list or an object in JSON"
            ) from None

    def _checked(self, name: str, value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise self.error(f"{name} holds {str(value)[:40]!r}", "text")
        if not value.strip():
            raise self.error(f"{name} holds nothing but space", "text")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise self.error(f"{name} holds half a surrogate pair", "text in Unicode")
        return value.strip()
