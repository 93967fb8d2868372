"""Models as repositories of the Hugging Face hub: what is written, what comes back, what is refused."""

from __future__ import annotations

import json
import re
import shlex
import time
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, constants

import gracl
from conftest import save_image
from gracl import cli
from gracl.card import Said, nearest_recipe, training_of, write_card
from gracl.config import Config
from gracl.errors import ConfigError, FingerprintError, HubError, RunError, WeightsError
from gracl.files import load_model, save_model
from gracl.hub import from_pretrained, pull_from_hub, push_to_hub
from gracl.models import hub as client
from gracl.models.batchnorm import calibrate
from gracl.models.embedder import build_embedder
from gracl.models.fingerprint import fingerprint
from gracl.models.licences import origin_of
from gracl.repository import save_pretrained
from gracl.runs import Run
from gracl.terminal import console
from standin_hub import stand_in_hub

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "hub.md").read_text(encoding="utf-8")
SIZE = (64, 32)
THREE = {"model.safetensors", "config.json", "README.md"}


def pixels(n=3, size=SIZE):
    draws = torch.Generator().manual_seed(n)
    return torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=draws)


def made(backbone="test_resnet", seed=0, **choices):
    """A network whose BatchNorms have seen something."""
    torch.manual_seed(seed)
    model = build_embedder(backbone, size=SIZE, **choices)
    calibrate(model, [pixels(8)])
    return model.eval()


@torch.no_grad()
def features_of(model):
    return model(pixels(3, model.size))


def scores(mAP):
    return {
        "protocol": "date@1",
        "mAP": mAP,
        "mINP": 0.2,
        "R1": 0.5,
        "R5": 0.6,
        "R10": 0.7,
        "n_queries": 1234,
        "n_without_match": 5,
        "n_draws": 1,
        "spread": {},
        "note": "fell to date: no camera known",
    }


def save_run(folder, model, *, weights="none", truth=True, **changes):
    """What a finished run has, as `gracl.train` writes it."""
    folder.mkdir(parents=True)
    about = {"backbone": "test_resnet", "weights": str(weights), "size": list(SIZE)}
    config = Config.load("own-data").replace({"model": about, **changes})
    (folder / "config.yaml").write_text(config.to_yaml())
    data = {"name": "herd", "root": str(folder.parent / "herd"), "layout": "csv", "images": 4321}
    left_out = [{"path": str(folder.parent / "herd" / "broken.jpg"), "reason": "truncated"}]
    (folder / "data.json").write_text(json.dumps({**data, "left_out": left_out, "fingerprint": "x"}))
    lines = [
        {"event": "start", "versions": {"gracl": "0.1.0", "torch": "2.6"}},
        {"event": "epoch", "epoch": 1},
        {"event": "end", "time": "2026-11-24T18:30:00+0000"},
    ]
    for line, key, mAP in ((lines[0], "before", 0.25), (lines[2], "after", 0.8125)):
        line[key] = {"clusters": {"n_clusters": 3}}
        if truth:
            line[key] |= {"scores": scores(mAP), "agreement": {"ari": mAP / 2}}
            line[key]["on_training_images"] = False
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    save_model(folder / "model.safetensors", model, config.model)
    return folder


@pytest.fixture(scope="module")
def model():
    return made()


@pytest.fixture
def run(model, tmp_path):
    """A run that began with a file in a folder of the user's."""
    return save_run(tmp_path / "runs" / "a", model, weights=tmp_path / "secret" / "begin.pth")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """huggingface_hub's client speaks to a hub on this machine, and keeps its cache in the test's."""
    with stand_in_hub() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.endpoint)
        template = found.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield found


def command(*words):
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(word) for word in words])
    return stopped.value.code


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def front_matter(folder):
    return yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])


