"""Models that transformers builds and saves, with the outputs that it computes from them."""

import numpy as np
import torch
from transformers import (
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
)

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
MODELS = {
    "pretraining": VideoMAEForPreTraining,
    "classifier": VideoMAEForVideoClassification,
    "encoder": VideoMAEModel,
}
SMALL = dict(
    image_size=32,
    patch_size=8,
    num_frames=4,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=80,
    decoder_hidden_size=24,
    decoder_num_hidden_layers=1,
    decoder_num_attention_heads=3,
    decoder_intermediate_size=56,
)


def published(width, heads, decoder_width, decoder_heads):
    """Return settings with the widths of a published variant and one block in each stack."""
    return dict(
        image_size=32,
        patch_size=16,
        num_frames=4,
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        decoder_hidden_size=decoder_width,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=decoder_heads,
        decoder_intermediate_size=4 * decoder_width,
        use_mean_pooling=False,
    )


def build(kind, seed=0, sigma=0.1, **settings):
    """Build a model in inference mode, its weights normal around their initial values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # seeds the draws of transformers
        model = MODELS[kind](VideoMAEConfig(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += sigma * torch.randn(parameter.shape, generator=generator)
    return model


def random_video(config, clips=2, seed=0):
    """Draw a video: uint8 (B, T, H, W, C)."""
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    shape = (clips, config.num_frames, height, width, config.num_channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def pixel_values(video):
    """Return normalised clips as the processor of transformers prepares them: (B, T, C, H, W)."""
    mean, std = (MEAN, STD) if video.shape[-1] == 3 else (0.0, 1.0)
    normal = (video / 255 - mean) / std
    return torch.from_numpy(normal.transpose(0, 1, 4, 2, 3).astype("float32"))


def masks(tokens, clips=2, seed=0):
    """Draw the sorted ids of a quarter of the tokens, and of the rest."""
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(tokens) for _ in range(clips)]
    visible = np.stack([np.sort(order[: tokens // 4]) for order in orders]).astype("int32")
    decoded = np.stack([np.sort(order[tokens // 4 :]) for order in orders]).astype("int32")
    return visible, decoded


def run(model, video, visible=None):
    """Return (outputs, loss). The loss is None without masks."""
    with torch.no_grad():
        if visible is None:
            output = model(pixel_values(video))
            return (output.logits if "logits" in output else output[0]).numpy(), None
        tokens = model.videomae.embeddings.num_patches
        masked = np.ones((len(video), tokens), bool)
        np.put_along_axis(masked, visible, False, axis=1)
        output = model(pixel_values(video), bool_masked_pos=torch.from_numpy(masked))
        return output.logits.numpy(), float(output.loss)
