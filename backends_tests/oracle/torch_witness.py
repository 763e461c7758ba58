"""Independent models in torch to check the oracle: its convolution, norm, activation, attention.

All computations are in float64. Weights are tensors named as in WEIGHT-1 and FT-4. The module imports
torch.
"""

from __future__ import annotations

import torch
from torch.nn import functional


class Witness:
    """Models of one configuration with given weights."""

    def __init__(self, config, weights):
        self.config = config
        self.weights = {
            name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
            for name, value in weights.items()
        }

    def norm(self, x, path):
        gamma, beta = self.weights[f"{path}/gamma"], self.weights[f"{path}/beta"]
        return functional.layer_norm(x, x.shape[-1:], gamma, beta, self.config.layer_norm_epsilon)

    def dense(self, x, path):
        return functional.linear(
            x, self.weights[f"{path}/kernel"].T, self.weights.get(f"{path}/bias")
        )

    def attention(self, x, path, heads):
        q_bias, v_bias = self.weights[f"{path}/q_bias"], self.weights[f"{path}/v_bias"]
        bias = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])
        qkv = functional.linear(x, self.weights[f"{path}/qkv/kernel"].T, bias)
        q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        if self.config.cosine_attention:
            scale = self.weights[f"{path}/log_scale"].clamp(max=4.6052).exp()
            q, k = functional.normalize(q, dim=-1) * scale, functional.normalize(k, dim=-1)
        mixed = functional.scaled_dot_product_attention(
            q, k, v, scale=1.0 if self.config.cosine_attention else None
        )
        return self.dense(mixed.transpose(1, 2).flatten(2), f"{path}/projection")

    def stack(self, x, part, depth, heads, keep=None):
        for i in range(depth):
            path = f"{part}/block_{i}"
            factors = [
                self.weights.get(f"{path}/scale{n + 1}", 1.0)
                * (1.0 if keep is None else torch.tensor(keep[i][n])[:, None, None])
                for n in (0, 1)
            ]
            seen = self.norm(x, f"{path}/norm1")
            x = x + factors[0] * self.attention(seen, f"{path}/attention", heads)
            hidden = self.dense(self.norm(x, f"{path}/norm2"), f"{path}/mlp/hidden")
            x = x + factors[1] * self.dense(functional.gelu(hidden), f"{path}/mlp/output")
        return x

    def positions(self, count, dim):
        angle = torch.arange(count)[:, None] / 10000 ** (torch.arange(0, dim, 2).double() / dim)
        return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)

    def embed(self, video):
        """Embed every token: (B, T, H, W, C), uint8 or float in [0, 1] -> (B, N, D)."""
        mean, std = (
            torch.tensor(values, dtype=torch.float64)
            for values in (self.config.mean, self.config.std)
        )
        levels = 255 if video.dtype == "uint8" else 1
        video = (torch.tensor(video).double() / levels - mean) / std
        kernel = self.weights["tubelet_embedding/kernel"].reshape(*self.config.tubelet, 3, -1)
        tokens = (
            functional.conv3d(
                video.permute(0, 4, 1, 2, 3),
                kernel.permute(4, 3, 0, 1, 2),
                self.weights["tubelet_embedding/bias"],
                stride=self.config.tubelet,
            )
            .flatten(2)
            .transpose(1, 2)
        )
        return tokens + self.positions(tokens.shape[1], self.config.dim)

    def forward(self, batch, encoder_keep=None, decoder_keep=None):
        """Return predictions (B, M, P)."""

        def chosen(tokens, ids):
            return tokens.gather(1, ids[..., None].expand(-1, -1, tokens.shape[-1]))

        config = self.config
        visible, decoded = (torch.tensor(batch[name]) for name in ("visible", "decoded"))
        tokens = self.embed(batch["video"])
        x = chosen(tokens, visible)
        x = self.stack(x, "encoder", config.depth, config.heads, encoder_keep)
        known = self.dense(self.norm(x, "encoder/norm"), "bridge")
        table = self.positions(tokens.shape[1], config.decoder_dim).expand(len(tokens), -1, -1)
        query = self.weights["mask_token"] + chosen(table, decoded)
        x = torch.cat([known + chosen(table, visible), query], 1)
        x = self.stack(x, "decoder", config.decoder_depth, config.decoder_heads, decoder_keep)
        return self.dense(self.norm(x[:, -decoded.shape[1] :], "decoder/norm"), "head")

    def loss(self, batch, target, **keep):
        """Return the loss for a given target; torch can differentiate it."""
        predictions, target = self.forward(batch, **keep), torch.tensor(target)
        weight = torch.tensor(batch["weight"]) if "weight" in batch else None
        if weight is None:
            return functional.mse_loss(predictions, target)
        per_token = functional.mse_loss(predictions, target, reduction="none").mean(-1)
        return (per_token * weight).sum() / weight.sum()

    def classify(self, video, pooling, keep=None, dropout=1.0):
        """Return logits (B, K); `dropout` holds the factors of the head's input."""
        x = self.stack(self.embed(video), "encoder", self.config.depth, self.config.heads, keep)
        if pooling == "mean":
            return self.dense(self.norm(x.mean(1), "fc_norm") * dropout, "head")
        return self.dense(self.norm(x, "encoder/norm")[:, 0], "head")
