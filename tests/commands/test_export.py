"""`mu export` and `mu delta`, on a run of the tiny model whose edits are made up."""

import dataclasses
import io
import json
import runpy

import numpy as np
import pytest
from safetensors.numpy import load_file

from mu_jax.__main__ import main
from mu_jax.checkpoints import delta, delta_file, edits
from mu_jax.checkpoints.huggingface import directory as huggingface_dir
from mu_jax.checkpoints.huggingface.folder import open_folder
from mu_jax.checkpoints.huggingface.names import tensors
from mu_jax.checkpoints.official import directory as official_dir
from mu_jax.checkpoints.source import place
from mu_jax.commands import delta as command
from mu_jax.commands.export import export, write
from mu_jax.console import Console
from mu_jax.errors import UserError
from mu_jax.model.params import name_axes
from mu_jax.runs.directory import RunDir
from mu_jax.runs.records import encode
from mu_jax.runs.run import Run
from mu_jax.selectors import Layers
from mu_jax.testing import tiny_llama, tiny_model
from mu_jax.types import Edit

CHOSEN = {"early": Layers(mlp=(1, 2)), "attribution": Layers(mlp=(2,), attn=(4,))}


@pytest.fixture
def run(tmp_path, tiny):
    """A run with two edits, as far as an export looks at one."""
    config = runpy.run_path("configs/tiny.py")["get_config"]()
    made = Run(config, RunDir(tmp_path / "run"), Console(io.StringIO()))
    for seed, (name, chosen) in enumerate(CHOSEN.items()):
        selection = dataclasses.replace(chosen(None, tiny.sizes), name=name)
        made.dir.write_selection(selection)
        made.dir.write_edited(selection)
        rng, params = np.random.default_rng(seed), {}
        for label, array in tiny.selected(selection).items():
            plain = np.asarray(array.unwrap(*array.named_shape))
            moved = plain + 0.02 * rng.standard_normal(plain.shape, np.float32)
            params[label] = name_axes(label, moved, tiny.spec)
        edits.save(made.dir.edit(name) / "params", params)
        made.dir.write_lines(f"edits/{name}/history.jsonl", [])
        made.dir.stamp(f"edits/{name}", made.fingerprint(f"edits/{name}"))
    made.dir.write_json("config.json", {"config": encode(config)})
    return made


def edited(run, name):
    selection = run.dir.read_selection(name)
    params = edits.restore(run.dir.edit(name) / "params", selection, run.model.spec)
    return run.model.update(Edit(selection, params, []))


def same(params, model):
    for label, array in model.params.items():
        names = tuple(array.named_shape)
        ours, theirs = (np.asarray(p.unwrap(*names)) for p in (array, params[label]))
        slack = 1e-6 if label.endswith("norm") else 0
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=slack, err_msg=label)


def test_each_target_holds_the_edited_model(run, tmp_path, tiny):
    for to in ("hf", "gemma", "delta"):
        export(run, to, tmp_path / to)
        note = json.loads((tmp_path / to / "mu_export.json").read_text())
        assert (note["edit"], note["to"], note["base"]) == ("early", to, "tiny")
        assert note["provenance"]["config"] and note["tensors"] == "mlp 1-2"
    wanted = edited(run, "early")
    stored = load_file(tmp_path / "hf" / "model.safetensors")
    for name, value in tensors(tiny.spec, wanted.params):
        np.testing.assert_array_equal(stored[name], value, err_msg=name)
    _, params = official_dir.load(tmp_path / "gemma", spec=tiny.spec)
    same(params, wanted)
    change = delta_file.read(tmp_path / "delta" / "delta.safetensors")
    same(delta.apply(tiny, change).params, wanted)
    assert change.provenance == run.provenance
    told = run.console.rich.file.getvalue()
    assert told.count("no tokenizer is written: that of tiny is in no file") == 2