# -- there and back -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "choices"),
    [
        ("test_resnet", {}),
        ("test_resnet", {"last_stride": 2, "pooling": "average"}),
        ("test_resnet", {"parts": 2}),
        ("resnet18_ibn_a", {}),
        ("test_vit", {}),
        ("test_vit", {"pooling": "cls"}),
        ("test_convnext", {"pooling": "average"}),  # a norm after the average
    ],
)
def test_a_model_comes_back_with_the_same_features_to_the_last_bit(backbone, choices, tmp_path):
    model = made(backbone, **choices)
    folder = save_pretrained(model.train(), tmp_path / "m")
    assert model.training  # left as it is
    model.eval()
    for again in (
        from_pretrained(folder),
        load_model(folder),
        load_model(folder / "model.safetensors"),
    ):
        assert not again.training
        assert torch.equal(features_of(again), features_of(model))
        assert fingerprint(again) == fingerprint(model)
        assert (again.size, len(again.part_necks)) == (model.size, choices.get("parts", 0))
        assert again.last_stride == choices.get("last_stride", 1)
    if choices.get("parts"):
        with torch.no_grad():
            stripes = [m(pixels(), parts=True) for m in (model, from_pretrained(str(folder)))]
        assert torch.equal(*stripes)
    assert {path.name for path in folder.iterdir()} == THREE


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_a_model_is_loaded_where_gradients_are_off(off, tmp_path):
    folder = save_pretrained(made(), tmp_path / "m")  # a backbone is understood by its gradients
    with off():
        model = from_pretrained(folder)
    assert torch.equal(features_of(model), features_of(made()))
    model.train()(pixels()).sum().backward()


def test_a_model_that_came_back_can_be_saved_again(model, tmp_path):
    first = save_pretrained(model, tmp_path / "a")
    second = save_pretrained(from_pretrained(first), tmp_path / "b")
    assert contents(first) == contents(second)


def test_a_run_its_folder_and_its_path_give_the_same_files(run, tmp_path):
    written = [
        contents(save_pretrained(source, tmp_path / name, license="mit"))
        for name, source in (("a", Run(run)), ("b", run), ("c", str(run)))
    ]
    assert written[0] == written[1] == written[2]


