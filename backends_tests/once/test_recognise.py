"""Tests of identifying the model in a file, applying its settings, and refusals; with real files."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends_tests.compare import assert_close
from backends_tests.profiles import examples
from backends_tests.upstream_files import (
    hugging_face_settings,
    small,
    tensors,
    without,
    write,
    write_torch,
)
from spec.position_reference import sinusoid_positions
from vmae_keras import VideoMAEConfig
from vmae_keras.config import IMAGENET_MEAN, IMAGENET_STD
from vmae_keras.runs.model_files import read_stored
from vmae_keras.weights.source import locate
from vmae_keras.weights.tensor_files import WeightsError

TWO = {"heads": 2, "decoder_heads": 2}
MODELS = {  # model in the table -> kind, pooling
    "pretraining": ("pretraining", None),
    "classifier mean": ("classifier", "mean"),
    "classifier first": ("classifier", "first"),
}
FILES = [
    ("official", "pretraining"),
    ("official_classifier", "classifier mean"),
    ("official_classifier", "classifier first"),
    ("huggingface", "pretraining"),
    ("huggingface", "classifier mean"),
    ("huggingface", "classifier first"),
    ("mmaction2", "classifier mean"),
    ("mmaction2", "classifier first"),
]
HUGGING_FACE = {"layer_norm_epsilon": 1e-12, "last_norm_epsilon": 1e-5}


def settings_of(upstream, config, **changes):
    return hugging_face_settings(config, **changes) if upstream == "huggingface" else None


def two(kind):
    """Return overrides for the settings that shapes do not show."""
    return TWO if kind == "pretraining" else {"heads": 2}


def holds(stored, expected):
    """Return whether a model holds exactly these weights."""
    assert stored.tensors.keys() == expected.keys()
    for path, value in expected.items():
        assert stored.tensors[path].shape == value.shape
        read = stored.tensors[path].read()
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, value, err_msg=path)
    return True


def config_of(config, kind, **changes):
    """Return the library's configuration; settings of a decoder missing from a file get their defaults."""
    fields = {name: value for name, value in vars(config).items() if not name.startswith("decoder")}
    if kind == "pretraining":
        fields = vars(config)
    return VideoMAEConfig(**{**fields, **changes})


# Each upstream and model -----------------------------------------------------------------------------


@pytest.mark.clause("WEIGHT-3", "WEIGHT-4")
@pytest.mark.parametrize(("upstream", "model"), FILES)
def test_each_file_is_recognised_and_holds_the_weights_of_the_table(upstream, model, tmp_path):
    config, (kind, pooling) = small(), MODELS[model]
    stored, expected = tensors(config, model, upstream)
    path = write(tmp_path / "x.safetensors", stored, settings_of(upstream, config))
    found = read_stored(path, two(kind))
    assert (found.kind, found.pooling) == (kind, pooling)
    assert found.classes == (None if kind == "pretraining" else 5)
    assert (found.origin, found.source) == (upstream.removesuffix("_classifier"), str(path))
    assert (found.labels, found.notes) == (None, ())
    epsilons = {**HUGGING_FACE, "layer_norm_epsilon": 1e-6} if upstream == "huggingface" else {}
    assert found.config == config_of(config, kind, **epsilons)
    assert holds(found, expected)


OFFICIAL_OPTIONS = {
    "layer scale": {"layer_scale": 1e-5},
    "cosine attention": {"cosine_attention": True},
    "no biases": {"query_value_bias": False},
    "unlike sides, one channel": {
        "tubelet": (1, 7, 16),
        "channels": 1,
        "mean": (0.0,),
        "std": (1.0,),
    },
}


@pytest.mark.clause("WEIGHT-3", "OPTION-2", "BLOCK-6", "BLOCK-8")
@pytest.mark.parametrize("model", ["pretraining", "classifier mean", "classifier first"])
@pytest.mark.parametrize("option", OFFICIAL_OPTIONS)
def test_the_official_options_show_in_the_tensors(option, model, tmp_path):
    config, (kind, _) = small(**OFFICIAL_OPTIONS[option]), MODELS[model]
    upstream = "official" if kind == "pretraining" else "official_classifier"
    stored, expected = tensors(config, model, upstream)
    found = read_stored(write(tmp_path / "x", stored), two(kind))
    assert found.config == config_of(config, kind)
    assert holds(found, expected)


@pytest.mark.clause("WEIGHT-3", "POS-5")
@pytest.mark.parametrize("model", ["classifier mean", "classifier first"])
def test_learned_positions_show_in_the_tensors(model, tmp_path):
    config = small(learned_positions=True)
    stored, expected = tensors(config, model, "official_classifier")
    found = read_stored(write(tmp_path / "x", stored), two("classifier"))
    assert found.config == config_of(config, "classifier") and found.config.learned_positions
    assert holds(found, expected)


@pytest.mark.clause("WEIGHT-3", "OPTION-2", "OPTION-3")
@pytest.mark.parametrize("option", [{"encoder_norm": False}, {"query_value_bias": False}])
def test_the_options_of_transformers_show_in_the_tensors(option, tmp_path):
    config = small(**option, **HUGGING_FACE)
    stored, expected = tensors(config, "pretraining", "huggingface")
    # Their values in config.json are ignored.
    path = write(tmp_path / "x", stored, hugging_face_settings(config, qkv_bias=True))
    found = read_stored(path, {})
    assert found.config == config_of(config, "pretraining")
    assert holds(found, expected)


