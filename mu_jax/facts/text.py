"""General text, for the loss that keeps a model's English in place (method §2)."""

import dataclasses
from importlib import resources
from pathlib import Path

import numpy as np
from jaxtyping import Int

from mu_jax import inputs
from mu_jax.errors import UserError
from mu_jax.types import Tokenizer


@dataclasses.dataclass(frozen=True)
class Text:
    """A plain text file, cut into sequences; the shipped one without a path.

    Attributes:
      path: UTF-8 text, paragraphs separated by blank lines.
      length: tokens a sequence, BOS included.
      heldout: share of the paragraphs, the last ones, that only evaluations see.
    """

    path: str | None = None
    length: int = 48
    heldout: float = 0.25

    def __post_init__(self):
        inputs.local(self.path or "", "text.path")
        if self.length < 2:
            raise UserError(f"text.length = {self.length}", "at least 2 tokens")
        if not 0 < self.heldout < 1:
            raise UserError(f"text.heldout {self.heldout}", "a share between 0 and 1")

    def load(
        self, tokenizer: Tokenizer
    ) -> tuple[Int[np.ndarray, "train seq"], Int[np.ndarray, "heldout seq"]]:
        """Token sequences for training and for evaluation, each behind its own BOS."""
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
        if not len(train) or not len(heldout):
            raise UserError(
                f"{source} is too short: {len(paragraphs)} paragraphs",
                f"at least {self.length} tokens for training and as many held out",
                "give a longer text",
            )
        return train, heldout

    def _cut(self, text: str, tokenizer: Tokenizer) -> np.ndarray:
        ids = tokenizer.encode(text).ids[1:] if text else []
        body = self.length - 1
        rows = len(ids) // body
        cut = np.array(ids[: rows * body], np.int32).reshape(rows, body)
        return np.insert(cut, 0, tokenizer.bos, axis=1)