def test_commands_take_the_folder_as_a_model(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_pretrained(model, "m")
    for n in range(4):
        save_image(tmp_path / "photos" / f"{'ab'[n % 2]}" / f"{n}.png", n)
    with console.capture() as said:
        assert command("embed", "m", "photos", "-o", "f.npz") == 0
        assert command("evaluate", "m", "photos") == 0
        assert command("export", "m", "backbone.pt") == 0
    assert "mAP" in said.get()
    assert gracl.read_features("f.npz").fingerprint == fingerprint(model)


def test_the_description_tells_programs_what_the_model_is(model, tmp_path):
    found = json.loads((save_pretrained(model, tmp_path / "m") / "config.json").read_text())
    assert found["library_name"] == "gracl"
    assert (found["architecture"], found["num_features"]) == ("test_resnet", 96)
    assert found["pretrained_cfg"]["input_size"] == [3, 64, 32]
    assert torch.allclose(255 * torch.tensor(found["pretrained_cfg"]["mean"]), model.mean.flatten())
    about = found["gracl"]
    assert about["fingerprint"] == fingerprint(model)
    assert (about["height"], about["width"], about["dim"], about["pooling"]) == (64, 32, 96, "gem")


# -- the card -------------------------------------------------------------------------------------


def test_the_front_matter_is_what_the_hub_reads(run, tmp_path):
    folder = save_pretrained(
        run, tmp_path / "m", license="cc-by-nc-4.0", datasets=["wild/lynx", "two words"], title="Lynx"
    )
    card = ModelCard.load(folder / "README.md")
    assert card.data.to_dict() == front_matter(folder)
    assert card.data.license == "cc-by-nc-4.0"
    assert card.data.library_name == "gracl"
    assert card.data.pipeline_tag == "image-feature-extraction"
    assert card.data.datasets == ["wild/lynx"]  # the hub refuses a card that lists another name
    assert {"gracl", "re-identification", "unsupervised"} <= set(card.data.tags)
    assert card.data.model_name == "Lynx"
    found = {result.metric_name: result for result in card.data.eval_results}
    assert found["mAP"].metric_value == 81.25
    assert (found["mAP"].dataset_config, found["mAP"].dataset_split) == ("date@1", "test")
    assert (found["ARI"].metric_value, found["ARI"].dataset_split) == (40.62, "train")


def test_the_card_tells_what_the_run_knows(run, tmp_path):
    folder = save_pretrained(
        run, tmp_path / "m", license="mit", data_license="ours", notes="Be *kind*."
    )
    card = (folder / "README.md").read_text(encoding="utf-8")
    for said in (
        "| data set | `herd` |",
        "| images | 4,321; 1 more could not be read |",
        "| read as | `csv` |",
        "| weights at the start | a file, `begin.pth` |",
        "| mAP, % | 25.0 | 81.2 |",
        "| ARI of the clusters, % | 12.5 | 40.6 |",
        "Protocol `date@1` on `herd`: 1,234 queries, 5 more without a match left out "
        "(fell to date: no camera known).",
        "figures of the last epoch",
        "| these weights | mit |",
        "| the training images | ours |",
        "| the weights that training began from (a file, `begin.pth`) | not known |",
        "The licence of the weights that training began from is not known.",
        "| `model.backbone` | `test_resnet` | `resnet50` |",
        "Re-identification can harm.",
        "## Notes\n\nBe *kind*.",
    ):
        assert said in card, said


def test_what_is_not_known_is_called_so(model, tmp_path):
    folder = save_pretrained(model, tmp_path / "m")
    card = (folder / "README.md").read_text(encoding="utf-8")
    for said in (
        "How it was trained is not known.",
        "| data set | not known |",
        "| images | not known |",
        "Method and settings are not known",
        "Scores are not known",
        "| these weights | not known |",
        "| the training images | not known |",
    ):
        assert said in card, said
    about = front_matter(folder)
    assert about["license"] == "unknown"
    assert "model-index" not in about
    assert "unsupervised" not in about["tags"]


def test_a_run_without_truth_has_no_scores(model, tmp_path):
    folder = save_pretrained(save_run(tmp_path / "r", model, truth=False), tmp_path / "m")
    assert "Scores are not known: the run knew no identities" in (folder / "README.md").read_text()
    assert "model-index" not in front_matter(folder)


def test_scores_on_the_training_images_are_called_so(model, tmp_path):
    run = save_run(tmp_path / "r", model)
    log = (run / "log.jsonl").read_text()
    (run / "log.jsonl").write_text(log.replace('images": false', 'images": true'))
    folder = save_pretrained(run, tmp_path / "m")
    assert "**The images trained on searched each other**" in (folder / "README.md").read_text()
    assert front_matter(folder)["model-index"][0]["results"][0]["dataset"]["split"] == "train"


def test_a_supervised_model_is_not_called_unsupervised(model, tmp_path):
    run = save_run(tmp_path / "r", model, method={"name": "supervised"})
    folder = save_pretrained(run, tmp_path / "m")
    assert "unsupervised" not in front_matter(folder)["tags"]
    assert "with identities as labels" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("backbone", "weights", "licence", "said"),
    [
        ("resnet50", "none", None, ""),
        ("resnet50", "pretrained", "apache-2.0", ""),
        ("resnet50.fb_ssl_yfcc100m_ft_in1k", "pretrained", "cc-by-nc-4.0", "non-commercial use only"),
        ("resnet50.fb_swsl_ig1b_ft_in1k", "pretrained", "cc-by-nc-4.0", "non-commercial use only"),
        ("convnextv2_tiny", "pretrained", "cc-by-nc-4.0", "non-commercial use only"),
        ("vit_small_patch16_dinov3", "pretrained", "dinov3-license", "terms of their own"),
        ("x", "hf-hub:timm/convnextv2_tiny.fcmae", "cc-by-nc-4.0", "non-commercial use only"),
        ("x", "hf-hub:timm/resnet50.not_there_yet", None, "not known"),
        ("x", "hf-hub:somebody/resnet50", None, "not known"),
        ("res2net50_26w_4s", "pretrained", None, "not known"),  # timm says "unknown"
        ("resnet50", "weights.pth", None, "not known"),
    ],
)
def test_the_licence_of_the_weights_at_the_start_is_told(backbone, weights, licence, said):
    origin = origin_of(backbone, weights)
    assert origin.licence == licence
    assert said in origin.caution
    assert bool(said) == bool(origin.caution)


