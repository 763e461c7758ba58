"""Tests of the conformance suite: the oracle passes, every check can fail, deviations are diagnosed."""

import functools
import json
import re

import numpy as np
import pytest

from backends_tests.adapters import oracle
from backends_tests.compare import assert_within
from spec import layers_reference
from spec.conformance import __main__ as command
from spec.conformance import adapter, cases, observations
from spec.conformance.checks import CHECKS
from spec.conformance.deviations import Deviation
from spec.conformance.results import FORWARD, run
from spec.conformance.training_deviations import OPTIMISER

TRAINING = [each for each in CHECKS if each.layer in ("gradients", "training")]
COMPARISONS = [each for each in CHECKS if each.quantity and each not in TRAINING]
KNOWN = {each.text: each for each in (*FORWARD, *OPTIMISER)}


def test_the_oracle_conforms():
    report = run(oracle.Adapter())
    assert report.passed
    assert {result.state for result in report.results} == {"pass"}
    assert_within(max(result.measured for result in report.results), "float64", "the oracle")
    assert report.diagnosis.deviations == report.diagnosis.unexplained == ()


class Spent(oracle.Model):
    def train(self, batches, rates, **settings):
        self.weights = super().train(batches, rates, **settings)
        return self.weights


class Spending(oracle.Adapter):
    """Adapter whose models keep the trained weights."""

    def build(self, config):
        return Spent(config, ())


def test_training_spoils_no_check_that_comes_later():
    checks = [each for each in reversed(CHECKS) if each.needs == () and each.quantity]
    assert run(Spending(), checks).passed


# Diagnosis ---------------------------------------------------------------------------------------


def diagnosed(*deviations, checks=COMPARISONS):
    """Return the diagnosis of an oracle that deviates."""
    report = run(oracle.Adapter(*deviations), checks)
    assert not report.passed
    return report


@pytest.mark.parametrize("text", [each.text for each in FORWARD])
def test_a_known_deviation_is_found(text):
    report = diagnosed(KNOWN[text])
    assert [each.text for each in report.diagnosis.deviations] == [text]
    assert report.diagnosis.unexplained == ()
    assert max(report.diagnosis.agreement.values()) == 0
    notes = {result.note for result in report.results if result.state == "deviates"}
    assert notes == {f"explained by {KNOWN[text]}"}


@pytest.mark.parametrize("text", [each.text for each in OPTIMISER])
def test_a_known_deviation_of_the_optimiser_is_found(text):
    report = diagnosed(KNOWN[text], checks=TRAINING)
    assert [each.text for each in report.diagnosis.deviations] == [text]


@pytest.mark.parametrize(
    "texts",
    [
        (
            "encoder/norm: epsilon 1e-12 instead of 1e-6",
            "decoder/norm: epsilon 1e-5 instead of 1e-6",
        ),
        (
            "fc_norm: epsilon 1e-5 instead of 1e-6",
            "tanh GELU",
            "normalised over all channels at once",
        ),
        ("no positions in the decoder", "biased variance", "visible tokens count too"),
    ],
)
def test_deviations_are_told_apart(texts):
    report = diagnosed(*(KNOWN[text] for text in texts))
    assert {each.text for each in report.diagnosis.deviations} == set(texts)
    assert report.diagnosis.unexplained == ()


def test_what_is_not_known_is_not_explained():
    """Check that no known deviation is named for an unknown one."""
    relu = Deviation(
        "", "", "gelu", lambda gelu: lambda x: np.maximum(x, 0), module=layers_reference
    )
    report = diagnosed(relu)
    assert report.diagnosis.deviations == ()
    differing = {
        result.case.name
        for result in report.results
        if result.state == "deviates" and result.check.quantity
    }
    assert {each.case.name for each in report.diagnosis.unexplained} == differing
    assert "V1" in differing


# Every check can fail ----------------------------------------------------------------------------

generator = np.random.default_rng(0)


def larger(right, *arguments, **settings):
    """Scale by half a per cent, more than any tolerance."""
    answer = right(*arguments, **settings)
    if isinstance(answer, dict):
        return {name: 1.005 * value for name, value in answer.items()}
    return 1.005 * answer


# For each check: a method, and a function that makes its result wrong.
WRONG = {
    "names of weights": ("shapes", lambda right: {**right(), "positions": (48, 32)}),
    "shapes of weights": ("shapes", lambda right: {k: v[::-1] for k, v in right().items()}),
    "the same twice to the bit": (
        "forward",
        lambda right, batch: right(batch) + 1e-9 * generator.random(),
    ),
    "hidden pixels do not reach the predictions": (
        "forward",
        lambda right, batch: right(batch) + 1e-9 * batch["video"].mean(),
    ),
    "every visible token reaches the predictions": (
        "forward",
        lambda right, batch: right({**batch, "visible": batch["visible"][:, 1:]}),
    ),
    "clips do not depend on their place in the batch": (
        "forward",
        lambda right, batch: np.cumsum(right(batch), axis=0),
    ),
    "predictions follow the order of decoded": (
        "forward",
        lambda right, batch: right({**batch, "decoded": np.sort(batch["decoded"])}),
    ),
    "the order of visible does not matter": (
        "forward",
        lambda right, batch: right(batch) + batch["visible"][0, 0],
    ),
    "the target does not depend on mean and std": (
        "target",
        lambda right, batch: right(batch) / right.__self__.config.mean[0],
    ),
    "target of one colour is finite": (
        "target",
        lambda right, batch: right(batch) + np.log(batch["video"].std()),
    ),
    "with a weight of ones the loss is the mean": (
        "loss",
        lambda right, batch: right({k: v for k, v in batch.items() if k != "weight"}) + 1e-3,
    ),
    "predictions": ("forward", larger),
    "epsilon of one LayerNorm": ("forward", larger),
    "target": ("target", larger),
    "target of low contrast": ("target", larger),
    "loss": ("loss", larger),
    "weighted loss": ("loss", larger),
    "gradients": ("gradients", larger),
    "three steps of AdamW": ("train", larger),
    "logits": ("classify", larger),
    "epsilon of its last LayerNorm": ("classify", larger),
}