def test_the_edit_is_named_or_the_first(run, tmp_path):
    export(run, "delta", tmp_path / "out", "attribution")
    change = delta_file.read(tmp_path / "out" / "delta.safetensors")
    assert change.selection.tensors == run.dir.read_selection("attribution").tensors
    with pytest.raises(
        UserError, match="no edit called 'fly'; expected one of early, att"
    ):
        export(run, "delta", tmp_path / "out", "fly")
    run.dir.stamp("edits/early", "older")
    with pytest.raises(
        UserError, match=r"edits/early in .* other settings.*run: mu edit"
    ):
        export(run, "hf", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_hugging_face_base_is_copied_unless_a_dtype_is_asked_for(run, tmp_path, tiny):
    base = tmp_path / "base"
    base.mkdir()
    huggingface_dir.write(base, tiny, "bfloat16")
    (base / "extra.txt").write_text("kept")
    (base / "model.gguf").write_text("unedited")
    selection = run.dir.read_selection("early")
    edit = Edit(selection, edited(run, "early").selected(selection), [])
    tiny = dataclasses.replace(tiny, origin=base)
    how = {"base": str(base)}
    assert write(tiny, edit, "hf", tmp_path / "copy", **how) == ["model.gguf"]
    assert (tmp_path / "copy" / "extra.txt").read_text() == "kept"
    copy = load_file(tmp_path / "copy" / "model.safetensors")
    assert {str(v.dtype) for v in copy.values()} == {"bfloat16"}
    said = []
    more = how | {"say": said.append, "dtype": "float32"}
    assert write(tiny, edit, "hf", tmp_path / "new", **more) == ["model.gguf"]
    assert (tmp_path / "new" / "extra.txt").read_text() == "kept" and not said
    new = load_file(tmp_path / "new" / "model.safetensors")
    assert {str(v.dtype) for v in new.values()} == {"float32"}
    name = "model.layers.1.mlp.up_proj.weight"
    np.testing.assert_array_equal(copy[name], new[name].astype(copy[name].dtype))
    with pytest.raises(UserError, match="is or holds"):
        write(tiny, edit, "hf", base, force=True, **how)
    for to, dtype, message in (("onnx", None, "'onnx'"), ("hf", "int8", "'int8'")):
        with pytest.raises(UserError, match=message):
            write(tiny, edit, to, tmp_path / "no", dtype=dtype, **how)


def small_edit(model, move):
    """An edit that moves every weight of an MLP by so much, one way or the other."""
    selection = dataclasses.replace(Layers(mlp=(1,))(None, model.sizes), name="early")
    rng, params = np.random.default_rng(0), {}
    for label, array in model.selected(selection).items():
        plain = np.asarray(array.unwrap(*array.named_shape), np.float32)
        signs = rng.choice([-1, 1], plain.shape).astype(np.float32)
        params[label] = name_axes(label, plain + move * signs, model.spec)
    return Edit(selection, params, [])


def test_an_edit_that_rounding_takes_is_not_exported_unless_told(tmp_path, tiny):
    """Into bfloat16, over a folder of it or from float32; float32 keeps all of it."""
    base = tmp_path / "base"
    base.mkdir()
    huggingface_dir.write(base, tiny, "bfloat16")
    model = dataclasses.replace(tiny, params=place(open_folder(base)), origin=base)
    edit, said = small_edit(model, 3e-5), []
    how = {"base": str(base), "say": said.append}
    message = (
        r"early in bfloat16: rounding leaves \d.* of its norm and \d.*float32 keeps"
    )
    for to, dtype in (("hf", None), ("hf", "bfloat16"), ("gemma", "bfloat16")):
        with pytest.raises(UserError, match=message):
            write(model, edit, to, tmp_path / "out", dtype=dtype, **how)
        assert not (tmp_path / "out").exists() and not said
    write(model, edit, "hf", tmp_path / "out", rounded=True, **how)
    assert said.pop().startswith("  early in bfloat16: rounding leaves")
    note = json.loads((tmp_path / "out" / "mu_export.json").read_text())
    stored = load_file(tmp_path / "out" / "model.safetensors")
    before = load_file(base / "model.safetensors")
    moved = [(stored[k] != before[k]).sum() for k in stored if ".1.mlp." in k]
    assert note["left"]["moved"] == sum(moved) / (3 * 32 * 48)
    assert note["left"]["norm"] < 0.5
    write(model, small_edit(model, 0.01), "hf", tmp_path / "large", **how)
    assert "early in bfloat16: rounding leaves 98.5% of its norm" in said.pop()
    for to, dtype in (("hf", "float32"), ("gemma", None), ("delta", None)):
        write(model, edit, to, tmp_path / f"whole-{to}", dtype=dtype, **how)
    assert not [line for line in said if "rounding leaves" in line]
    stored = load_file(tmp_path / "whole-hf" / "model.safetensors")
    for name, value in tensors(model.spec, model.update(edit).params):
        np.testing.assert_array_equal(stored[name], value, err_msg=name)


def test_a_llama_has_no_official_form(tmp_path):
    llama = tiny_model(tiny_llama(layers=2))
    selection = Layers(mlp=(1,))(None, llama.sizes)
    edit = Edit(selection, llama.selected(selection), [])
    with pytest.raises(UserError, match="tiny-llama3, a Llama"):
        write(llama, edit, "gemma", tmp_path / "out", base="tiny")
    assert list(tmp_path.iterdir()) == []


# ---- the command line


def test_export_on_the_command_line(run, tmp_path, capsys):
    source = str(run.dir.path)
    target = tmp_path / "out"
    assert main(["export", source, "--to", "delta", str(target)]) == 0
    assert (target / "delta.safetensors").exists()
    assert (
        main(["export", source, "--to=delta", str(target), "--edit=attribution"]) == 0
    )
    assert delta_file.read(target / "delta.safetensors").name == "attribution"
    capsys.readouterr()
    (target / "mu_export.json").unlink()
    for args, message in (
        ([source, "--to", "delta", str(target)], "holds other things"),
        ([source, str(target)], "mu export RUN --to hf|gemma|delta DIR"),
        ([source, "--to", "hf", str(target), "--fast"], "mu export RUN"),
        (
            [source, str(target), "--to", "hf", "--edit"],
            "--edit: expected one argument",
        ),
        ([source, str(target), "--to", "hf", "--dtype="], "the dtype ''"),
        ([source, str(target), "--to=delta", "--dtype=bfloat16"], "no dtype: a delta"),
        ([str(tmp_path / "no"), "--to", "hf", str(target)], "no run directory"),
        ([source, "--to", "hf", source, "--force"], "is or holds"),
    ):
        assert main(["export", *args]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert main(["export", source, "--to", "delta", str(target), "--force"]) == 0


def said(*args) -> str:
    file = io.StringIO()
    command.main([str(arg) for arg in args], Console(file))
    return file.getvalue()


def test_deltas_on_the_command_line(run, tmp_path, tiny):
    for name in CHOSEN:
        export(run, "delta", tmp_path / name, name)
    early, other = tmp_path / "early", tmp_path / "attribution" / "delta.safetensors"
    shown = said("show", early)
    assert "early, of tiny: mlp 1-2" in shown and "mlp/up of layer 2: changed" in shown
    lines = said("diff", early, other).splitlines()
    assert "mlp/down of layer 1: only the first changes it" in "".join(lines)
    assert "attention/key of layer 4: only the second changes it" in "".join(lines)
    shared = [line for line in lines if "apart, cosine" in line]
    assert len(shared) == 3 and all("layer 2" in line for line in shared)
    with pytest.raises(UserError, match="both change mlp/"):
        said("stack", early, other, tmp_path / "both.safetensors")

    said("apply", "tiny", early, tmp_path / "applied")
    wanted = dict(tensors(tiny.spec, edited(run, "early").params))
    stored = load_file(tmp_path / "applied" / "model.safetensors")
    assert all((stored[name] == value).all() for name, value in wanted.items())
    with pytest.raises(UserError, match="tiny has other values in mlp/"):
        said("revert", "tiny", early, tmp_path / "reverted")
    assert "mu delta stack DELTA DELTA FILE" in said()
    for wrong in (["show"], ["merge", early], ["apply", "tiny", early, "x", "delta"]):
        with pytest.raises(UserError, match="hf"):
            said(*wrong)


def test_disjoint_deltas_stack_on_the_command_line(run, tmp_path, tiny):
    change = {}
    for layer in (0, 6):
        selection = Layers(mlp=(layer,))(None, tiny.sizes)
        params = tiny.selected(selection)
        change[layer] = delta.make(tiny, Edit(selection, params, []))
        delta_file.write(tmp_path / f"{layer}.safetensors", change[layer])
    files = [tmp_path / f"{n}.safetensors" for n in (0, 6, "both")]
    said("stack", *files)
    both = delta_file.read(files[2])
    assert both.changes.keys() == change[0].changes.keys() | change[6].changes.keys()

    thesis = tmp_path / "thesis.tex"
    thesis.write_text("chapter 1")
    (tmp_path / "link").symlink_to(files[0])
    for out, message in (
        (thesis, "is there; expected a new file.*--force"),
        (tmp_path, "is no file"),
        (files[0], "one of its two deltas"),
        (tmp_path / "link", "one of its two deltas"),
    ):
        force = () if out == thesis else ("--force",)
        with pytest.raises(UserError, match=message):
            said("stack", *files[:2], out, *force)
    assert thesis.read_text() == "chapter 1"
    said("stack", *files[:2], thesis, "--force")
    assert delta_file.read(thesis).changes.keys() == both.changes.keys()


def test_a_delta_is_not_replaced_by_what_it_makes(run, tmp_path):
    out = tmp_path / "early"
    export(run, "delta", out)
    before = (out / "delta.safetensors").read_bytes()
    for named in (out, out / "delta.safetensors"):
        with pytest.raises(UserError, match="is or holds"):
            said("apply", "tiny", named, out, "--force")
    assert (out / "delta.safetensors").read_bytes() == before
    with pytest.raises(UserError, match="lies in"):
        export(run, "hf", run.dir.path / "exported")