def test_weights_of_timm_are_named_as_base_model_with_their_caution(model, tmp_path):
    run = save_run(tmp_path / "r", model, weights="hf-hub:timm/convnextv2_tiny.fcmae")
    folder = save_pretrained(run, tmp_path / "m", license="cc-by-nc-4.0")
    assert front_matter(folder)["base_model"] == "timm/convnextv2_tiny.fcmae"
    assert "under cc-by-nc-4.0: **non-commercial use only**." in (folder / "README.md").read_text()


@pytest.mark.parametrize("weights", ["secret/begin.pth", "~/secret/begin.pth", r"C:\secret\begin.pth"])
def test_no_folder_of_this_machine_is_in_any_file(model, tmp_path, weights):
    if weights[0] == "s":
        weights = tmp_path / weights
    run = save_run(tmp_path / "adalovelace" / "r", model, weights=weights)
    folder = save_pretrained(run, tmp_path / "m", repo_id="wild/lynx")
    for name, content in contents(folder).items():
        for told in (str(tmp_path), str(Path.home()), "secret", "adalovelace", "broken.jpg", str(ROOT)):
            assert told.encode() not in content, (name, told)
    assert b"begin.pth" in (folder / "README.md").read_bytes()


def test_words_of_the_user_cannot_break_the_card(model, tmp_path):
    rude = "a: b\n---\n# | `x` | {[ '\" #"
    folder = save_pretrained(model, tmp_path / "m", title=rude, data_license=rude, datasets=rude)
    assert ModelCard.load(folder / "README.md").data.license == "unknown"
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "# a: b --- # | `x` | {[ '\" #\n" in text
    assert "| licence of the images | a: b --- # / `x` / {[ '\" # |" in text


def test_the_nearest_recipe_is_the_one_with_fewest_differences():
    for name in ("own-data", "market1501", "demo"):
        config = Config.load(name).replace({"train": {"threads": 3, "device": "cpu"}})
        assert nearest_recipe(config)[1] == {}
    assert nearest_recipe(Config.load("demo").replace({"method": {"eps": 0.11}}))[0] == "demo"