@pytest.mark.clause("WEIGHT-3")
def test_v1s_file_without_a_decoder_is_an_encoder_and_says_so(tmp_path):
    stored, expected = tensors(small(), "pretraining", "official")
    stored = {name: value for name, value in stored.items() if name.startswith("encoder.")}
    ends = ("bridge/", "mask_token", "decoder/", "head/")
    expected = {path: value for path, value in expected.items() if not path.startswith(ends)}
    found = read_stored(write(tmp_path / "x", stored), TWO)
    assert (found.kind, found.pooling, found.classes) == ("encoder", None, None)
    (note,) = found.notes
    assert "no decoder" in note and "cannot reconstruct" in note
    assert holds(found, expected)


HUB = {
    "img_size": 32,
    "patch_size": 16,
    "embed_dim": 8,
    "depth": 2,
    "num_heads": 4,
    "layer_norm_eps": 1e-5,
    "num_frames": 8,
    "use_mean_pooling": True,
}


@pytest.mark.clause("WEIGHT-3", "WEIGHT-6")
def test_a_v2_hub_repository_is_a_pooled_encoder_with_the_heads_of_its_settings(tmp_path):
    stored, expected = without("head", *tensors(small(), "classifier mean", "official_classifier"))
    stored = {f"model.{name}": value for name, value in stored.items()}
    write(tmp_path / "model.safetensors", stored, {"model_config": HUB})
    found = read_stored(tmp_path, {})
    assert (found.kind, found.pooling, found.notes) == ("encoder", "mean", ())
    assert found.config == config_of(
        small(heads=4, frames=8, height=32, width=32, layer_norm_epsilon=1e-5), "encoder"
    )
    assert holds(found, expected)


@pytest.mark.clause("WEIGHT-3")
@pytest.mark.parametrize("norm", [True, False])
def test_a_bare_model_of_transformers_is_an_encoder(norm, tmp_path):
    config = small(**HUGGING_FACE, encoder_norm=norm)
    stored, expected = tensors(config, "pretraining", "huggingface")
    stored = {
        name.removeprefix("videomae."): value
        for name, value in stored.items()
        if name.startswith("videomae.")
    }
    ends = ("bridge/", "mask_token", "decoder/", "head/")
    expected = {path: value for path, value in expected.items() if not path.startswith(ends)}
    write(tmp_path / "model.safetensors", stored, hugging_face_settings(config))
    found = read_stored(tmp_path, {})
    assert (found.kind, found.pooling, found.notes) == ("encoder", None, ())
    assert found.config == config_of(config, "encoder")
    assert holds(found, expected)


@pytest.mark.clause("WEIGHT-3")
def test_names_of_transformers_memory_are_those_of_its_files(tmp_path):
    config = small()
    stored, expected = tensors(config, "classifier mean", "huggingface")
    held = {
        name.replace("q_bias", "query.bias").replace("v_bias", "value.bias"): value
        for name, value in stored.items()
    }
    assert len(held.keys() - stored.keys()) == 4  # two per block
    path = write(tmp_path / "x", held, hugging_face_settings(config))
    assert holds(read_stored(path, {}), expected)


@pytest.mark.clause("WEIGHT-3")
@pytest.mark.parametrize(("upstream", "model"), FILES)
@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod.", "mixed"])
def test_wrappers_of_training_are_left_away(wrapper, upstream, model, tmp_path):
    stored, expected = tensors(small(), model, upstream)
    before = ["module.", "", "_orig_mod.module."] if wrapper == "mixed" else [wrapper]
    wrapped = {
        before[i % len(before)] + name: value for i, (name, value) in enumerate(stored.items())
    }
    path = write(tmp_path / "x", wrapped, settings_of(upstream, small()))
    assert holds(read_stored(path, TWO), expected)


@pytest.mark.clause("WEIGHT-3")
@pytest.mark.parametrize("wrapper", ["model.", "backbone.", "module.model.backbone."])
@pytest.mark.parametrize("model", MODELS)
def test_models_that_hold_the_official_model_are_left_away(model, wrapper, tmp_path):
    upstream = "official" if model == "pretraining" else "official_classifier"
    stored, expected = tensors(small(), model, upstream)
    path = write(tmp_path / "x", {wrapper + name: value for name, value in stored.items()})
    assert holds(read_stored(path, TWO), expected)


@pytest.mark.clause("WEIGHT-3")
@pytest.mark.parametrize(("upstream", "model"), FILES)
def test_files_of_16_bits_are_read_as_float32(upstream, model, tmp_path):
    stored, expected = tensors(small(), model, upstream)
    stored = {name: value.astype("float16") for name, value in stored.items()}
    expected = {path: v.astype("float16").astype("float32") for path, v in expected.items()}
    path = write(tmp_path / "x", stored, settings_of(upstream, small()))
    assert holds(read_stored(path, TWO), expected)


# mmaction2's constant --------------------------------------------------------------------------------


def mmaction2(folder, positions):
    stored, expected = tensors(small(), "classifier mean", "mmaction2")
    path = write(folder / "x", {**stored, "backbone.pos_embed": positions})
    return path, expected


@pytest.mark.clause("WEIGHT-3", "POS-1")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_mmaction2s_stored_sinusoid_is_no_weight(dtype, tmp_path):
    positions = sinusoid_positions(8 * 14 * 14, 8)[None].astype(dtype)
    path, expected = mmaction2(tmp_path, positions)
    assert holds(read_stored(path, TWO), expected)


@pytest.mark.clause("WEIGHT-3")
@pytest.mark.parametrize(
    "wrong",
    [
        lambda table: table + 0.02,
        lambda table: table[:, ::-1],
        lambda table: table[:, :-1],
        lambda table: table[0],
    ],
    ids=["moved", "reversed", "too short", "two axes"],
)
def test_other_positions_of_mmaction2_are_refused(wrong, tmp_path):
    positions = wrong(sinusoid_positions(8 * 14 * 14, 8)[None].astype("float32"))
    path, _ = mmaction2(tmp_path, positions)
    with pytest.raises(WeightsError) as caught:
        read_stored(path, TWO)
    assert faults(caught) == {"not the fixed positions of (8, 14, 14) tokens: backbone.pos_embed"}


