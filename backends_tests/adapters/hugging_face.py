"""Conformance-suite adapter for the VideoMAE of Hugging Face transformers, in float32 on the CPU.

All settings except the sizes keep their defaults, as published checkpoints do with `layer_norm_eps`.
Weights are set in memory by name, so no loading code can misread them. (Releases of transformers 5 before
https://github.com/huggingface/transformers/pull/48675 read the biases of queries and values as zeros.)
"""

import re

import numpy as np
import torch
from transformers import (
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    __version__,
)

from spec.conformance import adapter
from spec.training_reference import decayed

SOURCE = (
    "https://github.com/huggingface/transformers/blob/main/src/transformers/models/videomae/"
    "modeling_videomae.py"
)
ONE_MASK = (
    f"every masked token is decoded, with equal weight; V2's decoder mask is absent: {SOURCE}"
)

# Map from parameter names in transformers to ours: modules, parts of a block, suffixes.
OUTSIDE = (
    (r"^videomae\.embeddings\.patch_embeddings\.projection\.", "tubelet_embedding/"),
    (r"^videomae\.encoder\.layer\.(\d+)\.", r"encoder/block_\1/"),
    (r"^videomae\.layernorm\.", "encoder/norm/"),
    (r"^encoder_to_decoder\.", "bridge/"),
    (r"^decoder\.decoder_layers\.(\d+)\.", r"decoder/block_\1/"),
    (r"^decoder\.norm\.", "decoder/norm/"),
    (r"^(decoder\.head|classifier)\.", "head/"),
    (r"^fc_norm\.", "fc_norm/"),
)
INSIDE = (
    (r"/layernorm_before\.", "/norm1/"),
    (r"/layernorm_after\.", "/norm2/"),
    (r"/attention\.attention\.(query|key|value)\.weight$", "/attention/qkv/kernel"),
    (r"/attention\.attention\.(q|k|v)\w+\.bias$", r"/attention/\1_bias"),
    (r"/attention\.output\.dense\.", "/attention/projection/"),
    (r"/intermediate\.dense\.", "/mlp/hidden/"),
    (r"/output\.dense\.", "/mlp/output/"),
)
LAST = (
    (r"(norm\d?)/weight$", r"\1/gamma"),
    (r"(norm\d?)/bias$", r"\1/beta"),
    (r"/weight$", "/kernel"),
)


class Adapter(adapter.Adapter):
    """Adapter for the pretraining model and the classifier of transformers."""

    name = f"transformers {__version__}"
    gaps = {  # noqa: RUF012
        "DUAL-2": ONE_MASK,
        "LOSS-2": ONE_MASK,
        "DEC-3": "a boolean mask chooses the tokens, always in ascending order: "
        "https://github.com/huggingface/transformers/issues/21484",
        "INPUT-2": "mean and std are no settings: the loss undoes ImageNet's: "
        "https://github.com/huggingface/transformers/issues/19913",
        "TUBE-2": f"pretraining takes square tubelets alone, one patch_size: {SOURCE}",
        "BLOCK-6": f"no layer scale: {SOURCE}",
        "BLOCK-8": f"no cosine attention: {SOURCE}",
        "IMAGE-1": f"no class token; that is in its ViT and ViTMAE: {SOURCE}",
    }

    def build(self, config):
        # With mean pooling, the default, the encoder of the pretraining model also lacks its final norm.
        settings = theirs(config, use_mean_pooling=False)
        return Model(VideoMAEForPreTraining(settings), config)

    def build_classifier(self, config, classes, pooling):
        settings = theirs(config, use_mean_pooling=pooling == "mean", num_labels=classes)
        return Classifier(VideoMAEForVideoClassification(settings), config)


def theirs(config, **others):
    """Return the specification's configuration as a transformers configuration."""
    p0, p1, p2 = config.tubelet
    if p1 != p2:
        raise ValueError(f"Tubelets must be square. Received: tubelet={config.tubelet}.")
    return VideoMAEConfig(
        image_size=(config.height, config.width),
        patch_size=p1,
        tubelet_size=p0,
        num_channels=config.channels,
        num_frames=config.frames,
        hidden_size=config.dim,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        intermediate_size=config.mlp_dim,
        decoder_hidden_size=config.decoder_dim,
        decoder_num_hidden_layers=config.decoder_depth,
        decoder_num_attention_heads=config.decoder_heads,
        decoder_intermediate_size=config.decoder_mlp_dim,
        norm_pix_loss=config.norm_pix,
        **others,
    )


