"""Tests of weights.toml against the oracle, Hugging Face and torch, and of recipes.toml by its rules."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.oracle.small_model import CONFIGS, small_config
from spec import recipe_table, reference
from spec import training_reference as training
from spec.config import VARIANTS, Config
from spec.weight_table import TABLE, UPSTREAMS, expand, huggingface_memory_name

clause = pytest.mark.clause
ALL = {
    **CONFIGS,
    "both options, one channel": small_config(layer_scale=0.1, cosine_attention=True, channels=1),
    "unlike sides": small_config(frames=6, tubelet=(3, 2, 6)),
    **{name: Config.variant(name) for name in VARIANTS},
}
CLASSIFIERS = {"classifier mean": "mean", "classifier first": "first"}  # model -> pooling


# weights.toml ------------------------------------------------------------------------------------


@clause("WEIGHT-1")
@pytest.mark.parametrize("name", ALL)
def test_the_pretraining_weights_of_the_table_are_the_oracles(name):
    table = expand(ALL[name], "pretraining")
    shapes = {path: weight.shape for path, weight in table.items()}
    assert shapes == training.weight_shapes(ALL[name])


@clause("FT-4")
@pytest.mark.parametrize(("model", "pooling"), CLASSIFIERS.items())
@pytest.mark.parametrize("name", ALL)
def test_the_classifiers_weights_of_the_table_are_the_oracles(name, model, pooling):
    table = expand(ALL[name], model, classes=5)
    shapes = {path: weight.shape for path, weight in table.items()}
    assert shapes == training.classifier_weight_shapes(ALL[name], 5, pooling)


@clause("WEIGHT-1", "FT-4")
@pytest.mark.parametrize("model", ["pretraining", *CLASSIFIERS])
def test_upstream_tensors_are_named_once_and_hold_as_many_values(model):
    config = ALL["both options, one channel"]
    table = expand(config, model, classes=5)
    for upstream in UPSTREAMS:
        names = [name for weight in table.values() for name in weight.names.get(upstream, ())]
        assert len(names) == len(set(names)) and not [name for name in names if "{" in name]
    official = "official" if model == "pretraining" else "official_classifier"
    for weight in table.values():
        shapes = weight.tensors(official).values()
        assert sum(math.prod(shape) for shape in shapes) == math.prod(weight.shape), weight.path


def test_a_weight_without_a_counterpart_upstream_has_no_tensors():
    table = expand(ALL["both options, one channel"], "pretraining")
    assert table["encoder/block_1/attention/log_scale"].tensors("huggingface") == {}
    assert table["mask_token"].tensors("official_classifier") == {}
    assert table["decoder/block_0/norm1/gamma"].tensors("mmaction2") == {}
    assert table["encoder/block_1/scale2"].tensors("official") == {"encoder.blocks.1.gamma_2": (8,)}


def huggingface_model(config, model):
    """Return the model of transformers with the sizes of a configuration."""
    transformers = pytest.importorskip("transformers")
    sizes = dict(
        image_size=(config.height, config.width),
        patch_size=config.tubelet[1],
        num_labels=5,
        num_channels=config.channels,
        num_frames=config.frames,
        tubelet_size=config.tubelet[0],
        hidden_size=config.dim,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        intermediate_size=config.mlp_dim,
        decoder_hidden_size=config.decoder_dim,
        decoder_num_hidden_layers=config.decoder_depth,
        decoder_intermediate_size=config.decoder_mlp_dim,
        decoder_num_attention_heads=config.decoder_heads,
        use_mean_pooling=model == "classifier mean",
    )
    pretraining = model == "pretraining"
    kind = "VideoMAEForPreTraining" if pretraining else "VideoMAEForVideoClassification"
    return getattr(transformers, kind)(transformers.VideoMAEConfig(**sizes))


@clause("WEIGHT-1", "FT-4")
@pytest.mark.parametrize("model", ["pretraining", *CLASSIFIERS])
def test_hugging_faces_files_hold_the_tensors_of_the_table(model, tmp_path):
    config = small_config()
    theirs = huggingface_model(config, model)
    theirs.save_pretrained(tmp_path)
    from safetensors import safe_open

    with safe_open(tmp_path / "model.safetensors", "np") as file:
        stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    tensors = {}
    for weight in expand(config, model, classes=5).values():
        tensors |= weight.tensors("huggingface")
    assert stored == tensors
    held = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    assert held == {huggingface_memory_name(name): shape for name, shape in tensors.items()}
    assert held.keys() != stored.keys()  # else TABLE["huggingface_memory"] is out of date


# The layouts --------------------------------------------------------------------------------------


def converted(weight, modules, kind="weight"):
    """Return our weights converted from tensors of torch modules, by the table's layout."""
    ours = weight.from_upstream([getattr(m, kind).detach().numpy() for m in modules])
    assert ours.shape == weight.shape
    return ours


SMALL = expand(small_config(), "pretraining")
DENSE = {path: weight for path, weight in SMALL.items() if path.endswith("kernel")}
DENSE["classifier's head/kernel"] = expand(small_config(), "classifier mean", 5)["head/kernel"]
CONVOLUTION = DENSE.pop("tubelet_embedding/kernel")