def test_positions_of_an_absurd_grid_are_refused_before_any_are_computed(tmp_path):
    stored, _ = tensors(small(), "classifier mean", "mmaction2")
    stored["backbone.pos_embed"] = sinusoid_positions(8 * 14 * 14, 8)[None].astype("float32")
    path = write_torch(tmp_path / "x.pth", stored, num_frames=10**4)
    with pytest.raises(WeightsError, match=r"not the fixed positions of \(5000, 14, 14\)"):
        read_stored(path, TWO)


# Training checkpoints --------------------------------------------------------------------------------


@pytest.mark.clause("WEIGHT-3", "WEIGHT-6")
def test_the_arguments_of_a_pretraining_run_become_the_configuration(tmp_path):
    config = small(frames=8, height=32, width=32, norm_pix=False, layer_scale=0.1)
    stored, expected = tensors(config, "pretraining", "official")
    path = write_torch(
        tmp_path / "checkpoint-3.pth",
        stored,
        num_frames=8,
        input_size=32,
        normlize_target=False,
        init_values=0.1,
        lr=1e-3,
    )
    found = read_stored(path, TWO)
    assert found.config == config_of(config, "pretraining")
    assert (found.notes, holds(found, expected)) == ((), True)


@pytest.mark.parametrize("container", ["model", "module", "state_dict"])
def test_the_arguments_of_a_fine_tuning_run_count_segments(container, tmp_path):
    stored, expected = tensors(small(), "classifier mean", "official_classifier")
    path = write_torch(
        tmp_path / "x.pth", stored, container, num_frames=8, num_segments=3, input_size=(32, 48)
    )
    found = read_stored(path, two("classifier"))
    assert found.config == config_of(small(frames=24, height=32, width=48), "classifier")
    assert holds(found, expected)


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_frames": -1},
        {"num_frames": "16"},
        {"num_frames": 7},
        {"num_frames": "16", "num_segments": 10**12},
        {"num_frames": [16], "num_segments": 10**12},
        {"num_segments": "x"},
        {"num_frames": 10**12, "num_segments": "16"},
        {"input_size": "big"},
        {"input_size": [224]},
        {"input_size": -16},
        {"input_size": 225},
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, tmp_path):
    stored, _ = tensors(small(), "classifier mean", "official_classifier")
    path = write_torch(tmp_path / "x.pth", stored, **arguments)
    with pytest.raises(WeightsError, match=r"x\.pth: .*(must|unpack)"):
        read_stored(path, TWO)


# Faults of the tensors -------------------------------------------------------------------------------

HEAD = r"(head|classifier|cls_head\.fc_cls)\..*"
FIRST = r"patch_embed\w*\.proj\w*\.weight"
DEEP = small(depth=3, decoder_depth=3)
# Only one of them may be wrong, since the rest must identify the model.
EVIDENCE = [
    r"mask_token|decoder\.norm\..*",
    r"(encoder\.|videomae\.|backbone\.)?(norm|layernorm)\.(weight|bias)|(backbone\.)?fc_norm\..*",
    HEAD,
]


def evidence(name):
    """Return the same evidence for two tensors that can replace each other."""
    for pattern in EVIDENCE:
        if re.fullmatch(pattern, name):
            return pattern
    return re.sub(r"\.\d+\.", ".{i}.", name)


def faults(caught):
    """Return the lines of an error after its first one."""
    return set(str(caught.value).split("\n  ")[1:])


def broken(names):
    """Return ({name: its fault}, added names) with at least one fault."""
    # The first weight identifies the upstream.
    names = sorted(name for name in names if not re.search(FIRST, name))
    added = ["optimizer", "head2.weight", "encoder.pos_embed", "pos_embed2"]
    return st.tuples(
        st.lists(
            st.tuples(st.sampled_from(names), st.sampled_from(["missing", "longer", "deeper"])),
            max_size=6,
            unique_by=lambda fault: evidence(fault[0]),
        ).map(dict),
        st.sets(st.sampled_from(added)),
    ).filter(any)


@pytest.mark.clause("WEIGHT-3")
@pytest.mark.parametrize(("upstream", "model"), FILES)
def test_all_faults_are_listed_in_one_error_and_no_others(upstream, model, tmp_path):
    whole, _ = tensors(DEEP, model, upstream)

    @examples(50)
    @given(broken(whole))
    def check(drawn):
        wrong, added = drawn
        stored = {**whole, **dict.fromkeys(added, np.zeros(3, "float32"))}
        lines = {f"unexpected: {name}" for name in added}
        for name, how in wrong.items():
            value = stored.pop(name)
            if how == "missing":
                lines.add(f"missing: {name}")
            else:
                # A longer head would mean more classes.
                longer = how == "longer" and not re.fullmatch(HEAD, name)
                stored[name] = np.append(value, value[:1], 0) if longer else value[..., None]
                lines.add(f"shape {stored[name].shape}, wanted {value.shape}: {name}")
        path = write(tmp_path / "x", stored, settings_of(upstream, DEEP))
        with pytest.raises(WeightsError, match="does not hold one whole VideoMAE") as caught:
            read_stored(path, TWO)
        assert faults(caught) == lines

    check()