def test_the_python_of_the_card_runs(run, tmp_path, monkeypatch):
    folder = save_pretrained(run, tmp_path / "m")
    monkeypatch.chdir(folder)
    save_image(folder / "photos" / "a.png", 1)
    (block,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    names = {}
    exec(block, names)
    assert names["similarity"].shape == (1, 1)


def test_an_unfinished_run_is_refused(run, tmp_path):
    log = (run / "log.jsonl").read_text().splitlines(keepends=True)
    (run / "log.jsonl").write_text("".join(log[:-1]))
    with pytest.raises(RunError, match="the run is not finished"):
        save_pretrained(run, tmp_path / "m")
    assert not (tmp_path / "m").exists()


# -- what cannot be saved -------------------------------------------------------------------------


def test_a_folder_with_something_else_is_not_written_into(model, run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text('{"model_type": "bert"}')
    for folder in (run, tmp_path / "mine"):
        before = contents(folder)
        with pytest.raises(ConfigError, match=r"is not what gracl.save_pretrained wrote"):
            save_pretrained(model, folder)
        assert contents(folder) == before
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file; expected a new folder"):
        save_pretrained(model, tmp_path / "file")


def test_its_own_folder_is_written_anew_unless_the_card_was_edited(model, tmp_path):
    folder = save_pretrained(model, tmp_path / "m")
    (folder / ".git").mkdir()  # a clone of the hub's has one
    other = made(seed=1)
    save_pretrained(other, folder, title="Another")
    assert fingerprint(from_pretrained(folder)) == fingerprint(other)
    card = folder / "README.md"
    card.write_text(card.read_text().replace("# Another", "# Mine"))
    before = contents_of_files(folder)
    with pytest.raises(ConfigError, match=r"README.md was changed since gracl wrote it"):
        save_pretrained(model, folder)
    assert contents_of_files(folder) == before
    card.write_bytes(b"\xc0" + card.read_bytes())  # by an editor that knows no UTF-8
    with pytest.raises(ConfigError, match=r"README.md was changed since gracl wrote it"):
        save_pretrained(model, folder)


def contents_of_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_an_interrupted_save_can_be_done_again(model, tmp_path, monkeypatch):
    from gracl import repository

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(repository, "save_model", stop)
        with pytest.raises(KeyboardInterrupt):
            save_pretrained(model, tmp_path / "m")
    with pytest.raises(WeightsError, match=r"it has no model.safetensors"):
        from_pretrained(tmp_path / "m")
    assert from_pretrained(save_pretrained(model, tmp_path / "m"))


def test_a_network_that_was_changed_is_refused(tmp_path):
    model = made()
    model.backbone.layer4[0].conv1.stride = (1, 1)
    model.backbone.layer4[0].downsample = torch.nn.Identity()
    with pytest.raises(WeightsError, match="do not fit a 'test_resnet' as gracl builds it"):
        save_pretrained(model, tmp_path / "m")
    model = made()
    model.backbone.act1 = torch.nn.Sigmoid()
    with pytest.raises(WeightsError, match="the network was changed after it was built"):
        save_pretrained(model, tmp_path / "m")
    model = made()
    model.backbone_name = ""
    with pytest.raises(WeightsError, match="does not say what it was built on"):
        save_pretrained(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"license": "apache2"}, r"no licence 'apache2'; did you mean 'apache-2.0'"),
        ({"license": "other"}, "'other' needs a name"),
        ({"license": "mit", "license_name": "x"}, "belongs to the licence 'other'"),
    ],
)
def test_a_licence_that_the_hub_would_refuse_is_refused_at_once(model, tmp_path, said, message):
    with pytest.raises(ConfigError, match=message):
        save_pretrained(model, tmp_path / "m", **said)


def test_another_licence_has_a_name_and_a_link(model, tmp_path):
    said = {"license": "other", "license_name": "lynx-1", "license_link": "https://example.org/l"}
    folder = save_pretrained(model, tmp_path / "m", **said)
    assert {key: front_matter(folder)[key] for key in said} == said
    assert "| these weights | [lynx-1](https://example.org/l) |" in (folder / "README.md").read_text()
    assert push_to_hub(folder, "a/b", dry_run=True).license == "lynx-1"


# -- what is damaged ------------------------------------------------------------------------------


def test_weights_of_another_model_are_noticed(model, tmp_path):
    folder = save_pretrained(model, tmp_path / "m")
    other = save_pretrained(made(seed=1), tmp_path / "o")
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    for load in (from_pretrained, load_model):
        with pytest.raises(FingerprintError, match="so the two are not of one model"):
            load(folder)
    assert load_model(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[]", "another library's"),
        (b'{"architectures": ["BertModel"]}', "another library's"),
        (b'{"gracl": {}}', "names no fingerprint"),
        (None, "has no config.json"),
    ],
)
def test_a_damaged_description_is_refused(model, tmp_path, content, message):
    folder = save_pretrained(model, tmp_path / "m")
    if content is None:
        (folder / "config.json").unlink()
    else:
        (folder / "config.json").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        from_pretrained(folder)
    assert load_model(folder)  # the weights say what they are


def test_weights_that_are_cut_short_or_missing_are_refused(model, tmp_path):
    folder = save_pretrained(model, tmp_path / "m")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"it has no model.safetensors"):
        from_pretrained(folder)


def test_a_model_of_a_later_gracl_is_refused_in_a_sentence(model, tmp_path):
    from safetensors.torch import save_file

    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    for about, said in (
        ('{"backbone": "test_resnet", "wings": 2}', "unknown setting 'model.wings'"),
        ("{", "cannot be made a model by this gracl"),
        ('{"backbone": "test_vit", "size": [64, 32]}', "Missing key"),
    ):
        save_file(tensors, tmp_path / "m.safetensors", metadata={"gracl": about})
        with pytest.raises(WeightsError, match=said):
            load_model(tmp_path / "m.safetensors")


