"""Exported files: the features are the model's, and what is not right is never left behind."""

from __future__ import annotations

import json
import re
import shlex
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from PIL import Image

from conftest import random_image
from gracl import cli, export
from gracl._export_graph import resize_as_pillow
from gracl.config import Config
from gracl.data import store
from gracl.errors import ConfigError, ExportError
from gracl.export import (
    export_onnx,
    export_program,
    export_weights,
    format_of,
    require_writable,
)
from gracl.files import save_model
from gracl.models.batchnorm import calibrate
from gracl.models.embedder import build_embedder
from gracl.models.fingerprint import fingerprint
from gracl.terminal import console

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
SIZE = (64, 32)
TOO_OLD = r"torch 2\.6\S* cannot write ONNX; expected 2\.7 or newer: pip install --upgrade torch"


def made(backbone="test_resnet", **choices):
    """A network whose BatchNorms have seen something, so that train and eval mode differ."""
    torch.manual_seed(0)
    model = build_embedder(backbone, size=SIZE, **choices)
    calibrate(model, [pixels(8)])
    return model.train()


def pixels(n, size=SIZE):
    draws = torch.Generator().manual_seed(n)
    return torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=draws)


@torch.no_grad()
def features_of(model, images):
    before = model.training
    found = model.eval()(images)
    model.train(before)
    return found.numpy()


def opened(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: session.run(["features"], {"images": np.ascontiguousarray(images)})[0]


@pytest.fixture(scope="module")
def model():
    return made()


@pytest.fixture(scope="module")
def onnx_writer(model, tmp_path_factory):
    """Where torch cannot write ONNX, it is seen to be said; only then is what needs a file left out."""
    if torch.__version__ < export.ONNX_TORCH:
        path = tmp_path_factory.mktemp("old") / "model.onnx"
        with pytest.raises(ConfigError, match=TOO_OLD):
            export_onnx(model, path)
        assert not path.exists()
        pytest.skip("torch before 2.7 writes no ONNX, and says so")


@pytest.fixture(scope="module")
def plain(onnx_writer, model, tmp_path_factory):
    return export_onnx(model, tmp_path_factory.mktemp("plain") / "model.onnx")


@pytest.fixture(scope="module")
def program(model, tmp_path_factory):
    return export_program(model, tmp_path_factory.mktemp("program") / "model.pt2", layout="nhwc")


def commands():
    """The words of each command of the page."""
    lines = [s for block in re.findall(r"```console\n(.*?)```", PAGE, re.S) for s in block.split("\n")]
    return [shlex.split(line[2:].split(" #")[0]) for line in lines if line.startswith("$ gracl ")]


def run(*words):
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(word) for word in words])
    return stopped.value.code


def save_run(folder, model):
    """What a finished run has, as far as an export reads it."""
    folder.mkdir(parents=True)
    config = Config().replace({"model": {"backbone": "test_resnet", "weights": "none", "size": SIZE}})
    save_model(folder / "model.safetensors", model, config.model)


@pytest.fixture(scope="module")
def written(onnx_writer, model, tmp_path_factory):
    """A folder in which the commands of the page were typed, and what they printed."""
    folder = tmp_path_factory.mktemp("page")
    save_run(folder / "runs" / "photos", model)
    printed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words in commands():
            with console.capture() as said:
                assert run(*words[1:]) == 0
            printed.append(said.get())
    (folder / "said").write_text("\0".join(printed))
    return folder


# -- the same features ----------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 16])
def test_features_are_those_of_the_model_at_any_number_of_images(model, plain, batch):
    found = opened(plain.path)(pixels(batch).numpy())
    assert found.dtype == np.float32
    assert found.shape == (batch, model.dim)
    np.testing.assert_allclose(found, features_of(model, pixels(batch)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "choices"),
    [
        ("test_vit", {}),
        ("test_convnext", {"pooling": "average"}),  # a norm after the average
        ("resnet18_ibn_a", {"last_stride": 2, "parts": 2}),
    ],
)
def test_other_backbones_in_the_other_layout(onnx_writer, backbone, choices, tmp_path):
    model = made(backbone, **choices)
    done = export_onnx(model, tmp_path / "m.onnx", layout="nhwc")
    found = opened(done.path)(pixels(3).permute(0, 2, 3, 1).numpy())
    assert found.shape == (3, model.dim)  # the image's own, where there are parts too
    np.testing.assert_allclose(found, features_of(model, pixels(3)), atol=1e-4)
    assert done.metadata["gracl.backbone"] == backbone


def test_half_keeps_images_and_features_and_halves_the_weights(model, plain, written):
    path = written / "small.onnx"
    found = opened(path)(pixels(3).numpy())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, features_of(model, pixels(3)), atol=5e-3)
    assert np.abs(found - features_of(model, pixels(3))).max() > 1e-6
    assert path.stat().st_size < 0.6 * plain.bytes