@pytest.mark.clause("WEIGHT-3")
@pytest.mark.parametrize(("upstream", "model"), FILES)
def test_a_block_that_is_missing_is_listed_whole(upstream, model, tmp_path):
    stored, _ = tensors(DEEP, model, upstream)
    inner = re.compile(r"(?!decoder).*(blocks|layer)\.1\..*")
    gone = {name for name in stored if inner.fullmatch(name)}
    assert len(gone) > 10
    left = {name: value for name, value in stored.items() if name not in gone}
    path = write(tmp_path / "x", left, settings_of(upstream, DEEP))
    with pytest.raises(WeightsError) as caught:
        read_stored(path, TWO)
    assert faults(caught) == {f"missing: {name}" for name in gone}


@pytest.mark.clause("WEIGHT-3")
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_one_mis_shaped_block_does_not_decide_the_sizes(part, tmp_path):
    stored, _ = tensors(DEEP, "pretraining", "official")
    name = f"{part}.blocks.0.mlp.fc1.weight"
    hidden, width = stored[name].shape
    path = write(tmp_path / "x", {**stored, name: np.zeros((hidden + 1, width), "float32")})
    with pytest.raises(WeightsError) as caught:
        read_stored(path, TWO)
    assert faults(caught) == {f"shape {(hidden + 1, width)}, wanted {(hidden, width)}: {name}"}


@pytest.mark.clause("WEIGHT-3")
def test_the_parts_of_one_weight_are_judged_apart(tmp_path):
    stored, _ = tensors(small(), "pretraining", "huggingface")
    part = "videomae.encoder.layer.1.attention.attention"
    del stored[f"{part}.key.weight"]
    stored[f"{part}.query.weight"] = np.zeros((24, 8), "float32")
    path = write(tmp_path / "x", stored, hugging_face_settings(small()))
    with pytest.raises(WeightsError) as caught:
        read_stored(path, {})
    assert faults(caught) == {
        f"missing: {part}.key.weight",
        f"shape (24, 8), wanted (8, 8): {part}.query.weight",
    }


def deepspeed(tensors, **changes):
    """Write a `mp_rank_00_model_states.pt`, as DeepSpeed's engine does in V2's fine-tuning."""
    shapes = {name: value.shape for name, value in tensors.items()}
    return {
        "module": tensors,
        "buffer_names": [],
        "optimizer": None,
        "param_shapes": [shapes],
        "frozen_param_shapes": None,
        "shared_params": {},
        "frozen_param_fragments": None,
        "lr_scheduler": None,
        "data_sampler": None,
        "random_ltd": None,
        "sparse_tensor_module_names": set(),
        "skipped_steps": 0,
        "global_steps": 7,
        "global_samples": 448,
        "dp_world_size": 8,
        "mp_world_size": 1,
        "ds_version": "0.9.1",
        "ds_config": {"train_batch_size": 64, "fp16": {"enabled": True}, "betas": [0.9, 0.999]},
        "epoch": 29,
        **changes,
    }


@pytest.mark.clause("WEIGHT-3")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("names", [set(), {"embedding", "head"}])
def test_a_checkpoint_of_deepspeed_is_read(names, zipped, tmp_path):
    import torch

    stored, expected = tensors(small(), "classifier mean", "official_classifier")
    module = {name: torch.from_numpy(value) for name, value in stored.items()}
    content = deepspeed(module, sparse_tensor_module_names=names)
    path = tmp_path / "mp_rank_00_model_states.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert holds(read_stored(path, TWO), expected)


def test_a_made_up_number_of_a_block_costs_nothing(tmp_path):
    stored, _ = tensors(small(), "pretraining", "official")
    stored["encoder.blocks.99999999999.norm1.weight"] = np.zeros(8, "float32")
    path = write(tmp_path / "x", stored)
    with pytest.raises(WeightsError, match=f"number 99999999999. Received: {len(stored)} tensors"):
        read_stored(path, TWO)


def test_an_embedding_alone_is_no_model(tmp_path):
    kernel = np.zeros((8, 3, 2, 16, 16), "float32")
    path = write(tmp_path / "x", {"patch_embed.proj.weight": kernel})
    with pytest.raises(WeightsError, match="`depth` must be a positive integer"):
        read_stored(path, TWO)


def test_an_empty_embedding_of_endless_channels_costs_nothing(tmp_path):
    kernel = np.zeros((0, 10**12, 2, 16, 16), "float32")
    path = write(tmp_path / "x", {"patch_embed.proj.weight": kernel})
    with pytest.raises(WeightsError, match=r"empty\. Received: shape \(0, 1000000000000, 2"):
        read_stored(path, TWO)


def test_a_scalar_head_is_a_mis_shaped_one(tmp_path):
    stored, _ = tensors(small(), "classifier mean", "official_classifier")
    path = write(tmp_path / "x", {**stored, "head.bias": np.float32(1)})
    with pytest.raises(WeightsError) as caught:
        read_stored(path, TWO)
    assert faults(caught) == {"shape (), wanted (5,): head.bias"}


@pytest.mark.clause("WEIGHT-3")
def test_one_weight_under_two_names_is_refused(tmp_path):
    stored, _ = tensors(small(), "pretraining", "official")
    stored["module.mask_token"] = stored["mask_token"]
    with pytest.raises(
        WeightsError, match=r"one weight twice: (module\.)?mask_token and"
    ) as caught:
        read_stored(write(tmp_path / "x", stored), TWO)
    assert "module.mask_token" in str(caught.value)


@pytest.mark.clause("WEIGHT-3")
@pytest.mark.parametrize("second", ["module.", "teacher.", "huggingface"])
def test_two_models_in_one_file_are_refused(second, tmp_path):
    stored, _ = tensors(small(), "pretraining", "official")
    if second == "huggingface":
        other, _ = tensors(small(), "pretraining", "huggingface")
        other = without(("mask_token", "decoder", "encoder_to"), other)[0]
    else:
        other = {second + name: value for name, value in stored.items()}
    with pytest.raises(WeightsError, match="more than one model: ") as caught:
        read_stored(write(tmp_path / "x", {**stored, **other}), TWO)
    for name in (*stored, *other):
        if re.search(FIRST, name):
            assert name in str(caught.value)


