"""Methods of one's own, of every kind, through the whole pipeline."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from mu_jax.__main__ import main
from mu_jax.digests import digest
from mu_jax.runs import own
from mu_jax.runs.directory import RunDir

MINE = Path(__file__).with_name("my_methods.py")
OTHERS = {"norms": "Norms", "last": "Last", "shrunk": "Shrink"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The config, and its run, made, attacked and reported."""
    folder = tmp_path_factory.mktemp("own")
    config = shutil.copy(MINE, folder)
    patch = pytest.MonkeyPatch()
    patch.setenv("MU_JAX_CACHE", str(folder / "cache"))
    patch.chdir(folder)
    for stage in ("run", "attack", "report"):
        assert main([stage, str(config)]) == 0
    yield Path(config), folder / "runs/mine"
    patch.undo()


def refused(capsys, *args) -> str:
    capsys.readouterr()
    assert main([str(arg) for arg in args]) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_every_method_of_ones_own_does_its_part(made):
    _, path = made
    run = RunDir(path)
    assert len(run.read_selection("last").layers) == 2
    assert run.read_scores("norms").finding.startswith("the stream grows to")
    assert run.read_history("shrunk") == [{"step": 1, "share": 0.5}]
    (letters,) = [r for r in run.read_rows("evals/last") if r.eval == "length"]
    assert letters.n == 8 and letters.metric == "letters"
    assert {r.at for r in run.read_rows("attacks/again/last")} >= {"time=0", "time=1"}
    page = (path / "report.html").read_text()
    assert "Norms" in page and "again" in page and "letters" in page


def test_again_all_is_up_to_date_and_a_setting_is_a_setting(made, capsys):
    config, path = made
    capsys.readouterr()
    assert main(["run", str(config)]) == 0
    said = capsys.readouterr().err
    assert said.count("up to date") >= 7 and "measuring" not in said
    copy = path.with_name("other")
    shutil.copytree(path, copy)
    changed = ["--name", "other", "--localizers.norms.layers", "3"]
    changed += ["--baselines.shrunk.edit.share", "0.25", "--edit.loss.margin", "2"]
    assert main(["run", str(config), *changed]) == 0
    assert RunDir(copy).read_history("shrunk") == [{"step": 1, "share": 0.25}]
    assert len(RunDir(copy).read_scores("norms").values) == 3
    # A stage that has nothing to make keeps the settings all the same.
    assert main(["facts", str(config), "--name", "other", "--edit.steps", "3"]) == 0
    assert (
        json.loads((copy / "config.json").read_text())["config"]["edit"]["steps"] == 3
    )


def test_a_plan_says_that_it_leaves_a_localizer_out(made, capsys):
    config, _ = made
    capsys.readouterr()
    assert main(["plan", str(config), "--topology", "v5e:2x2", "--only", "facts"]) == 0
    said = capsys.readouterr()
    assert "facts: fits" in said.out
    notes = [line for line in said.err.splitlines() if "note:" in line]
    told = "localize norms is not planned: what Norms runs is not known"
    assert notes == [f"  note: {told}"]


def test_a_run_imports_nothing_by_itself(made, capsys, tmp_path, monkeypatch):
    config, path = made
    settings = json.loads((path / "config.json").read_text())
    named = settings["config"]["localizers"]["norms"]["class"]
    assert named.startswith("my_methods.py:Norms#")
    monkeypatch.setattr(own, "_OWN", [])  # as in another process
    for name, module in [*sys.modules.items()]:
        if (getattr(module, "__file__", None) or "").endswith("my_methods.py"):
            monkeypatch.delitem(sys.modules, name)
    said = refused(capsys, "report", path)
    assert "my_methods.py is not of mu_jax" in said and "--trust my_methods.py" in said
    changed = tmp_path / "my_methods.py"
    changed.write_text(config.read_text() + "\n# changed\n")
    said = refused(capsys, "report", path, "--trust", changed)
    assert "my_methods.py has changed since the run was made" in said
    assert main(["report", str(path), "--trust", str(config)]) == 0
    library = Path(pytest.__file__)
    theirs = f"{library.name}:Item#{digest(library)}"  # imported, and given by nobody
    with pytest.raises(ValueError, match="is not of mu_jax"):
        own.find(theirs)
    assert "--trust without a file" in refused(capsys, "report", path, "--trust")
    assert "--trust nope.py; expected" in refused(
        capsys, "report", "--trust", "nope.py"
    )