def test_normalized_images_give_the_same_features(model, written):
    given = (pixels(3) / 255 - model.mean / 255) / (model.std / 255)
    found = opened(written / "osnet_x1_0_gracl.onnx")(given.numpy())
    np.testing.assert_allclose(found, features_of(model, pixels(3)), atol=1e-4)


def test_a_program_runs_in_torch_alone(model, program):
    run = torch.export.load(program.path).module()
    for batch in (1, 3):
        found = run(pixels(batch).permute(0, 2, 3, 1)).detach().numpy()
        np.testing.assert_allclose(found, features_of(model, pixels(batch)), atol=1e-5)


def test_a_program_of_tokens_takes_any_number_of_images_of_any_size(tmp_path):
    """torch 2.6 and 2.7 refused it as long as the sides had no bound."""
    model = made("test_vit")
    run = torch.export.load(export_program(model, tmp_path / "m.pt2", resize=True).path).module()
    for n, size in ((1, (37, 23)), (2, (1, 1)), (3, (200, 101))):
        image = random_image(n, size)
        expected = features_of(model, torch.from_numpy(rows_then_columns(image))[None])
        found = run(as_tensor(image).repeat(n, 1, 1, 1)).detach().numpy()
        np.testing.assert_allclose(found, np.repeat(expected, n, 0), atol=1e-5)


def test_openvino_reads_the_file_and_gives_the_same(model, plain):
    openvino = pytest.importorskip("openvino")
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(plain.path), "CPU", settings)
    for batch in (1, 3):
        found = compiled(pixels(batch).numpy())[0]
        np.testing.assert_allclose(found, features_of(model, pixels(batch)), atol=1e-4)


def test_openvino_resizes_nearly_as_onnx_runtime_does(written):
    """It computes in float32 what is meant in float64, as the page says."""
    openvino = pytest.importorskip("openvino")
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(written / "crops.onnx"), "CPU", settings)
    run = opened(written / "crops.onnx")
    for n, size in ((1, (131, 257)), (2, (37, 23)), (7, (3, 500))):
        images = pixels(n, size).permute(0, 2, 3, 1).contiguous().numpy()
        np.testing.assert_allclose(compiled(images)[0], run(images), atol=2e-3)


@pytest.mark.parametrize("size", [(65, 33), (63, 31)])
def test_a_size_that_no_stride_divides(onnx_writer, size, tmp_path):
    torch.manual_seed(0)
    model = build_embedder("test_resnet", size=size)
    calibrate(model, [pixels(8, size)])
    run = opened(export_onnx(model, tmp_path / "m.onnx").path)
    for batch in (1, 2, 7):
        given = pixels(batch, size)
        np.testing.assert_allclose(run(given.numpy()), features_of(model, given), atol=1e-5)


def test_the_model_is_left_as_it_is(model, program):
    assert model.training
    assert all(layer.training for layer in model.modules())
    assert program.metadata["gracl.fingerprint"] == fingerprint(model) == fingerprint(made())


# -- the resize -----------------------------------------------------------------------------------

SIZES = [(100, 50), (64, 32), (37, 23), (1, 1), (2, 500), (720, 1280), (64, 9), (300, 20), (65, 20)]


def rows_then_columns(image):
    """Pillow's resize in two steps of one direction each; alone, it chooses which comes first."""
    height, width = SIZE
    for size in ((width, image.height), (width, height)):
        image = image.resize(size, Image.Resampling.BICUBIC)
    return np.array(image).transpose(2, 0, 1)


def as_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("size", SIZES)
def test_resize_is_that_of_pillow_pixel_for_pixel(size):
    image = random_image(1, size)
    found = resize_as_pillow(as_tensor(image), SIZE)
    np.testing.assert_array_equal(found[0].numpy(), rows_then_columns(image))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("soft", "most", "mean"), [(False, 20, 0.5), (True, 3, 0.2)])
def test_resize_is_near_that_of_the_image_store_in_whichever_order_it_was_done(size, soft, most, mean):
    image = random_image(1, size)
    if soft:
        image = random_image(1, (6, 3)).resize(size[::-1], Image.Resampling.BICUBIC)
    levels = np.abs(resize_as_pillow(as_tensor(image), SIZE)[0].numpy() - store.resized(image, SIZE))
    assert levels.max() <= most
    assert levels.mean() < mean


