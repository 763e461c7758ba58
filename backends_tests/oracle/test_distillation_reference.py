"""Tests of the oracle's distillation and moving averages against manual calculations and torch's losses."""

import numpy as np
import pytest
import torch

from backends_tests.compare import assert_close
from spec import distillation_reference as oracle
from spec.training_reference import moving_averages


@pytest.mark.clause("OPT-6")
def test_an_average_begins_at_the_first_value_and_follows():
    assert moving_averages([np.array([8.0])], 0.75) == [8.0]
    # 0.75 * 8 + 0.25 * 4 = 7; 0.75 * 7 + 0.25 * 3 = 6
    assert moving_averages([np.array([8.0]), np.array([4.0]), np.array([3.0])], 0.75) == [6.0]


@pytest.mark.clause("DISTILL-1")
def test_the_class_loss_is_torchs_divergence_plus_the_teachers_entropy():
    generator = np.random.default_rng(0)
    teacher, student = generator.normal(0, 4, (2, 5, 7))
    for temperature in (1.0, 3.0):
        soft = torch.softmax(torch.tensor(teacher) / temperature, -1)
        divergence = torch.nn.functional.kl_div(
            torch.log_softmax(torch.tensor(student) / temperature, -1), soft, reduction="batchmean"
        )
        entropy = torch.distributions.Categorical(soft).entropy().mean()
        expected = temperature**2 * float(divergence + entropy)
        assert_close(oracle.class_loss(teacher, student, temperature), expected, "float64")


@pytest.mark.clause("DISTILL-2")
def test_the_feature_loss_is_torchs_of_features_without_scale():
    generator = np.random.default_rng(1)
    teacher, student = generator.normal(2, 5, (2, 5, 8))
    whitened = torch.nn.functional.layer_norm(torch.tensor(teacher), (8,), eps=1e-6)
    expected = float(torch.nn.functional.mse_loss(torch.tensor(student), whitened))
    assert_close(oracle.feature_loss(teacher, student), expected, "float64")
    whitened = 1 / np.sqrt(1 + 1e-6)
    assert_close(oracle.whitened([[1.0, 3.0]]), [[-whitened, whitened]], "float64")