def test_an_unknown_prefix_is_named(tmp_path):
    stored, _ = tensors(small(), "pretraining", "official")
    stored = {f"teacher.{name}": value for name, value in stored.items()}
    first = r"teacher\.encoder\.patch_embed\.proj\.weight"
    with pytest.raises(WeightsError, match=f"unknown prefix .*Received: {first}, wanted encoder"):
        read_stored(write(tmp_path / "x", stored), TWO)


def test_what_is_no_videomae_is_refused_with_its_first_tensors(tmp_path):
    path = write(tmp_path / "x", {"conv1.weight": np.zeros(1), "bn1.bias": np.zeros(1)})
    with pytest.raises(WeightsError, match=r"no tubelet embedding .*: bn1\.bias, conv1\.weight\."):
        read_stored(path, {})


def test_an_image_model_is_refused_by_its_embedding(tmp_path):
    stored, _ = tensors(small(), "classifier mean", "official_classifier")
    kernel = stored["patch_embed.proj.weight"][:, :, 0]
    path = write(tmp_path / "x", {**stored, "patch_embed.proj.weight": kernel})
    with pytest.raises(WeightsError, match=r"`tubelet` must be three .*tubelet=\(16, 16\)"):
        read_stored(path, TWO)


# Heads -----------------------------------------------------------------------------------------------


def wide(width, decoder_width, upstream, **changes):
    """Return tensors and configuration with one block and the width of a published model."""
    config = small(
        dim=width,
        depth=1,
        mlp_dim=4,
        decoder_dim=decoder_width,
        decoder_depth=1,
        decoder_mlp_dim=4,
        tubelet=(2, 4, 4),
        **changes,
    )
    return tensors(config, "pretraining", upstream)[0], config


@pytest.mark.clause("WEIGHT-6")
@pytest.mark.parametrize(
    ("width", "heads", "decoder_width", "decoder_heads"),
    [
        (384, 6, 192, 3),
        (768, 12, 384, 6),
        (1024, 16, 512, 8),
        (1280, 16, 640, 8),
        (1408, 16, 512, 8),
    ],
)
def test_heads_are_the_published_ones_of_the_width(
    width, heads, decoder_width, decoder_heads, tmp_path
):
    stored, _ = wide(width, decoder_width, "official")
    path = write(tmp_path / "x", stored)
    found = read_stored(path, {})
    assert (found.config.heads, found.config.decoder_heads) == (heads, decoder_heads)
    assert found.notes == ()
    own = read_stored(path, {"heads": 4, "decoder_heads": 2}).config
    assert (own.heads, own.decoder_heads) == (4, 2)


@pytest.mark.clause("WEIGHT-6")
def test_sixteen_heads_of_a_vit_s_are_taken_as_six_and_said(tmp_path):
    stored, config = wide(384, 192, "huggingface")
    path = write(tmp_path / "x", stored, hugging_face_settings(config, num_attention_heads=16))
    found = read_stored(path, {})
    (note,) = found.notes
    assert found.config.heads == 6
    assert "16 heads to a width of 384" in note and "Pass heads=16" in note
    for heads in (16, 6, 12):
        own = read_stored(path, {"heads": heads})
        assert (own.config.heads, own.notes) == (heads, ())


@pytest.mark.clause("WEIGHT-6")
@pytest.mark.parametrize(("width", "heads"), [(384, 12), (384, 6), (768, 16), (128, 16)])
def test_other_heads_of_the_settings_are_followed(width, heads, tmp_path):
    stored, config = wide(width, 192, "huggingface")
    values = hugging_face_settings(config, num_attention_heads=heads, decoder_num_attention_heads=6)
    found = read_stored(write(tmp_path / "x", stored, values), {})
    assert (found.config.heads, found.config.decoder_heads, found.notes) == (heads, 6, ())


@pytest.mark.clause("WEIGHT-6")
def test_heads_of_an_unknown_width_have_64_channels_and_are_said(tmp_path):
    stored, _ = wide(320, 256, "official")
    found = read_stored(write(tmp_path / "x", stored), {})
    assert (found.config.heads, found.config.decoder_heads) == (5, 4)
    assert [note.split(",")[0] for note in found.notes] == [
        "heads=5 is assumed",
        "decoder_heads=4 is assumed",
    ]


@pytest.mark.clause("WEIGHT-6")
def test_heads_show_in_the_scale_of_cosine_attention(tmp_path):
    """Check a width without an official number of heads; the tensors override the settings."""
    stored, _ = wide(40, 36, "official", heads=4, decoder_heads=3, cosine_attention=True)
    found = read_stored(write(tmp_path / "x", stored), {})
    assert (found.config.heads, found.config.decoder_heads, found.notes) == (4, 3, ())
    found = read_stored(write(tmp_path / "x", stored, {"model_config": {"num_heads": 2}}), {})
    assert (found.config.heads, found.config.decoder_heads) == (4, 3)
    assert [note.split(",")[0] for note in found.notes] == ["config.json says num_heads=2"]