class Wrong(oracle.Adapter):
    """Oracle with one wrong method."""

    def __init__(self, method, change):
        super().__init__()
        self.method, self.change = method, change

    def build(self, config):
        return self._spoilt(super().build(config))

    def build_classifier(self, *arguments):
        return self._spoilt(super().build_classifier(*arguments))

    def _spoilt(self, model):
        if right := getattr(model, self.method, None):
            setattr(model, self.method, functools.partial(self.change, right))
        return model


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_every_check_can_fail(check, monkeypatch):
    """Check that each of its cases can fail."""
    if check.name == "sizes that do not divide are refused":
        monkeypatch.setattr(oracle, "check_sizes", lambda config: None)
        wrong = oracle.Adapter()
    else:
        wrong = Wrong(*WRONG[check.name])
    with np.errstate(divide="ignore"):
        results = run(wrong, [check]).results
    assert {result.state for result in results} == {"deviates"}
    assert all(result.note for result in results)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda right: right[:, 1:], r"expected the shape \(2, 36, 96\), got \(2, 35, 96\)"),
        (lambda right: np.where(right > 0, right, np.nan), "is not finite"),
        (lambda right: {"a": right}, r"expected \[''\], got \['a'\]"),
        (lambda right: right + np.eye(36, 96), r"\[\d, \d+, \d+\]: expected .*, got "),
    ],
)
def test_a_failure_says_what_was_expected(answer, text):
    right = observations.PREDICTION.oracle(cases.V1)
    found = observations.difference(observations.PREDICTION, answer(right), right)
    assert found.error > 1e-3
    assert re.search(text, found.text)


# Gaps and the command ----------------------------------------------------------------------------


class PartialModel(oracle.Model):
    gradients = adapter.Model.gradients  # not offered

    def forward(self, batch):
        assert "weight" not in batch
        return super().forward(batch)


class Partial(oracle.Adapter):
    gaps = {"DUAL-2": "one mask: https://example.org", "LOSS-2": "no weights"}  # noqa: RUF012

    def build(self, config):
        oracle.check_sizes(config)
        return PartialModel(config, ())


def test_a_gap_is_not_asked_and_is_no_failure():
    report = run(Partial())
    assert report.passed
    gaps = {
        (each.check.name, each.case.name): each for each in report.results if each.state == "gap"
    }
    assert gaps["predictions", "V2"].clauses == ("DUAL-2",)
    assert gaps["predictions", "V2"].note == "one mask: https://example.org"
    assert gaps["weighted loss", "V2, odd grid"].clauses == ("LOSS-2", "DUAL-2")
    assert gaps["gradients", "V1"].note == "the adapter offers no `gradients`"
    assert ("predictions", "V1") not in gaps


class Refusing(oracle.Adapter):
    """Adapter that raises for raw pixels."""

    def build(self, config):
        if not config.norm_pix:
            raise RuntimeError("no raw pixels")
        return super().build(config)


def test_an_exception_is_a_deviation():
    report = run(Refusing(), COMPARISONS)
    wrong = [each for each in report.results if each.state == "deviates"]
    assert {each.case.name for each in wrong} == {"raw pixels, frame mask"}
    assert {each.note for each in wrong} == {"RuntimeError: no raw pixels"}


class Tanh(oracle.Adapter):
    """Adapter that the command below loads."""

    name = "tanh"

    def __init__(self):
        super().__init__(KNOWN["tanh GELU"])


def test_the_command_prints_a_table_and_writes_records(capsys, tmp_path):
    file = tmp_path / "tanh.json"
    assert command.main([f"{__name__}:Tanh", "--json", str(file)]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "Diagnosis: tanh GELU (BLOCK-5)" in text
    assert re.search(r"values predictions .* 13 0.0\d+ 6e-05 deviates", text)
    records = json.loads(file.read_text("utf-8"))
    assert len(records) == sum(len(check.cases) for check in CHECKS)
    by_check = {each["check"]: each for each in records}
    record = by_check["predictions: V1"]
    assert record["state"] == "deviates" and record["measured"] > record["tolerance"]
    assert "BLOCK-5" in record["clauses"]
    assert record["note"] == "explained by tanh GELU (BLOCK-5)"
    assert by_check["target: V1"]["state"] == "pass"
    assert command.main(["backends_tests.adapters.oracle:Adapter"]) == 0
    assert "0 deviate" in capsys.readouterr().out
