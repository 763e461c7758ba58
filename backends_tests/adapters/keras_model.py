"""Conformance-suite adapter for this library, on any Keras backend."""

import dataclasses

import keras

from backends_tests.support import assign, by_path, compile_and_build, numpy
from spec.conformance import adapter
from vmae_keras import VideoMAE, VideoMAEConfig
from vmae_keras.classifier import VideoClassifier
from vmae_keras.initializers import leave_zeros
from vmae_keras.training.optimizer import AdamW


class Adapter(adapter.Adapter):
    """Adapter for this library. It has no known gaps."""

    def __init__(self):
        self.name = f"vmae_keras on {keras.backend.backend()}"

    def build(self, config):
        # The weights are loaded later. JAX would compile each draw.
        return Model(VideoMAE(ours(config), fill=leave_zeros))

    def build_classifier(self, config, classes, pooling):
        model = VideoClassifier(ours(config), classes, pooling=pooling, fill=leave_zeros)
        return Classifier(model)


class Model(adapter.Model):
    """Model compiled as a whole where the backend compiles; JAX is slower operation by operation."""

    def __init__(self, model):
        self.model = model

    def shapes(self):
        return shapes(self.model)

    def load(self, weights):
        assign(self.model, weights)

    def forward(self, batch):
        return self.model.predict_on_batch(batch)

    def loss(self, batch):
        if not self.model.compiled:
            self.model.compile("sgd")
        return float(self.model.test_on_batch(batch))

    def target(self, batch):
        return numpy(self.model.target(batch))

    def gradients(self, batch):
        return gradients(self.model, batch)

    def train(self, batches, rates, **settings):
        compile_and_build(self.model, AdamW(**settings))
        for batch, rate in zip(batches, rates, strict=True):
            self.model.optimizer.learning_rate = rate
            self.model.train_on_batch(batch)
        return values(self.model)


class Classifier(adapter.Classifier):
    def __init__(self, model):
        self.model = model

    def shapes(self):
        return shapes(self.model)

    def load(self, weights):
        assign(self.model, weights)

    def classify(self, video):
        return self.model.predict_on_batch(video)


class GradientForWeight(keras.optimizers.Optimizer):
    """Optimizer that stores each gradient in its variable, without the rounding of a weight difference."""

    def update_step(self, gradient, variable, learning_rate):
        self.assign(variable, gradient)


def gradients(model, batch):
    """Return the training gradient of every trainable weight by path, without changing the weights."""
    before = values(model)
    compile_and_build(model, GradientForWeight(0.0))
    model.train_on_batch(batch)
    found = values(model)
    assign(model, before)
    return found


def ours(config):
    """Return the specification's configuration as the library's."""
    return VideoMAEConfig(**dataclasses.asdict(config))


def shapes(model):
    return {path: tuple(variable.shape) for path, variable in by_path(model).items()}


def values(model):
    return {path: numpy(variable.value).copy() for path, variable in by_path(model).items()}