@pytest.mark.clause("WEIGHT-6")
@pytest.mark.parametrize(
    ("width", "decoder_width", "asked"), [(40, 64, "heads"), (64, 40, "decoder_heads")]
)
def test_heads_of_an_odd_width_are_asked_for(width, decoder_width, asked, tmp_path):
    stored, _ = wide(width, decoder_width, "official")
    path = write(tmp_path / "x", stored)
    with pytest.raises(WeightsError, match=rf"width of 40 is split into\. Pass {asked}=\.\.\."):
        read_stored(path, {})
    assert getattr(read_stored(path, {asked: 5}).config, asked) == 5


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path):
    stored, _ = tensors(small(), "pretraining", "official")
    with pytest.raises(WeightsError, match="`dim` must be a multiple of `heads`"):
        read_stored(write(tmp_path / "x", stored), {"heads": 3, "decoder_heads": 2})


# config.json -----------------------------------------------------------------------------------------


def hugging_face(folder, model="pretraining", preprocessing=None, **changes):
    """Write a small model of transformers with these settings; return the result of reading it."""
    stored, _ = tensors(small(), model, "huggingface")
    values = hugging_face_settings(small(), **changes)
    write(folder / "model.safetensors", stored, values, preprocessing)
    return read_stored(folder, {})


@pytest.mark.clause("WEIGHT-5", "OPTION-1", "OPTION-4")
@pytest.mark.parametrize(
    ("name", "value", "fields"),
    [
        ("num_frames", 8, {"frames": 8}),
        ("image_size", 64, {"height": 64, "width": 64}),
        ("image_size", [32, 48], {"height": 32, "width": 48}),
        ("num_attention_heads", 4, {"heads": 4}),
        ("decoder_num_attention_heads", 3, {"decoder_heads": 3}),
        ("hidden_act", "gelu_new", {"activation": "gelu_tanh"}),
        ("hidden_act", "gelu_pytorch_tanh", {"activation": "gelu_tanh"}),
        ("hidden_act", "swish", {"activation": "silu"}),
        ("hidden_act", "relu", {"activation": "relu"}),
        ("layer_norm_eps", 1e-3, {"layer_norm_epsilon": 1e-3}),
        ("norm_pix_loss", False, {"norm_pix": False}),
        ("hidden_size", 99, {}),
        ("intermediate_size", 99, {}),
        ("decoder_hidden_size", 99, {}),
        ("patch_size", 99, {}),
        ("qkv_bias", False, {}),
    ],
)
def test_settings_of_transformers_are_followed_but_for_sizes(name, value, fields, tmp_path):
    found = hugging_face(tmp_path, **{name: value})
    expected = {"last_norm_epsilon": 1e-5, **fields}
    assert found.config == config_of(small(), "pretraining", **expected)
    assert found.notes == ()


@pytest.mark.clause("WEIGHT-5")
def test_without_settings_the_defaults_of_transformers_are_assumed_and_said(tmp_path):
    stored, expected = tensors(small(), "pretraining", "huggingface")
    found = read_stored(write(tmp_path / "x", stored), TWO)
    assert found.config == config_of(small(), "pretraining", **HUGGING_FACE)
    (note,) = found.notes
    assert note.startswith("there is no config.json beside the file")
    assert holds(found, expected)


@pytest.mark.clause("WEIGHT-5")
@pytest.mark.parametrize("name", ["num_hidden_layers", "decoder_num_hidden_layers"])
def test_settings_that_contradict_the_number_of_blocks_are_said(name, tmp_path):
    found = hugging_face(tmp_path, **{name: 7})
    assert (found.config.depth, found.config.decoder_depth) == (2, 2)
    assert found.notes == (f"config.json says {name}=7, but the file has 2 blocks, which are used",)


@pytest.mark.clause("WEIGHT-5")
def test_dropout_that_has_no_effect_is_said(tmp_path):
    (note,) = hugging_face(
        tmp_path, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.0
    ).notes
    assert "hidden_dropout_prob=0.1 has no effect" in note
    assert "attention_probs" not in note


def test_settings_of_a_decoder_that_is_not_there_are_not_asked(tmp_path):
    changes = {"decoder_hidden_size": 40, "decoder_num_attention_heads": 5}
    found = hugging_face(tmp_path, "classifier mean", **changes, decoder_num_hidden_layers=9)
    assert (found.kind, found.notes) == ("classifier", ())


NONSENSE = [
    ("image_size", "big"),
    ("image_size", None),
    ("image_size", [224]),
    ("image_size", -16),
    ("image_size", 225),
    ("image_size", 224.0),
    ("image_size", {"height": 224, "width": 224}),
    ("image_size", 10**300 + 1),
    ("image_size", True),
    ("num_frames", -1),
    ("num_frames", None),
    ("num_frames", "16"),
    ("num_frames", 15),
    ("num_frames", []),
    ("num_attention_heads", 0),
    ("num_attention_heads", None),
    ("num_attention_heads", "two"),
    ("num_attention_heads", 3),
    ("num_attention_heads", 10**100),
    ("hidden_act", "no such"),
    ("hidden_act", None),
    ("hidden_act", ["gelu"]),
    ("hidden_act", {}),
    ("layer_norm_eps", "small"),
    ("layer_norm_eps", None),
    ("layer_norm_eps", [1e-6]),
    ("layer_norm_eps", 10**400),
]


@pytest.mark.clause("WEIGHT-5")
@pytest.mark.parametrize(
    ("name", "value"), NONSENSE, ids=[f"{name}={value!r:.20}" for name, value in NONSENSE]
)
def test_settings_that_make_no_sense_are_refused(name, value, tmp_path):
    with pytest.raises(WeightsError, match=r"model\.safetensors: its tensors and the settings"):
        hugging_face(tmp_path, **{name: value})