SITE = "return components([Site(99, 'mlp')],"
WRITING = "model.params.update({k: v * 0}) or v for"
LETTERS = 'return [Row.of(values, model=name, eval="length", **where)]'


def test_an_attack_that_gives_no_rows_is_one_line(made, capsys, tmp_path, monkeypatch):
    config = tmp_path / "my_methods.py"
    config.write_text(MINE.read_text().replace("return scoring.rows()", "return [1]"))
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(config)]) == 0
    assert "the rows of attacks.again" in refused(capsys, "attack", config)
    assert main(["report", "runs/mine", f"--trust={config}"]) == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            '    needs: ClassVar[str] = "subjects"\n',
            "",
            "localizers.norms: Norms without needs",
        ),
        ("{'norms': Norms()}", "{'norms': Norms}", "the class itself"),
        ("float(sizes[i])", "float('nan')", "the scores of the localizer 'norms'"),
        ("return Scores(", "return (", "the scores of the localizer 'norms'"),
        ('needs: ClassVar[str] = "subjects"', 'needs = "all"', "needs = 'all'"),
        ("    threshold: float = 0.0\n", "", "'subjects' without threshold"),
        ("return components(", "return (", "the selection 'last' ("),
        ("return components(ranked[: self.count],", SITE, "layer 99 of 7"),
        ('    needs: ClassVar[str] = "model"\n', "", "again: AskAgain without needs"),
        ('needs: ClassVar[str] = "model"', 'needs = "taught?"', "needs = 'taught?'"),
        (LETTERS, "return [1]", "the rows of evals.length"),
        (LETTERS, "return []", "the rows of evals.length (none)"),
        ("    def alone(", "    def lonely(", "facts: Towers without alone"),
        ("v * self.share for", "v[{'layer': 0}] for", "'shrunk' by Shrink: mlp/"),
        ("v * self.share for", "v * np.nan for", "is not finite"),
        ("v * self.share for", "v for", "'shrunk' by Shrink changes nothing"),
        ("(0).mean()", "(0)", "the edit of last: Hinge fails with TypeError"),
        ("progress=None, journal=None):", "progress):", "Norms fails with TypeError"),
        ("values = {Site(i", "1 / 0; values = {Site(i", "of my_methods.py, in __call"),
        ("count: int = 24", "count: list[int] = 24", "facts = Towers(count=24"),
        ('f"tower/{i}"', "'tower'", "Towers gives the fact 'tower' 24 times"),
        ("v * self.share for", WRITING, "changes nothing"),
    ],
)
def test_what_is_not_met_is_one_line(
    made, capsys, tmp_path, monkeypatch, old, new, said
):
    text = MINE.read_text().replace('"norms": Norms()', "'norms': Norms()")
    assert old in text
    config = tmp_path / "my_methods.py"
    config.write_text(text.replace(old, new))
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, "run", config)


def test_a_loss_that_says_nothing_of_the_model_is_told(made, capsys, tmp_path):
    config = tmp_path / "my_methods.py"
    text = MINE.read_text().replace("(gap + self.margin)", "(0 * gap + self.margin)")
    config.write_text(text.replace("steps=2", "steps=3"))
    assert main(["run", str(config), "--runs", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert "last: its forget loss was the same at every step" in said


def test_what_a_file_imports_from_beside_itself_is_part_of_it(made, capsys, tmp_path):
    """A changed helper makes anew what used it, and the run says so."""
    config, helper = tmp_path / "my_methods.py", tmp_path / "helper.py"
    text = MINE.read_text().replace(
        "import numpy as np", "import helper\nimport numpy as np"
    )
    config.write_text(text.replace("self.times * len", "helper.TIMES * len"))
    args = ["run", str(config), "--runs", str(tmp_path)]

    def letters(times):
        helper.write_text(f"TIMES = {times}\n")
        assert main(args) == 0
        rows = RunDir(tmp_path / "mine").read_rows("evals/last")
        return next(row.mean for row in rows if row.eval == "length")

    once = letters(1)
    assert letters(30) == 30 * once