class Wrapped:
    """Model of transformers with the specification's weight names and transformers' preprocessing."""

    def __init__(self, model, config):
        self.model, self.config = model.eval(), config

    def shapes(self):
        return {name: value.shape for name, value in self._collect(lambda p: p).items()}

    def load(self, weights):
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                ours, part = translated(name)
                value = weights[ours] if part is None else np.split(weights[ours], 3, axis=1)[part]
                if ours == "tubelet_embedding/kernel":
                    channels_last = *self.config.tubelet, self.config.channels, self.config.dim
                    value = value.reshape(channels_last).transpose(4, 3, 0, 1, 2)
                elif value.ndim == 2:
                    value = value.T
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))

    def _collect(self, of):
        """Return {our name: array}, applying `of` to each parameter."""
        found = {}
        for name, parameter in self.model.named_parameters():
            ours, part = translated(name)
            value = of(parameter).detach().numpy()
            if ours == "tubelet_embedding/kernel":
                value = value.transpose(2, 3, 4, 1, 0).reshape(-1, self.config.dim)
            elif value.ndim == 2:
                value = value.T
            # Queries, keys and values are concatenated in this order.
            found[ours] = np.concatenate([found[ours], value], axis=1) if part else value.copy()
        return found

    def _pixels(self, video):
        """Return normalised pixels: (B, T, H, W, C) -> (B, T, C, H, W)."""
        scale = 255.0 if video.dtype == np.uint8 else 1.0
        video = (video / scale - self.config.mean) / self.config.std
        return torch.from_numpy(video.transpose(0, 1, 4, 2, 3).astype(np.float32))


class Model(Wrapped, adapter.Model):
    def forward(self, batch):
        with torch.no_grad():
            return self._run(batch).logits.numpy()

    def loss(self, batch):
        with torch.no_grad():
            return float(self._run(batch).loss)

    def target(self, batch):
        """Return the target, derived from the gradient because the model does not return it.

        The gradient of the mean squared error at predictions of zero is -2 / size times the target.
        """
        head = self.model.decoder.head
        before = [parameter.detach().clone() for parameter in head.parameters()]
        for parameter in head.parameters():
            torch.nn.init.zeros_(parameter)
        output = self._run(batch)
        (slope,) = torch.autograd.grad(output.loss, output.logits)
        with torch.no_grad():
            for parameter, value in zip(head.parameters(), before, strict=True):
                parameter.copy_(value)
        return -slope.double().numpy() * slope.numel() / 2

    def gradients(self, batch):
        self.model.zero_grad()
        self._run(batch).loss.backward()
        return self._collect(lambda parameter: parameter.grad)

    def train(self, batches, rates, *, weight_decay, beta_1, beta_2, epsilon):
        """Train with torch's optimizer, as upstream does."""
        groups = {True: [], False: []}
        for name, parameter in self.model.named_parameters():
            groups[decayed(translated(name)[0], parameter.shape)].append(parameter)
        optimizer = torch.optim.AdamW(
            [
                {"params": groups[True], "weight_decay": weight_decay},
                {"params": groups[False], "weight_decay": 0.0},
            ],
            betas=(beta_1, beta_2),
            eps=epsilon,
        )
        for batch, rate in zip(batches, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            self._run(batch).loss.backward()
            optimizer.step()
        return self._collect(lambda parameter: parameter)

    def _run(self, batch):
        masked = np.ones((len(batch["video"]), self.config.num_tokens), bool)
        np.put_along_axis(masked, batch["visible"], False, axis=1)
        decoded = np.stack([np.flatnonzero(clip) for clip in masked])
        if not np.array_equal(decoded, batch["decoded"]) or "weight" in batch:
            raise ValueError("All masked tokens are decoded, in ascending order.")
        return self.model(self._pixels(batch["video"]), bool_masked_pos=torch.from_numpy(masked))


class Classifier(Wrapped, adapter.Classifier):
    def classify(self, video):
        with torch.no_grad():
            return self.model(self._pixels(video)).logits.numpy()


def translated(name):
    """Return our name and, for a part of our fused weight, 0, 1 or 2 for query, key or value."""
    part = re.search(r"\.(query|key|value)\.weight$", name)
    for pattern, ours in (*OUTSIDE, *INSIDE, *LAST):
        name = re.sub(pattern, ours, name)
    return name, ["query", "key", "value"].index(part[1]) if part else None
