"""The oracle for distillation: SPEC.md's DISTILL clauses, in float64."""

from __future__ import annotations

import numpy as np


def softened(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Compute softmax(z / T): (B, K) -> (B, K). DISTILL-1."""
    z = np.asarray(logits, np.float64) / temperature
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def class_loss(teacher: np.ndarray, student: np.ndarray, temperature: float) -> float:
    """Compute the loss from the logits (B, K) of teacher and student. DISTILL-1."""
    target = softened(teacher, temperature)
    cross_entropies = -(target * np.log(softened(student, temperature))).sum(axis=1)
    return float(temperature**2 * cross_entropies.mean())


def whitened(features: np.ndarray) -> np.ndarray:
    """Normalise each clip's features over their width: (B, D) -> (B, D). DISTILL-2."""
    f = np.asarray(features, np.float64)
    return (f - f.mean(axis=1, keepdims=True)) / np.sqrt(f.var(axis=1, keepdims=True) + 1e-6)


def feature_loss(teacher: np.ndarray, student: np.ndarray) -> float:
    """Compute the loss from the teacher's features and the student's outputs (B, D). DISTILL-2."""
    return float(((np.asarray(student, np.float64) - whitened(teacher)) ** 2).mean())