@clause("WEIGHT-2")
@pytest.mark.parametrize("path", DENSE)
def test_a_dense_kernel_from_torch_gives_torchs_products(path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    size_in, size_out = DENSE[path].shape
    linear = torch.nn.Linear(size_in, size_out, bias=False, dtype=torch.float64)
    x = torch.randn(3, size_in, dtype=torch.float64)
    right = linear(x).detach().numpy()
    ours = x.numpy() @ converted(DENSE[path], [linear])
    assert_close(ours, right, "float64")


@clause("WEIGHT-2", "BLOCK-3")
def test_separate_queries_keys_and_values_become_the_thirds_of_one_kernel():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    linears = [torch.nn.Linear(8, 8, bias=False, dtype=torch.float64) for _ in range(3)]
    x = torch.randn(3, 8, dtype=torch.float64)
    qkv = SMALL["encoder/block_0/attention/qkv/kernel"]
    names = [name.split(".")[-2] for name in qkv.names["huggingface"]]
    assert names == ["query", "key", "value"]
    right = np.concatenate([linear(x).detach().numpy() for linear in linears], axis=-1)
    assert_close(x.numpy() @ converted(qkv, linears), right, "float64")


@clause("EMBED-1", "TUBE-1", "TUBE-2")
def test_a_convolution_from_torch_gives_torchs_embedding():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    config = small_config()
    convolution = torch.nn.Conv3d(3, 8, (2, 4, 4), (2, 4, 4), dtype=torch.float64)
    video = torch.randn(2, 3, 4, 8, 12, dtype=torch.float64)  # B C T H W
    right = convolution(video).flatten(2).transpose(1, 2).detach().numpy()
    tokens = reference.tubelets(video.permute(0, 2, 3, 4, 1).numpy(), config.tubelet)
    kernel = converted(CONVOLUTION, [convolution])
    bias = converted(SMALL["tubelet_embedding/bias"], [convolution], "bias")
    assert_close(tokens @ kernel + bias, right, "float64")


def test_the_table_uses_its_vocabulary_and_refuses_other_words():
    assert {entry["layout"] for entry in TABLE["weight"]} == {
        "same",
        "transpose",
        "conv3d",
        "positions",
    }
    with pytest.raises(ValueError, match="Received: 'classifier'"):
        expand(small_config(), "classifier")
    with pytest.raises(ValueError, match=r"v1-s, v1-b.*Received: name='v1-g'"):
        Config.variant("v1-g")


# recipes.toml -------------------------------------------------------------------------------------


def test_a_run_is_its_stages_defaults_with_its_own_values_over_them(monkeypatch):
    pretraining, fine_tuning = recipe_table.runs("pretraining"), recipe_table.runs("fine_tuning")
    run = pretraining["v1-ucf101-b"]
    assert (run["mask_ratio"], run["weight_decay"], run["epochs"]) == (0.75, 0.05, 3200)
    assert "decoder_mask_ratio" not in run and "clip_norm" not in run
    run = fine_tuning["v1-k400-h"]
    assert (run["head_dropout"], run["layer_decay"], run["test_clips"]) == (0.5, 0.75, 5)
    monkeypatch.setitem(recipe_table.TABLE["fine_tuning"], "new", {"unknown": ["head_dropout"]})
    run = recipe_table.runs("fine_tuning")["new"]
    assert "head_dropout" not in run and run["drop_path"] == 0.1  # unknown values have no default


def test_every_published_run_is_read_from_a_script_of_its_own():
    sources = []
    for stage, count in {"pretraining": 9 + 4, "fine_tuning": 9 + 16}.items():  # V1's and V2's
        runs = recipe_table.TABLE[stage]
        assert len(runs) == count
        for name, run in runs.items():
            version, source = name[:2].upper(), run["source"]
            assert re.fullmatch(rf"{version}@[0-9a-f]{{7}} scripts/\S+\.sh", source), name
            assert "unknown" not in run and run.get("unchecked", ["top_1"]) == ["top_1"], name
            sources.append(source)
    assert len(set(sources)) == len(sources)


@pytest.mark.parametrize("stage", recipe_table.STAGES)
def test_every_run_states_its_source_what_it_trains_and_only_known_keys(stage):
    runs, own = recipe_table.runs(stage), recipe_table.TABLE[stage]
    meta = {
        "source",
        "unchecked",
        "unknown",
        "variant",
        "data",
        "epochs",
        "batch_size",
        "clip_norm",
    }
    meta |= {"base_learning_rate", "decoder_mask_ratio", "start", "classes", "top_1"}
    known = meta | recipe_table.TABLE["defaults"][stage].keys()
    for name, run in runs.items():
        assert run.keys() <= known, name
        assert run["variant"] in VARIANTS and run["variant"][:2] == name[:2], name
        assert run["epochs"] > run["warmup_epochs"] and run["base_learning_rate"] > 0, name
        assert set(run.get("unchecked", [])) <= own[name].keys() - {"source"}, name
        assert run["batch_size"] > 0, name


def test_fine_tuning_starts_from_a_run_of_the_same_model():
    for name, run in recipe_table.runs("fine_tuning").items():
        stage, start = run["start"].split(".")
        before = recipe_table.runs(stage)[start]
        assert before["variant"] == run["variant"], name
        assert 0 < run.get("top_1", 1) < 100 and run["classes"] > 1, name
        uniform = run["data"] == "SSv2"  # no flips: classes depend on left and right
        assert (run["sampling"] == "uniform") == uniform == (run["flip_probability"] == 0), name
        assert (run["test_clips"], run["test_crops"]) == ((2, 3) if uniform else (5, 3)), name