@pytest.mark.parametrize("name", ["gone", "./gone/there", "/gone/there", "a/b/c", "a/--b", "a/b.git"])
def test_a_name_that_is_neither_folder_nor_repository_is_refused(name):
    with pytest.raises(WeightsError, match="neither a folder that exists nor the name of a repository"):
        from_pretrained(name)
    with pytest.raises(WeightsError, match="neither a folder"):
        from_pretrained(Path("a/b"))  # a path is never looked for on the hub


# -- on the hub -----------------------------------------------------------------------------------


def test_exactly_three_files_go_to_a_private_repository_and_come_back(run, hub):
    done = push_to_hub(run, "wild/lynx", license="mit", token="hf_x", commit_message="Lynx")
    found = hub.repositories["wild/lynx"]
    assert found.private
    assert done.private
    assert set(found.files) == THREE == set(done.files)
    assert {name: len(content) for name, content in found.files.items()} == done.files
    assert hub.messages == ["Lynx"]
    assert done.commit == f"{hub.endpoint}/wild/lynx/commit/{found.commits[-1][0]}"
    assert b'gracl.from_pretrained("wild/lynx")' in found.files["README.md"]

    hub.requests.clear()
    again = from_pretrained("wild/lynx", token="hf_x")
    assert torch.equal(features_of(again), features_of(made()))
    assert not any("README" in request for request in hub.requests)
    assert done.fingerprint == fingerprint(again)


def test_a_saved_folder_goes_as_it_is_and_nothing_else_in_it_does(model, tmp_path, hub):
    folder = save_pretrained(model, tmp_path / "m", license="mit")
    card = folder / "README.md"
    card.write_text(card.read_text() + "\nMy words.\n")
    save_image(folder / "photos" / "private.png")
    (folder / "photos" / "README.md").write_text("not this one")
    (folder / "notes.txt").write_text("x")
    push_to_hub(folder, "wild/lynx", token="hf_x")
    files = hub.repositories["wild/lynx"].files
    assert set(files) == THREE
    assert files["README.md"] == card.read_bytes()
    with pytest.raises(ConfigError, match="has its card already, so title cannot be given"):
        push_to_hub(folder, "wild/lynx", title="x")


def test_public_must_be_said(model, hub):
    done = push_to_hub(model, "wild/lynx", license="mit", private=False, token="hf_x")
    assert not done.private
    assert not hub.repositories["wild/lynx"].private
    with pytest.raises(HubError, match="exists and is public, so nothing was uploaded"):
        push_to_hub(model, "wild/lynx", license="mit", token="hf_x")
    assert len(hub.repositories["wild/lynx"].commits) == 1


def test_what_is_not_gracls_is_not_written_over(model, hub):
    hub.put("some/bert", {"config.json": b'{"model_type": "bert"}', "README.md": b"x"}, private=True)
    hub.put("some/weights", {"model.safetensors": b"x"}, private=True)
    hub.put("some/new", {"README.md": b"x", ".gitattributes": b"x"}, private=True)
    for name in ("some/bert", "some/weights"):
        with pytest.raises(HubError, match="holds a model that is not gracl's"):
            push_to_hub(model, name, license="mit", token="hf_x")
        assert len(hub.repositories[name].commits) == 1
    for n in (2, 3):  # an empty one, then its own
        push_to_hub(model, "some/new", license="mit", token="hf_x", title=f"Lynx {n}")
        assert len(hub.repositories["some/new"].commits) == n


@pytest.mark.parametrize("licence", [None, "unknown", ""])
def test_without_a_licence_nothing_is_pushed(model, tmp_path, hub, licence):
    with pytest.raises(ConfigError, match=r"no licence is named.*--license apache-2.0"):
        push_to_hub(model, "wild/lynx", license=licence)
    with pytest.raises(ConfigError, match="no licence is named"):
        push_to_hub(save_pretrained(model, tmp_path / "m"), "wild/lynx")
    assert hub.requests == []


def test_a_dry_run_asks_nobody(model, hub):
    done = push_to_hub(model, "wild/lynx", license="mit", dry_run=True)
    assert (done.commit, done.private, set(done.files)) == (None, True, THREE)
    assert hub.requests == []