def test_a_file_that_resizes_takes_images_of_any_size(model, written):
    run = opened(written / "crops.onnx")
    for size in [(1, 1), (37, 23), (200, 101), SIZE]:
        image = random_image(1, size)
        found = run(np.array([image, image]))
        expected = features_of(model, torch.from_numpy(rows_then_columns(image))[None])
        np.testing.assert_allclose(found, np.repeat(expected, 2, 0), atol=1e-4)
    read = onnx.load(written / "crops.onnx")
    assert {entry.key: entry.value for entry in read.metadata_props}["gracl.resize"] == "bicubic"
    shape = read.graph.input[0].type.tensor_type.shape.dim
    assert [side.dim_param or side.dim_value for side in shape] == ["batch", "height", "width", 3]


# -- what the file says of itself -----------------------------------------------------------------


def test_an_onnx_file_says_what_it_is(plain, program):
    read = onnx.load(plain.path)
    onnx.checker.check_model(read)
    about = {entry.key: entry.value for entry in read.metadata_props}
    assert about == plain.metadata == {**program.metadata, "gracl.layout": "nchw"}


def test_a_program_says_what_it_is(model, program):
    extra = {"gracl.json": ""}
    torch.export.load(program.path, extra_files=extra)
    assert json.loads(extra["gracl.json"]) == program.metadata
    assert program.metadata == {
        "gracl.version": cli.metadata.version("gracl"),
        "gracl.backbone": "test_resnet",
        "gracl.height": "64",
        "gracl.width": "32",
        "gracl.dim": str(model.dim),
        "gracl.layout": "nhwc",
        "gracl.pixels": "uint8",
        "gracl.resize": "none",
        "gracl.precision": "float32",
        "gracl.fingerprint": fingerprint(model),
    }


def test_only_the_number_of_images_is_free(plain):
    graph = onnx.load(plain.path).graph
    (images,), (features,) = graph.input, graph.output
    shape = [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim]
    assert (images.name, shape) == ("images", ["batch", 3, 64, 32])
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    shape = [d.dim_param or d.dim_value for d in features.type.tensor_type.shape.dim]
    assert (features.name, shape) == ("features", ["batch", 96])


@pytest.mark.parametrize("kind", ["plain", "program"])
def test_nothing_of_this_machine_is_in_a_file(kind, request):
    path = request.getfixturevalue(kind).path
    content = path.read_bytes()
    if kind == "program":
        with zipfile.ZipFile(path) as archive:
            content = b"".join(archive.read(name) for name in archive.namelist())
    assert str(ROOT).encode() not in content
    assert b"site-packages" not in content


@pytest.mark.parametrize("kind", ["plain", "program"])
def test_what_was_checked_is_told(kind, request):
    done = request.getfixturevalue(kind)
    assert done.batches == (1, 2, 7)
    assert 0 <= done.difference < 1e-5
    assert 0.99999 < done.cosine <= 1.00001
    assert done.bytes == done.path.stat().st_size
    assert [file.name for file in done.path.parent.iterdir()] == [done.path.name]


# -- what is not right ----------------------------------------------------------------------------


def first_only(run):
    """A graph that is right for one image only, as many are."""
    return lambda images: run(images)[:1].expand(len(images), -1)


def shifted(run):
    return lambda images: run(images) + 2e-4


def nowhere(run):
    return lambda images: run(images) / 0 * 0


def turned(run):
    return lambda images: -run(images)


