"""Tables of records from data sets in the layout of the Hugging Face hub.

A local folder or a data set of the hub, read by `datasets`: CSV, JSON, JSON Lines or
Parquet files, in one or several named splits.
"""

import contextlib
import glob
import itertools
import logging
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from mu_jax import inputs
from mu_jax.errors import UserError
from mu_jax.facts.table import SUFFIXES, Record, reason

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_BUILDERS = ("arrow", "cache", "csv", "json", "parquet")  # `cache`: what was downloaded


def is_dataset(path: str) -> bool:
    """Whether `path` is a folder, or spells the id of a data set (`owner/name`)."""
    if Path(path).exists():
        return Path(path).is_dir()
    named = Path(path).suffix.lower() in SUFFIXES
    return bool(_ID.fullmatch(path)) and not named


def read(path: str, split: str | None = None) -> list[Record]:
    """The records of one split; without a name, of the only one or of `train`.

    A folder leaves nothing behind, a data set of the hub is kept in the hub's cache.

    Raises:
      UserError: no such data set or split, no network, files of another kind, a
        loading script (which is never run), or a name that is a pattern.
    """
    with tempfile.TemporaryDirectory() as cache:
        name, found = _chosen(path, split, cache, "--facts.hub-split")
        rows = found.to_list()
    if not rows:
        raise UserError(f"{path}, split {name}, has no rows", "at least one fact")
    return [
        Record(row, f"{path}, split {name}, record {i}")
        for i, row in enumerate(rows, 1)
    ]


def _plain(paths: list[Path]) -> None:
    """Raises UserError for a path that `datasets` would take for a pattern.

    Silently: of `train[1].csv` and `train1.csv` it reads the second twice.
    """
    for path in map(str, paths):
        if glob.has_magic(path) or "::" in path:
            raise UserError(
                f"{path} has *, ?, [ or :: in its name",
                "a data set without such names, which are patterns",
                "give it another name",
            )


def texts(
    path: str, split: str | None, column: str, seed: int, buffer: int
) -> Iterator[str]:
    """The texts of a data set as they come, shuffled by `seed` through a buffer.

    No more is held than the buffer, and no more of the hub's files is read than asked.

    Args:
      column: the field with the text; of plain text files, which are read paragraph by
        paragraph, it is "text".
      buffer: how many texts are drawn from; 0 leaves them in order.

    Raises:
      UserError: as `read`, and a record without a text there.
    """
    with tempfile.TemporaryDirectory() as cache:
        name, found = _chosen(path, split, cache, "--text.hub-split", streamed=True)
        if buffer:
            found = found.shuffle(seed=seed, buffer_size=buffer)
        rows = iter(found)
        for i in itertools.count(1):
            with _told(path):
                row = next(rows, None)
            if row is None:
                return
            if not isinstance(text := row.get(column), str):
                raise UserError(
                    f"{path}, split {name}, record {i} has no text in {column!r}",
                    f"text there; it has {', '.join(map(str, row))}",
                    "name its column",
                )
            yield text


def _chosen(
    path: str, split: str | None, cache: str, flag: str, streamed: bool = False
) -> tuple[str, Any]:
    """A split's name, and its table or stream; of a folder nothing is left behind."""
    folder = Path(path).is_dir()
    if folder:
        _plain([Path(path).resolve(), *inputs.tree(Path(path))])
    splits = _load(path, cache if folder else None, streamed)
    name = split or (next(iter(splits)) if len(splits) == 1 else "train")
    if name not in splits:
        raise UserError(
            f"{path} has the splits {', '.join(splits)}",
            f"a split {split!r}" if split else "the name of one of them",
            f"choose one with {flag}",
        )
    return name, splits[name]


def _load(path: str, cache: str | None, streamed: bool) -> dict[str, Any]:
    """{split: table, or stream} of a folder or a data set of the hub."""
    import datasets
    import huggingface_hub
    from datasets.utils import disable_progress_bars

    disable_progress_bars()
    for library in (datasets, huggingface_hub):  # what fails is said once, by us
        library.logging.set_verbosity(logging.CRITICAL)
    with _told(path):
        builder = datasets.load_dataset_builder(path, cache_dir=cache)
        if builder.name == "text" and streamed:
            builder = datasets.load_dataset_builder(
                path, cache_dir=cache, sample_by="paragraph"
            )
        elif builder.name not in _BUILDERS:
            raise UserError(
                f"{path} holds files for the loader {builder.name!r}",
                "CSV, JSON, JSON Lines or Parquet",
                "convert the files",
            )
        if streamed:
            return cast("dict[str, Any]", builder.as_streaming_dataset())
        builder.download_and_prepare()
        # Without a split's name this is a dict of all of them.
        return cast("dict[str, Any]", builder.as_dataset(in_memory=cache is not None))


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Inside, what `datasets` raises is a UserError, but for what is no fault of it."""
    try:
        yield
    except UserError:
        raise
    except ConnectionError as error:
        raise UserError(
            f"{path} is no file or folder, and the hub cannot be reached"
            f" ({reason(error)})",
            "a file, a folder, or a data set of the hub and a network",
            "check the spelling, or download it and give its path",
        ) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise  # a full disk, say, which is no fault of the data set
        raise UserError(
            f"{path} cannot be loaded ({reason(error)})",
            "a folder or a data set of the hub with CSV, JSON or Parquet files",
            "check its name and files",
        ) from None
