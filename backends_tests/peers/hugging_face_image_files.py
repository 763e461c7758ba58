"""Image models (ViT, ViTMAE) that transformers builds and saves, with the outputs that it computes."""

import json

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from transformers import (
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
    ViTModel,
)
from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

MODELS = {
    "ViT": (ViTModel, ViTConfig),
    "ViT classifier": (ViTForImageClassification, ViTConfig),
    "MAE": (ViTMAEForPreTraining, ViTMAEConfig),
    "MAE encoder": (ViTMAEModel, ViTMAEConfig),
}
# Values in preprocessor_config.json of the published models.
MEAN_STD = {
    "vit": ((0.5,) * 3, (0.5,) * 3),
    "vit_mae": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
SMALL = dict(
    image_size=32,
    patch_size=8,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=80,
)
DECODER = dict(
    decoder_hidden_size=24,
    decoder_num_hidden_layers=1,
    decoder_num_attention_heads=3,
    decoder_intermediate_size=56,
)
BASE = dict(
    image_size=32,
    patch_size=16,
    hidden_size=768,
    num_hidden_layers=1,
    num_attention_heads=12,
    intermediate_size=3072,
)
BASE_DECODER = dict(decoder_num_hidden_layers=1)  # the other fields keep their defaults


def table(side, width):
    """Return the position table of released MAE files, (1, 1 + N, D): transformers' with halves swapped."""
    rows = build_2d_sinusoidal_position_embedding(side, side, width, cls_token=True)
    half = width // 2
    return torch.cat([rows[:, half:], rows[:, :half]], dim=1)[None]


def build(name, seed=0, sigma=0.1, **settings):
    """Build a model in inference mode with random weights and key biases; MAE keeps its position tables."""
    generator = torch.Generator().manual_seed(seed)
    kind, config = MODELS[name]
    model = kind(config(**settings)).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if model.config.model_type == "vit_mae" and "pos" in key:
                side = model.config.image_size // model.config.patch_size
                parameter.copy_(table(side, parameter.shape[-1]))  # transformers 5.23 leaves zeros
            else:
                parameter += sigma * torch.randn(parameter.shape, generator=generator)
    return model


def save(model, folder):
    """Save a model as transformers does, with the settings of its image processor."""
    model.save_pretrained(folder)
    mean, std = MEAN_STD[model.config.model_type]
    values = {"image_mean": mean, "image_std": std, "do_normalize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))


def rename(folder, old, new):
    """Rename tensors by replacing parts of their names."""
    file = folder / "model.safetensors"
    save_file({name.replace(old, new): value for name, value in load_file(file).items()}, file)


def random_images(config, count=2, seed=0):
    """Draw images: uint8 (B, 1, H, W, C)."""
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    shape = (count, 1, height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def pixel_values(config, video):
    """Return normalised images: (B, C, H, W)."""
    mean, std = MEAN_STD[config.model_type]
    normal = (video[:, 0] / 255 - np.array(mean)) / np.array(std)
    return torch.from_numpy(normal.transpose(0, 3, 1, 2))


def run(model, video, visible=None, **named):
    """Return (outputs, loss): for MAE, outputs of every token and its loss; otherwise the loss is None.

    MAE's encoder sees the tokens `visible` (B, V), by default all tokens in order.
    """
    pixels = pixel_values(model.config, video).to(model.dtype)
    if model.config.model_type == "vit_mae":
        tokens = (model.config.image_size // model.config.patch_size) ** 2
        noise = np.tile(np.arange(tokens, dtype="float32"), (len(video), 1))
        model.config.mask_ratio = 0.0
        if visible is not None:
            # the tokens with the lowest noise stay visible
            np.put_along_axis(noise, visible, -1.0, axis=1)
            model.config.mask_ratio = 1 - visible.shape[1] / tokens
        named["noise"] = torch.from_numpy(noise)
    with torch.no_grad():
        output = model(pixels, **named)
    loss = output.get("loss")
    values = output.logits if "logits" in output else output.last_hidden_state
    return values.numpy(), None if loss is None else float(loss)