@pytest.mark.parametrize(
    "model",
    [
        None,
        [],
        "base",
        {"num_heads": None},
        {"num_heads": 3},
        {"num_frames": "x"},
        {"img_size": "big"},
    ],
)
def test_settings_of_a_v2_hub_repository_that_make_no_sense_are_refused(model, tmp_path):
    stored, _ = tensors(small(), "classifier mean", "official_classifier")
    path = write(tmp_path / "x", stored, {"model_config": model})
    with pytest.raises(WeightsError, match=r"x: "):
        read_stored(path, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b'{"a": ' + b"[" * 10**6, "cannot be read"),
        (b'{"num_frames": ' + b"9" * 5000 + b"}", "cannot be read"),
        (b"[]", "must hold a JSON object. Received: list"),
        (b"null", "must hold a JSON object. Received: NoneType"),
        (b'"videomae"', "must hold a JSON object. Received: str"),
        (b"{}" + b" " * 4 * 2**20, "is too large for settings. At most 4194304 bytes are read"),
    ],
)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_settings_that_are_no_json_object_are_refused(name, text, message, tmp_path):
    stored, _ = tensors(small(), "pretraining", "huggingface")
    path = write(tmp_path / "x", stored, hugging_face_settings(small()))
    (tmp_path / name).write_bytes(text)
    with pytest.raises(WeightsError, match=rf"{re.escape(name)} {message}"):
        read_stored(path, {})


# Names of classes ------------------------------------------------------------------------------------

LABELS = ["archery", "bowling", "tai chi", "yoga", "zumba"]


def test_names_of_classes_are_taken_in_the_order_of_their_numbers(tmp_path):
    named = {str(i): LABELS[i] for i in (3, 0, 4, 1, 2)}
    found = hugging_face(tmp_path, "classifier mean", id2label=named)
    assert (found.labels, found.notes) == (tuple(LABELS), ())


@pytest.mark.parametrize(
    "named", [{str(i): f"LABEL_{i}" for i in range(5)}, LABELS, None, "archery"]
)
def test_names_that_say_nothing_are_none(named, tmp_path):
    found = hugging_face(tmp_path, "classifier mean", id2label=named)
    assert (found.classes, found.labels, found.notes) == (5, None, ())


@pytest.mark.parametrize(
    "named", [{"0": "a", "1": "b"}, {str(i): "x" for i in range(1, 6)}, {}, {"a": 1}]
)
def test_names_of_another_number_of_classes_are_left_out_and_said(named, tmp_path):
    found = hugging_face(tmp_path, "classifier mean", id2label=named)
    assert found.labels is None
    assert found.notes == (f"ignored {len(named)} class names in config.json, as the head has 5",)


def test_a_model_without_a_head_has_no_names(tmp_path):
    found = hugging_face(tmp_path, id2label={"0": "a"})
    assert (found.labels, found.classes, found.notes) == (None, None, ())


# preprocessor_config.json ----------------------------------------------------------------------------

HALF = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}


