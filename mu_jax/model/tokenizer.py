"""Text to token ids and back, with the character span of every token.

Two kinds: SentencePiece (Gemma's `tokenizer.model`) and Hugging Face's `tokenizer.json`
(Llama 3's). Both put exactly one BOS first, whatever their files say, make one token
of a control token that a text spells out, and tell spans alike: a character that spans
several tokens gives the last of them its span and the others an empty one where it
begins; BOS has the empty span (0, 0). Instances compare by identity.
"""

from collections.abc import Mapping
from typing import Any

from mu_jax.errors import UserError
from mu_jax.model.json_tokenizer import JsonTokenizer
from mu_jax.model.sentence_pieces import SentencePiece
from mu_jax.model.special import JSON, PROTO
from mu_jax.types import Tokenizer


def from_files(
    files: Mapping[str, bytes],
    *,
    bos: Any = None,
    pad: Any = None,
    eos: Any = None,
    rows: int | None = None,
) -> Tokenizer:
    """The tokenizer that these files describe: of `tokenizer.json` where there is one.

    So `transformers` has it: tokens are added there, and not to a `tokenizer.model`.

    Args:
      bos, pad: ids for a `tokenizer.json` whose `tokenizer_config.json` names none.
      eos: the `eos_token_id` of the model's config.json, an id or a list of ids.
      rows: of the model's embedding table; a text with a token beyond them is refused.

    Raises:
      UserError: neither kind is there, one cannot be read, has no BOS or puts a space
        in front of a text, or the files contradict one another.
    """
    if JSON in files:
        beside = {name: data for name, data in files.items() if name != JSON}
        return JsonTokenizer(files[JSON], beside, bos=bos, pad=pad, eos=eos, rows=rows)
    if PROTO in files:
        beside = {name: data for name, data in files.items() if name != PROTO}
        return SentencePiece(files[PROTO], beside, eos=eos, rows=rows)
    raise UserError(
        "a checkpoint without a tokenizer",
        f"{PROTO} (Gemma) or {JSON} beside the weights",
        "fetch the checkpoint's tokenizer files too",
    )
