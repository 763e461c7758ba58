"""Use of trained models: evaluation, prediction, feature extraction, probes."""

from typing import Literal, get_args

FeatureFormat = Literal["npy", "safetensors"]
FEATURE_FORMATS = get_args(FeatureFormat)