@pytest.mark.clause("WEIGHT-5")
@pytest.mark.parametrize(
    ("preprocessing", "mean", "std"),
    [
        (None, IMAGENET_MEAN, IMAGENET_STD),
        ({}, IMAGENET_MEAN, IMAGENET_STD),
        ({"do_resize": True}, IMAGENET_MEAN, IMAGENET_STD),
        (HALF, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
        ({**HALF, "rescale_factor": 1 / 255}, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
        # Twice the pixel values: half of mean and std.
        ({**HALF, "rescale_factor": 2 / 255}, (0.25, 0.2, 0.15), (0.1, 0.15, 0.2)),
        (
            {**HALF, "do_rescale": False},
            np.array([0.5, 0.4, 0.3]) / 255,
            np.array([0.2, 0.3, 0.4]) / 255,
        ),
        ({**HALF, "do_normalize": False}, (0, 0, 0), (1, 1, 1)),
        ({**HALF, "do_normalize": False, "do_rescale": False}, (0, 0, 0), (1 / 255,) * 3),
    ],
)
def test_mean_and_std_are_of_pixels_in_0_to_1(preprocessing, mean, std, tmp_path):
    config = hugging_face(tmp_path, preprocessing=preprocessing).config
    assert_close(config.mean, mean, "float64")
    assert_close(config.std, std, "float64")


def test_pixels_of_one_channel_that_are_not_normalised_stay_as_they_are(tmp_path):
    config = small(channels=1, mean=(0.0,), std=(1.0,))
    stored, _ = tensors(config, "pretraining", "huggingface")
    write(tmp_path / "x", stored, hugging_face_settings(config), {"do_normalize": False})
    found = read_stored(tmp_path / "x", {}).config
    assert (found.mean, found.std) == ((0.0,), (1.0,))


@pytest.mark.parametrize(
    "preprocessing",
    [
        {"image_mean": [0.5]},
        {"image_mean": "grey"},
        {"image_mean": None},
        {"image_std": 0.5},
        {"rescale_factor": 0},
        {"rescale_factor": "1/255"},
        {"rescale_factor": None},
        {"image_mean": [10**400] * 3},
    ],
)
def test_preprocessing_that_makes_no_sense_is_refused(preprocessing, tmp_path):
    with pytest.raises(WeightsError, match=r"model\.safetensors: its tensors and the settings"):
        hugging_face(tmp_path, preprocessing=preprocessing)


# Folders ---------------------------------------------------------------------------------------------

TINY = VideoMAEConfig.variant("tiny", drop_path=0.1)


def run_folder(folder, steps=(9, 10)):
    """Write a run as `vmae pretrain` does, with its other files; return the newest checkpoint's weights."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"config": TINY.to_dict(), "seed": 0}))
    sizes = {field: getattr(TINY, field) for field in vars(small())}
    for step in steps:
        _, expected = tensors(small(**sizes), "pretraining", "official", seed=step)
        beside = {
            "encoder_drop_path/seed_generator_state": np.zeros(2, "int32"),
            "optimizer/adam_w/iteration": np.array(step),
            "optimizer/adam_w/video_mae_mask_token_momentum": np.zeros((1, 1, 16), "float32"),
        }
        ours = {f"video_mae/{path}": value for path, value in expected.items()}
        write(folder / "checkpoints" / f"step-{step:08d}.safetensors", {**ours, **beside})
    return expected


@pytest.mark.clause("WEIGHT-3")
def test_a_run_folder_holds_the_model_of_its_newest_checkpoint(tmp_path):
    expected = run_folder(tmp_path)
    (tmp_path / "checkpoints" / "writing.partial").write_bytes(b"half")
    found = read_stored(tmp_path, {})
    assert (found.kind, found.pooling, found.origin) == ("pretraining", None, "keras")
    assert found.config == TINY
    assert found.source.endswith("step-00000010.safetensors")
    assert holds(found, expected)


def test_a_run_folder_without_a_checkpoint_says_how_to_go_on(tmp_path):
    run_folder(tmp_path, steps=[9])
    (tmp_path / "checkpoints" / "step-00000009.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no checkpoint yet.*vmae pretrain --out .* --resume"):
        read_stored(tmp_path, {})


@pytest.mark.parametrize(
    "settings",
    [{}, {"config": None}, {"config": {"no_such": 1}}, {"config": {"dim": -1}}, {"config": "x"}],
)
def test_a_run_folder_with_broken_settings_is_refused(settings, tmp_path):
    run_folder(tmp_path, steps=[9])
    (tmp_path / "run.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match=r"run\.json describes no VideoMAE"):
        read_stored(tmp_path, {})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"depth": 1}, "unexpected: encoder/block_1/"),
        ({"depth": 3}, "missing: encoder/block_2/"),
        ({"mlp_dim": 12}, "shape .*, wanted .*: encoder/block_0/mlp/hidden/kernel"),
        ({"decoder_depth": 1024}, "missing: decoder/block_1/"),
        ({"query_value_bias": False}, "unexpected: encoder/block_0/attention/q_bias"),
        ({"cosine_attention": True}, "missing: encoder/block_0/attention/log_scale"),
    ],
)
def test_a_run_whose_settings_do_not_fit_its_weights_is_refused(change, fault, tmp_path):
    run_folder(tmp_path, steps=[9])
    settings = {"config": {**TINY.to_dict(), **change}, "seed": 0}
    (tmp_path / "run.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match=rf"(?s)run\.json does not fit the weights.*{fault}"):
        read_stored(tmp_path, {})


@pytest.mark.parametrize("labels", [["a", "b"], ["a"] * 6, []])
def test_a_run_with_other_labels_than_its_head_is_refused(labels, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    sizes = {field: getattr(TINY, field) for field in vars(small())}
    _, stored = tensors(small(**sizes), "classifier mean", "official_classifier")
    classes = len(stored["head/bias"])
    assert classes != len(labels)
    ours = {f"video_classifier/{path}": value for path, value in stored.items()}
    write(tmp_path / "checkpoints" / "step-00000009.safetensors", ours)
    settings = {"stage": "fine-tuning", "config": TINY.to_dict(), "seed": 0}
    (tmp_path / "run.json").write_text(json.dumps({**settings, "labels": labels}))
    with pytest.raises(WeightsError, match=f"names {len(labels)} classes, .* has {classes}"):
        read_stored(tmp_path, {})
    known = [str(number) for number in range(classes)]
    (tmp_path / "run.json").write_text(json.dumps({**settings, "labels": known}))
    assert read_stored(tmp_path, {}).labels == tuple(known)


def test_a_folder_with_nothing_or_with_several_files_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"no model, or several.*It holds nothing\."):
        read_stored(tmp_path, {})
    for name in ("b.pth", "a.pth", "log.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(WeightsError, match=r"It holds a\.pth, b\.pth, log\.txt\. Give the file"):
        read_stored(tmp_path, {})


@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.bin", "x.safetensors"])
def test_the_only_file_of_weights_in_a_folder_is_taken(name, tmp_path):
    stored, expected = tensors(small(), "classifier mean", "official_classifier")
    (tmp_path / "log.txt").write_text("")
    writer = write if name.endswith("safetensors") else write_torch
    writer(tmp_path / name, stored)
    assert holds(read_stored(tmp_path, TWO), expected)


def test_the_usual_name_goes_before_others_in_a_folder(tmp_path):
    stored, expected = tensors(small(), "classifier mean", "official_classifier")
    for name in ("pytorch_model.bin", "a.safetensors"):
        (tmp_path / name).write_bytes(b"")
    write(tmp_path / "model.safetensors", stored)
    assert holds(read_stored(tmp_path, TWO), expected)


def test_an_index_in_a_folder_joins_its_shards(tmp_path):
    stored, expected = tensors(small(), "pretraining", "huggingface")
    shards = [dict(list(stored.items())[i::2]) for i in range(2)]
    for i, shard in enumerate(shards):
        write(tmp_path / f"model-{i}.safetensors", shard, hugging_face_settings(small()))
    places = {name: f"model-{i}.safetensors" for i, shard in enumerate(shards) for name in shard}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    assert holds(read_stored(tmp_path, {}), expected)


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(
        WeightsError, match=r"x\.pth does not exist\. Give a folder, a file, or hf:"
    ):
        locate(tmp_path / "x.pth")
    assert locate(str(tmp_path)) == tmp_path


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    stored, expected = tensors(small(), "classifier mean", "official_classifier")
    found = read_stored(write(tmp_path / "x", stored), TWO)
    write(tmp_path / "x", {name: value + 1 for name, value in stored.items()})
    np.testing.assert_array_equal(found.tensors["head/bias"].read(), expected["head/bias"] + 1)
