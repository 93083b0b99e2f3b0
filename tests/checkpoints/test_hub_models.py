"""Models of the hub: what is asked for, and what is said when it does not come."""

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from mu_jax.checkpoints import hub
from mu_jax.errors import UserError


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("google/gemma-3-270m", True),
        ("meta-llama/Llama-3.1-8B@main", True),
        ("gemma3-270m", False),
        ("a/b/c", False),
        ("/a/b", False),
        ("../b", False),
        ("a/../b", False),
        ("a/b@", False),
    ],
)
def test_ids(name, is_one):
    assert hub.is_id(name) == is_one


def test_without_a_network_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"^a/b is no folder, and the hub cannot") as e:
        hub.fetch("a/b")
    assert "\n" not in str(e.value)


def answer(monkeypatch, function):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", function)


def test_weights_and_tokenizer_are_asked_for_and_no_pickles(tmp_path, monkeypatch):
    asked = {}

    def download(repository, **how):
        if "local_files_only" in how:
            raise OSError("nothing was fetched before")
        asked.update(how, repository=repository)
        return str(tmp_path)

    answer(monkeypatch, download)
    assert hub.fetch("owner/name@v1.0") == tmp_path
    assert (asked["repository"], asked["revision"]) == ("owner/name", "v1.0")
    chosen = huggingface_hub.utils.filter_repo_objects
    patterns = {k: asked[k] for k in ("allow_patterns", "ignore_patterns")}
    wanted = ["config.json", "model-00001-of-00002.safetensors", "tokenizer.model"]
    wanted += ["tokenizer.json", "model.safetensors.index.json"]
    wanted += ["generation_config.json"]
    others = ["pytorch_model.bin", "original/consolidated.safetensors", "README.md"]
    assert list(chosen([*wanted, *others], **patterns)) == wanted


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (errors.GatedRepoError, "owner/name@v9 is gated; .*HF_TOKEN"),
        (errors.RepositoryNotFoundError, "no model of the hub that you may see"),
        (errors.RevisionNotFoundError, "has no revision 'v9'"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line(monkeypatch, kind, message):
    def download(*_, **__):
        raise kind.__new__(kind)

    answer(monkeypatch, download)
    with pytest.raises(UserError, match=message):
        hub.fetch("owner/name@v9")


def test_a_full_disk_is_not_taken_for_a_missing_network(monkeypatch):
    def download(*_, **__):
        raise OSError(28, "No space left on device")

    answer(monkeypatch, download)
    with pytest.raises(OSError, match="No space left"):
        hub.fetch("owner/name")


def test_a_name_stands_for_the_commit_that_was_fetched(tmp_path, monkeypatch):
    """Without a network: what the hub's own cache says, laid out as the hub does."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert hub.commit("fetched/never") == "" == hub.commit("no name")
    for revision, commit in (("main", "a" * 40), ("v1", "b" * 40)):
        kept = tmp_path / "models--some--model"
        (kept / "snapshots" / commit).mkdir(parents=True)
        (kept / "snapshots" / commit / "config.json").write_text("{}")
        (kept / "refs").mkdir(exist_ok=True)
        (kept / "refs" / revision).write_text(commit)
    assert hub.commit("some/model") == "a" * 40
    assert hub.commit("some/model@v1") == "b" * 40
    assert hub.fetch("some/model").name == "a" * 40