@pytest.mark.parametrize("wrong", [first_only, shifted, nowhere, turned])
def test_wrong_features_are_refused_and_the_old_file_stays(model, tmp_path, monkeypatch, wrong):
    path = tmp_path / "model.pt2"
    path.write_bytes(b"old")
    right = export._open_program
    monkeypatch.setattr(export, "_open_program", lambda file: wrong(right(file)))
    with pytest.raises(ExportError, match=r"differ from the model's by up to .*, least cosine"):
        export_program(model, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_figures_are_in_the_refusal(model, tmp_path, monkeypatch):
    right = export._open_program
    monkeypatch.setattr(export, "_open_program", lambda file: shifted(right(file)))
    with pytest.raises(ExportError, match=r"by up to 0\.0002, .*; expected at most 0\.0001"):
        export_program(model, tmp_path / "m.pt2")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("no such operator\nsee above"),
            "cannot export 'test_resnet' as .*no such operator",
        ),
        (OSError(28, "No space left on device"), "cannot write .*No space left on device"),
        (KeyboardInterrupt(), None),
    ],
)
def test_nothing_is_left_of_a_failure(model, tmp_path, monkeypatch, error, said):
    def fail(graph, model, run):
        assert (tmp_path / "m.unfinished.pt2").stat().st_size  # written, and not yet believed
        raise error

    monkeypatch.setattr(export, "compare", fail)
    wanted = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ExportError
    with pytest.raises(wanted, match=said):
        export_program(model, tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_what_a_file_holds_are_refused(onnx_writer, model, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "LARGEST", 1000)
    with pytest.raises(ExportError, match=r"one ONNX file holds 2. Give --half"):
        export_onnx(model, tmp_path / "m.onnx")


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_extra_is_named(onnx_writer, model, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'gracl[export]'")):
        export_onnx(model, tmp_path / "m.onnx")


def test_a_torch_that_cannot_write_onnx_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.6.0+cu124"))
    with pytest.raises(ConfigError, match=TOO_OLD):
        export_onnx(torch.nn.Identity(), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_is_refused_before_any_work(model, tmp_path):
    with pytest.raises(ConfigError, match=r"layout is 'hwc'; expected nchw or nhwc"):
        export_program(model, tmp_path / "m.pt2", layout="hwc")
    with pytest.raises(ConfigError, match="leave one of the two out"):
        export_program(model, tmp_path / "m.pt2", resize=True, normalized=True)
    with pytest.raises(ConfigError, match=r"format onnx ends in \.onnx; found .*m\.pt"):
        export_onnx(model, tmp_path / "m.pt")
    with pytest.raises(ConfigError, match="expected a file in a folder that exists"):
        require_writable(tmp_path / "gone" / "m.pth", "torch")


def test_the_format_is_told_by_the_ending_or_by_name():
    assert format_of("a/b.ONNX") == "onnx"
    assert format_of("b.pt2") == "program"
    assert format_of("b.pt") == format_of("b.pth") == "torch"
    assert format_of("b.bin", "onnx") == "onnx"
    with pytest.raises(ConfigError, match=r"no format 'onx'; did you mean 'onnx'"):
        format_of("b.onnx", "onx")
    with pytest.raises(ConfigError, match=r"b\.tar does not tell a format .*\.onnx, \.pt2"):
        format_of("b.tar")


# -- weights alone --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "choices"),
    [
        ("test_resnet", {}),
        ("test_vit", {"img_size": SIZE}),
        ("test_convnext", {}),  # its last norm had been moved
    ],
)
def test_timm_loads_the_weights_by_its_own_names(backbone, choices, tmp_path):
    model = made(backbone)
    done = export_weights(model, tmp_path / "w.pt")
    tensors = torch.load(done.path, weights_only=True)
    net = timm.create_model(backbone, num_classes=0, **choices)
    net.load_state_dict(tensors)  # strict: every name, and no other
    again = build_embedder(backbone, size=SIZE, weights=done.path)
    calibrate(again, [pixels(8)])
    again.neck.load_state_dict(model.neck.state_dict())
    np.testing.assert_allclose(features_of(again, pixels(2)), features_of(model, pixels(2)), atol=1e-5)


# -- the command, and the page --------------------------------------------------------------------


def test_the_commands_of_the_page_write_what_they_say(written):
    shown = [words[3] for words in commands()]
    assert {Path(name).suffix for name in shown} == {".onnx", ".pt2", ".pt"}
    for name, said in zip(shown, (written / "said").read_text().split("\0"), strict=True):
        assert re.match(rf"{name}: [\d.]+ MiB\n", said)
        assert ("1, 2 and 7 images at a time: features differ by" in said) == (name != "backbone.pt")


def test_the_python_of_the_page_runs(written, monkeypatch):
    monkeypatch.chdir(written)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.S):
        exec(block, names)
    assert names["features"].shape == (4, 96)
    crops = [np.array(random_image(n, (40 + n, 30))) for n in range(3)]
    found = names["appearance"](crops)
    assert found.shape == (3, 96)
    assert names["appearance"]([]).shape == (0, 96)
    with pytest.raises(ValueError, match="a crop has no pixels"):
        names["appearance"]([crops[0], crops[0][:0]])
    images = np.stack([rows_then_columns(Image.fromarray(crop)) for crop in crops])
    expected = features_of(names["model"], torch.from_numpy(images))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    timm.create_model("test_resnet", num_classes=0).load_state_dict(names["tensors"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("runs/photos", "m.bin"), "m.bin does not tell a format by its ending"),
        (
            ("runs/photos", "m.onnx", "--format", "torch"),
            "format torch ends in .pt or .pth; found m.onnx",
        ),
        (("runs/photos", "gone/m.onnx"), "gone/m.onnx cannot be written"),
        (("runs/photos", "m.pt", "--half", "--layout", "nhwc"), "--layout, --half: weights alone"),
        (("runs/photo", "m.onnx"), "runs/photo is no model: there is no such file or folder"),
    ],
)
def test_a_command_that_cannot_be_says_why_in_one_line(
    model, tmp_path, monkeypatch, capsys, words, said
):
    monkeypatch.chdir(tmp_path)
    save_run(tmp_path / "runs" / "photos", model)
    assert run("export", *words) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert [path.name for path in Path.cwd().iterdir()] == ["runs"]
