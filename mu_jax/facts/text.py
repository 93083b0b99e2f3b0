"""General text, for the loss that keeps a model's English in place (method §2)."""

import dataclasses
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
from jaxtyping import Int

from mu_jax import inputs
from mu_jax.errors import UserError
from mu_jax.facts import hub
from mu_jax.types import Tokenizer


@dataclasses.dataclass(frozen=True)
class Text:
    """General text, cut into sequences; the shipped file without a path.

    Attributes:
      path: a file of UTF-8 text, paragraphs separated by blank lines; or a folder with
        such files or others in the hub's layout, or a data set of the hub
        (`owner/name`), which are streamed.
      length: tokens a sequence, BOS included.
      rows: how many sequences to train on; all of a file without it. Of what is
        streamed it has to be given, and no more is read than that takes.
      heldout: share of the text that only evaluations see: of a file the last
        paragraphs, of a stream the first texts.
      hub_split, column: of a data set; by default the only split or `train`.
      seed: shuffles a stream, `buffer` texts at a time.
    """

    path: str | None = None
    length: int = 48
    rows: int | None = None
    heldout: float = 0.25
    hub_split: str | None = None
    column: str = "text"
    seed: int = 0
    buffer: int = 10_000

    def __post_init__(self):
        inputs.local(self.path or "", "text.path")
        if self.length < 2:
            raise UserError(f"text.length = {self.length}", "at least 2 tokens")
        if not 0 < self.heldout < 1:
            raise UserError(f"text.heldout {self.heldout}", "a share between 0 and 1")
        if self.rows is not None and self.rows < 1:
            raise UserError(f"text.rows = {self.rows}", "at least 1")
        if self.buffer < 0:
            raise UserError(f"text.buffer = {self.buffer}", "0 or more texts")
        if self._streamed and self.rows is None:
            raise UserError(
                f"text.path {self.path}, which is streamed, without text.rows",
                "how many sequences are to be taken of it",
                "add: --text.rows 4096",
            )

    @property
    def _streamed(self) -> bool:
        return bool(self.path) and hub.is_dataset(self.path)

    def load(
        self, tokenizer: Tokenizer
    ) -> tuple[Int[np.ndarray, "train seq"], Int[np.ndarray, "heldout seq"]]:
        """Token sequences for training and for evaluation, each behind its own BOS.

        Raises:
          UserError: a text that cannot be read, or is shorter than is asked for.
        """
        train, heldout = (self._stream if self._streamed else self._read)(tokenizer)
        wanted = self.rows or 1
        if len(train) < wanted or not len(heldout):
            source = self.path or "the shipped text"
            raise UserError(
                f"{source} is too short: {len(train)} rows of {self.length} tokens,"
                f" and {len(heldout)} held out",
                f"{wanted} and at least 1 held out",
                "give a longer text, or lower text.rows or text.length",
            )
        return train[: self.rows], heldout

    def _read(self, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
        """All of a file."""
        shipped = resources.files("mu_jax.facts") / "data/general_text.txt"
        source = Path(self.path) if self.path else Path(str(shipped))
        try:
            text = inputs.read(source).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"cannot read {source} ({error})", "a text file in UTF-8"
            ) from None
        paragraphs = [p.strip() for p in text.split("\n\n") if p.strip()]
        cut = round(len(paragraphs) * (1 - self.heldout))
        parts = paragraphs[:cut], paragraphs[cut:]
        train, heldout = (self._cut("\n\n".join(p), tokenizer) for p in parts)
        return train, heldout

    def _stream(self, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
        """As much of a data set as is asked for; every text is in one part alone."""
        path, rows = self.path or "", self.rows or 1
        texts = hub.texts(path, self.hub_split, self.column, self.seed, self.buffer)
        held = max(1, round(rows * self.heldout / (1 - self.heldout)))
        heldout = self._take(texts, held, tokenizer)
        return self._take(texts, rows, tokenizer), heldout

    def _take(
        self, texts: Iterator[str], rows: int, tokenizer: Tokenizer
    ) -> Int[np.ndarray, "rows seq"]:
        """The first sequences of these texts, of as many texts as that takes."""
        found, have = [self._cut("", tokenizer)], 0
        while have < rows and (text := next(texts, None)) is not None:
            found.append(self._cut(text, tokenizer))
            have += len(found[-1])
        return np.concatenate(found)[:rows]

    def _cut(self, text: str, tokenizer: Tokenizer) -> np.ndarray:
        ids = tokenizer.encode(text).ids[1:] if text else []
        body = self.length - 1
        rows = len(ids) // body
        cut = np.array(ids[: rows * body], np.int32).reshape(rows, body)
        return np.insert(cut, 0, tokenizer.bos, axis=1)
