"""Models of the Hugging Face hub, as local directories in the hub's own cache."""

import functools
import logging
import re
from contextlib import suppress
from pathlib import Path

from mu_jax.errors import UserError
from mu_jax.types import Progress, silent

_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w.-]+))?")
_FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PATIENCE = 10.0
"""Seconds to wait for the hub to say which commit a name stands for."""


def is_id(name: str) -> bool:
    """Whether `name` spells a model of the hub, `owner/name[@revision]`."""
    return bool(_ID.fullmatch(name))


@functools.cache
def commit(name: str) -> str:
    """The commit that `name` stands for, asked of the hub once a process.

    Where the hub cannot be reached it is that of what was fetched last; empty where
    there is neither.
    """
    import huggingface_hub

    match = _ID.fullmatch(name)
    if match is None:
        return ""
    repository, revision = match.groups()
    with suppress(Exception):  # whatever is wrong, `fetch` says
        found = huggingface_hub.HfApi().model_info(
            repository, revision=revision, timeout=_PATIENCE
        )
        return found.sha or ""
    with suppress(Exception):
        kept = huggingface_hub.snapshot_download(
            repository, revision=revision, local_files_only=True
        )
        if _COMMIT.fullmatch(found := Path(kept).name):
            return found
    return ""


def fetch(name: str, progress: Progress = silent) -> Path:
    """The directory with the config, weights and tokenizer of a model of the hub.

    Only files at the top are fetched, and never pickled weights. What is in the hub's
    cache already is not fetched again; HF_TOKEN opens gated models.

    Raises:
      UserError: no network, no such model or revision, or a gated one.
    """
    import huggingface_hub
    from huggingface_hub import errors
    from huggingface_hub.utils import disable_progress_bars

    match = _ID.fullmatch(name)
    if match is None:
        raise UserError(f"the name {name!r}", "owner/name or owner/name@revision")
    repository, revision = match.groups()
    progress(f"fetching {name}", 0, 1)
    disable_progress_bars()
    huggingface_hub.logging.set_verbosity(logging.CRITICAL)  # we say it once
    try:
        found = huggingface_hub.snapshot_download(
            repository,
            revision=commit(name) or revision,
            allow_patterns=list(_FILES),
            ignore_patterns=["*/*"],
        )
        return Path(found)
    except errors.GatedRepoError:
        remedy = "accept its licence on huggingface.co, and set HF_TOKEN"
        raise UserError(f"{name} is gated", "access to it", remedy) from None
    except errors.RevisionNotFoundError:
        raise UserError(
            f"{repository} has no revision {revision!r}",
            "a branch, a tag or a commit of it",
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{name} is no folder, and no model of the hub that you may see",
            "a folder or owner/name",
            "check the spelling; a private model needs HF_TOKEN",
        ) from None
    except (errors.HfHubHTTPError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # a full disk, say
        raise UserError(
            f"{name} is no folder, and the hub cannot be reached"
            f" ({type(error).__name__})",
            "a folder, or a model of the hub and a network",
            "check the spelling, or download it and give its path",
        ) from None
