"""Use of trained models: evaluation, prediction, feature extraction, probes."""
