"""Conformance-suite adapter for the oracle itself, a float64 implementation.

With `deviations`, it stands for an implementation that departs from the specification in known places.
"""

import numpy as np

from spec import gradient_reference, reference, training_reference
from spec.conformance import adapter
from spec.conformance.deviations import applied


class Adapter(adapter.Adapter):
    name = "oracle"

    def __init__(self, *deviations):
        self.deviations = deviations

    def build(self, config):
        check_sizes(config)
        return Model(config, self.deviations)

    def build_classifier(self, config, classes, pooling):
        check_sizes(config)
        return Classifier(config, classes, pooling, self.deviations)


def check_sizes(config):
    """Check the sizes (CONFIG-1), which the oracle's configuration does not do when it is constructed."""
    clip = (1, config.frames, config.height, config.width, config.channels)
    reference.tubelets(np.zeros(clip), config.tubelet)
    if config.dim % config.heads or config.decoder_dim % config.decoder_heads:
        raise ValueError("Widths must be multiples of the heads.")


class Model(adapter.Model):
    def __init__(self, config, deviations):
        self.config, self.deviations = config, deviations

    def shapes(self):
        return training_reference.weight_shapes(self.config)

    def load(self, weights):
        self.weights = weights

    def forward(self, batch):
        with applied(self.deviations):
            return reference.forward(self.config, self.weights, batch)

    def loss(self, batch):
        with applied(self.deviations):
            return reference.pretraining_loss(self.config, self.weights, batch)

    def target(self, batch):
        with applied(self.deviations):
            return reference.target(self.config, batch["video"], batch["decoded"])

    def gradients(self, batch):
        with applied(self.deviations):
            return gradient_reference.pretraining_gradients(self.config, self.weights, batch)[1]

    def train(self, batches, rates, **settings):
        with applied(self.deviations):
            return training_reference.adamw_steps(
                self.config, self.weights, batches, rates, **settings
            )


class Classifier(adapter.Classifier):
    def __init__(self, config, classes, pooling, deviations):
        self.config, self.classes, self.pooling = config, classes, pooling
        self.deviations = deviations

    def shapes(self):
        return training_reference.classifier_weight_shapes(self.config, self.classes, self.pooling)

    def load(self, weights):
        self.weights = weights

    def classify(self, video):
        with applied(self.deviations):
            return reference.classify(self.config, self.weights, video, pooling=self.pooling)
