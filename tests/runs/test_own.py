"""What a config file imports, and how its classes are named and found again."""

import sys
import textwrap

import pytest

from mu_jax.errors import UserError
from mu_jax.runs import own
from mu_jax.runs.loading import load

HEAD = "import dataclasses\nfrom mu_jax.runs.config import Config\n"
CLASS = "@dataclasses.dataclass(frozen=True)\nclass Mine:\n    x: int = 1\n"


def written(folder, **files):
    """The path of the first of these modules."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder / f"{next(iter(files))}.py"


def name_of(path):
    return own.spelled(own.module(path).Mine)


def test_a_config_imports_what_lies_beside_itself(tmp_path, monkeypatch):
    """And not what lies beside another, or where mu was started, by the same name."""
    (tmp_path / "beside.py").write_text("NAME = 'elsewhere'")
    monkeypatch.syspath_prepend(tmp_path)  # as Python does with `-m`
    text = (
        "import beside\nfrom mu_jax.runs.config import Config\n"
        "def get_config():\n    return Config(beside.NAME)\n"
    )
    for name in ("here", "there", "here"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "beside.py").write_text(f"NAME = {name!r}")
        (tmp_path / name / f"{name}.py").write_text(text)
        assert load(str(tmp_path / name / f"{name}.py")).name == name


def test_the_same_file_elsewhere_is_another_config(tmp_path):
    """It may name files beside itself."""
    text = (
        "from pathlib import Path\nfrom mu_jax.runs.config import Config\n"
        "def get_config():\n    return Config(Path(__file__).parent.name)\n"
    )
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.py").write_text(text)
        assert load(str(tmp_path / name / "config.py")).name == name


def test_a_class_is_named_by_what_was_imported_and_not_by_what_lies_there(tmp_path):
    path = written(tmp_path, named=HEAD + CLASS)
    kind = own.module(path).Mine
    before = own.spelled(kind)
    path.write_text(HEAD + CLASS + "# edited while a run is under way\n")
    assert own.spelled(kind) == before and own.find(before) is kind
    after = name_of(path)
    assert after != before and own.find(after) is not kind


@pytest.mark.parametrize("how", ["import helper", "from helper import y"])
@pytest.mark.parametrize("where", ["at the top", "in a method"])
def test_what_a_file_imports_of_its_folder_belongs_to_it(tmp_path, how, where):
    text = HEAD + (how + "\n" if where == "at the top" else "") + CLASS
    if where == "in a method":
        text += f"    def get(self):\n        {how}\n        return 1\n"
    path = written(tmp_path, uses=text, helper="import deeper\ny = 1\n", deeper="")
    before = name_of(path)
    if where == "in a method":
        assert own.module(path).Mine().get() == 1
    (tmp_path / "deeper.py").write_text("# changed\n")
    after = name_of(path)
    assert after != before
    assert "changed" in own.sys.modules["deeper"].__loader__.get_source("deeper")


def test_a_class_of_a_package_beside_it_is_found(tmp_path):
    package = tmp_path / "pack"
    written(package, __init__="", kinds="from .base import Base\n" + HEAD + CLASS)
    written(package, base="class Base: pass\n")
    path = written(tmp_path, takes="from pack.kinds import Mine\n")
    kind = own.module(path).Mine
    said = own.spelled(kind)
    assert said.startswith("kinds.py:Mine#") and own.find(said) is kind
    (package / "base.py").write_text("class Base: x = 1\n")
    assert name_of(path) != said


def test_a_file_with_the_name_of_another_module_is_refused(tmp_path):
    path = written(tmp_path, shadows="import json\n", json="x = 1\n")
    with pytest.raises(UserError, match=r"json.py has the name of a module"):
        own.module(path)
    assert "dumps" in vars(sys.modules["json"])


def test_a_class_made_in_a_function_has_no_home(tmp_path):
    text = "import dataclasses\ndef make():\n" + textwrap.indent(CLASS, "    ")
    text += "    return Mine\n"
    kind = own.module(written(tmp_path, makes=text)).make()
    assert own.spelled(kind).endswith("#")
    with pytest.raises(ValueError, match="no class"):
        own.find(own.spelled(kind))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys\nsys.exit(3)\n", "fails with SystemExit: 3"),
        ("1 / 0\n", "fails with ZeroDivisionError"),
        ("def f(:\n", "fails with SyntaxError"),
        ("from . import x\n", "fails with ImportError"),
    ],
)
def test_a_file_that_fails_is_one_line(tmp_path, text, said):
    path = written(tmp_path, fails=text)
    for take in (load, own.trust):
        with pytest.raises(UserError, match=said):
            take(path)