def test_a_hub_that_does_not_let_us_says_so(model, hub):
    hub.writable = False
    with pytest.raises(HubError, match="'hf auth login' with a token that may do this"):
        push_to_hub(model, "wild/lynx", license="mit", token="hf_x")
    assert hub.repositories == {}
    with pytest.raises(ConfigError, match="expected ORGANISATION/NAME"):
        push_to_hub(model, "lynx", license="mit")


def test_a_revision_stays_what_it_was(hub):
    first, second = made(), made(seed=1)
    for model in (first, second):
        push_to_hub(model, "wild/lynx", license="mit", token="hf_x", private=False)
    (sha, _), _ = hub.repositories["wild/lynx"].commits
    found = [from_pretrained("wild/lynx", revision=sha), load_model(f"hf-hub:wild/lynx@{sha}")]
    assert [fingerprint(model) for model in found] == [fingerprint(first)] * 2
    newest = (from_pretrained("hf-hub:wild/lynx"), load_model(Path("hf-hub:wild/lynx")))
    assert [fingerprint(model) for model in newest] == [fingerprint(second)] * 2


def test_what_the_hub_refuses_is_told_with_a_remedy(model, tmp_path, hub):
    folder = save_pretrained(model, tmp_path / "m")
    files = contents(folder)
    hub.put("some/secret", files, private=True)
    hub.put("some/gated", files, gated=True)
    hub.put("some/bert", {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"x"})
    hub.put("some/other", {"weights.bin": b"x"})
    hub.put("some/half", {"config.json": files["config.json"]})
    hub.put("some/model", files)
    wrong = {
        **files,
        "config.json": files["config.json"].replace(b'"fingerprint": "', b'"fingerprint": "0'),
    }
    hub.put("some/wrong", wrong)
    for name, said in (
        ("some/gone", "there is no .*/some/gone, or it is private"),
        ("some/secret", "private and not yours.*'hf auth login', or give a token"),
        ("some/gated", "it is gated. Ask for access at"),
        ("some/bert", "hf-hub:some/bert holds no model of gracl"),
        ("some/other", "has no config.json, so it is no model of gracl"),
        ("some/half", "has no model.safetensors at"),
    ):
        with pytest.raises(WeightsError, match=said):
            from_pretrained(name)
    with pytest.raises(WeightsError, match="has no revision 'v9'"):
        from_pretrained("some/model", revision="v9")
    with pytest.raises(FingerprintError):
        from_pretrained("some/wrong")
    assert not any("bert" in request and "safetensors" in request for request in hub.requests)
    assert from_pretrained("some/secret", token="hf_x")


def test_its_backbone_starts_another_training(hub):
    model = made(last_stride=2)
    push_to_hub(model, "wild/lynx", license="mit", private=False, token="hf_x")
    again = build_embedder("test_resnet.r160_in1k", size=SIZE, weights="hf-hub:wild/lynx")
    for name, value in again.backbone.state_dict().items():
        assert torch.equal(value, model.backbone.state_dict()[name]) or "num_batches" in name
    assert torch.allclose(again.mean, model.mean)
    with pytest.raises(ConfigError, match="holds a 'test_resnet', and the backbone is 'test_vit'"):
        build_embedder("test_vit", size=SIZE, weights="hf-hub:wild/lynx")


def test_old_torch_takes_safetensors_from_the_hub_and_no_pickle(hub, monkeypatch):
    monkeypatch.setattr("gracl.models.weights.unpickles_safely", lambda: False)
    push_to_hub(made(last_stride=2), "wild/lynx", license="mit", private=False, token="hf_x")
    build_embedder("test_resnet.r160_in1k", size=SIZE, weights="hf-hub:wild/lynx")
    about = json.dumps({"architecture": "test_resnet", "num_features": 64}).encode()
    hub.put("some/pickle", {"config.json": about, "pytorch_model.bin": b"anything"})
    with pytest.raises(WeightsError, match=r"hf-hub:some/pickle cannot be had: .*model\.safetensors"):
        build_embedder("test_resnet.r160_in1k", size=SIZE, weights="hf-hub:some/pickle")
    assert not any("pytorch_model.bin" in request for request in hub.requests)


