"""Tables of records from data sets in the layout of the Hugging Face hub.

A local folder or a data set of the hub, read by `datasets`: CSV, JSON, JSON Lines or
Parquet files, in one or several named splits.
"""

import glob
import logging
import re
import tempfile
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
    if Path(path).is_dir():
        _plain([Path(path).resolve(), *inputs.tree(Path(path))])
    with tempfile.TemporaryDirectory() as cache:
        splits = _load(path, cache if Path(path).is_dir() else None)
        name = split or (next(iter(splits)) if len(splits) == 1 else "train")
        if name not in splits:
            raise UserError(
                f"{path} has the splits {', '.join(splits)}",
                f"a split {split!r}" if split else "the name of one of them",
                "choose one with --facts.hub-split",
            )
        rows = splits[name].to_list()
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


def _load(path: str, cache: str | None) -> dict[str, Any]:
    """{split: table} of a folder or a data set of the hub."""
    import datasets
    import huggingface_hub
    from datasets.utils import disable_progress_bars

    disable_progress_bars()
    for library in (datasets, huggingface_hub):  # what fails is said once, by us
        library.logging.set_verbosity(logging.CRITICAL)
    try:
        builder = datasets.load_dataset_builder(path, cache_dir=cache)
        if builder.name not in _BUILDERS:
            raise UserError(
                f"{path} holds files for the loader {builder.name!r}",
                "CSV, JSON, JSON Lines or Parquet",
                "convert the files",
            )
        builder.download_and_prepare()
        # Without a split's name this is a dict of all of them.
        return cast("dict[str, Any]", builder.as_dataset(in_memory=cache is not None))
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
