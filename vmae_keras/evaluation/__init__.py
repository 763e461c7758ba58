"""Use trained models: evaluate, predict, extract features, probe."""