# -- without a network ----------------------------------------------------------------------------


def unplug(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def test_without_a_network_errors_are_quick_and_clear(model, tmp_path, hub, monkeypatch):
    unplug(monkeypatch)
    started = time.monotonic()
    with pytest.raises(WeightsError, match=r"does not answer .*has no config.json of it. Connect, or"):
        from_pretrained("wild/lynx")
    with pytest.raises(HubError, match=r"does not answer .*Nothing was changed"):
        push_to_hub(model, "wild/lynx", license="mit", token="hf_x")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE or local_files_only is set"):
        from_pretrained("wild/lynx")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        push_to_hub(model, "wild/lynx", license="mit", token="hf_x")
    assert time.monotonic() - started < 5
    assert hub.requests == []


def test_a_hub_that_never_answers_is_given_up_soon(hub, monkeypatch):
    import socket

    with socket.socket() as mute:  # takes a connection, and says nothing
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{mute.getsockname()[1]}")
        monkeypatch.setattr(client, "PATIENCE", 0.2)
        started = time.monotonic()
        assert "does not answer (timed out)" in client.unreachable()
        assert time.monotonic() - started < 2


def test_what_is_in_the_cache_needs_no_network(model, hub, monkeypatch, caplog):
    push_to_hub(model, "wild/lynx", license="mit", private=False, token="hf_x")
    from_pretrained("wild/lynx")
    hub.requests.clear()
    assert from_pretrained("wild/lynx", local_files_only=True)
    assert hub.requests == []
    unplug(monkeypatch)
    assert fingerprint(load_model("hf-hub:wild/lynx")) == fingerprint(model)
    assert "does not answer" in caplog.text
    assert "in the cache" in caplog.text


# -- the command, and the page --------------------------------------------------------------------


def commands():
    lines = [s for block in re.findall(r"```console\n(.*?)```", PAGE, re.S) for s in block.split("\n")]
    return [shlex.split(line[2:], comments=True) for line in lines if line.startswith("$ gracl ")]


def test_the_commands_and_the_python_of_the_page_run(model, tmp_path, hub, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    save_run(tmp_path / "runs" / "photos", model)
    save_image(tmp_path / "photos" / "a.png", 1)
    shown = commands()
    assert [words[1] for words in shown] == ["hub"] * 4 + ["embed"]
    printed = []
    for words in shown:
        with console.capture() as said:
            assert command(*words[1:]) == 0, words
        printed.append(said.get())
    assert "would be uploaded; nobody was asked" in printed[1]
    assert "(private, licence cc-by-nc-4.0, fingerprint" in printed[2]
    assert "uploaded: http" in printed[2]
    assert (
        contents(Path("lynx-copy"))
        == contents(Path("lynx-model"))
        == hub.repositories["wild/lynx"].files
    )
    assert "not to be shared" in Path("lynx-copy/README.md").read_text()
    assert gracl.read_features("features.npz").fingerprint == fingerprint(model)
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.S):
        names = {}
        exec(block, names)
        assert set(names["done"].files) == THREE


def test_a_pull_leaves_a_folder_of_others_alone(model, tmp_path, hub):
    push_to_hub(model, "wild/lynx", license="mit", private=False, token="hf_x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    hub.requests.clear()
    with pytest.raises(ConfigError, match=r"is not what gracl.save_pretrained wrote"):
        pull_from_hub("wild/lynx", tmp_path / "mine")
    assert hub.requests == []
    with pytest.raises(WeightsError, match="expected ORGANISATION/NAME"):
        pull_from_hub("wild lynx", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_card_of_facts_alone_needs_no_files(run):
    training = training_of(Run(run))
    assert training.config.model.weights == "begin.pth"
    from gracl.card import Facts

    facts = Facts("test_resnet", SIZE, "gem", 1, 2, 96, "f" * 64, "0.1.0", training)
    text = write_card(facts, Said(license="mit"))
    assert "| parts | 2 stripes, used in training alone |" in text
