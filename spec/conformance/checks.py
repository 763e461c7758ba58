"""The checks, in layers: each layer relies on what the layers before it have checked.

Each check names its clauses and runs on several cases, which may add clauses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from spec import reference
from spec.conformance import cases, observations, probes
from spec.conformance.cases import Case
from spec.conformance.check import Check, Finding
from spec.conformance.observations import Quantity, Subject, difference
from spec.tolerances import TOLERANCES

CHECKS: list[Check] = []


def check(layer: str, *clauses: str, on: tuple[Case, ...], needs: tuple[str, ...] = ()):
    """Register a function of a subject and a case as a check named after the function."""

    def register(examine: Callable[[Subject, Case], Finding]):
        name = examine.__name__.replace("_", " ")
        CHECKS.append(Check(layer, name, clauses, on, examine, needs))
        return examine

    return register


def compare(
    layer: str,
    name: str,
    quantity: Quantity,
    *clauses: str,
    on: tuple[Case, ...],
    needs: tuple[str, ...] = (),
    tolerance: str = "",
) -> None:
    """Register a comparison with the oracle."""
    tolerance = tolerance or quantity.name
    limit = TOLERANCES[tolerance].value

    def examine(subject: Subject, case: Case) -> Finding:
        found = difference(quantity, subject.answer(quantity, case), quantity.oracle(case))
        return Finding(found.error, limit, found.text)

    CHECKS.append(Check(layer, name, clauses, on, examine, needs, quantity, tolerance))


# Names and shapes --------------------------------------------------------------------------------

MODELS = (cases.V1, cases.LAYER_SCALE, cases.COSINE_ATTENTION, cases.MAE)


@check("names and shapes", "WEIGHT-1", "POS-2", on=MODELS)
@check("names and shapes", "FT-4", on=cases.CLASSIFIERS)
def names_of_weights(subject: Subject, case: Case) -> Finding:
    """Compare the names of the weights. A position table or a key bias would be too many."""
    got, expected = subject.model(case).shapes().keys(), case.shapes.keys()
    text = f"missing: {sorted(expected - got)}, too many: {sorted(got - expected)}"
    return Finding(len(got ^ expected), 0, text)


@check("names and shapes", "WEIGHT-1", "WEIGHT-2", on=MODELS)
@check("names and shapes", "FT-4", "WEIGHT-2", on=cases.CLASSIFIERS)
def shapes_of_weights(subject: Subject, case: Case) -> Finding:
    """Compare the shapes of the weights. Kernels are (in, out)."""
    got = subject.model(case).shapes()
    wrong = [
        f"{name}: expected {shape}, got {tuple(got[name])}"
        for name, shape in case.shapes.items()
        if name in got and tuple(got[name]) != shape
    ]
    return Finding(len(wrong), 0, "; ".join(wrong))


@check("names and shapes", "CONFIG-1", on=(cases.V1,))
def sizes_that_do_not_divide_are_refused(subject: Subject, case: Case) -> Finding:
    """Check that building the model raises ValueError."""
    accepted = []
    for changes in (
        {"frames": 5},
        {"height": 18},
        {"width": 25},
        {"heads": 3},
        {"decoder_heads": 5},
    ):
        try:
            subject.adapter.build(dataclasses.replace(case.config, **changes))
        except ValueError:
            continue
        accepted.append(str(changes))
    return Finding(len(accepted), 0, f"accepted: {', '.join(accepted)}")


# Invariants --------------------------------------------------------------------------------------


def _predictions(subject: Subject, case: Case, **changes: np.ndarray) -> np.ndarray:
    return subject.model(case).forward({**case.batch, **changes})


def _equal(got: np.ndarray, expected: np.ndarray, tolerance: float, what: str) -> Finding:
    """Compare predictions, relative to the largest value."""
    found = difference(observations.PREDICTION, got, expected)
    return Finding(found.error, tolerance, f"{what}: {found.text}")


@check("invariants", on=(cases.V1,))
def the_same_twice_to_the_bit(subject: Subject, case: Case) -> Finding:
    first, second = (_predictions(subject, case) for _ in range(2))
    return _equal(second, first, 0, "a second forward of the same batch differs")


@check("invariants", "ENC-1", on=(cases.V1, cases.V2))
def hidden_pixels_do_not_reach_the_predictions(subject: Subject, case: Case) -> Finding:
    tokens = reference.tubelets(case.batch["video"], case.config.tubelet)
    hidden = np.ones(tokens.shape[:2], bool)
    np.put_along_axis(hidden, case.batch["visible"], False, axis=1)
    tokens[hidden] = 255 - tokens[hidden]
    video = reference.untubelets(tokens, case.config.grid, case.config.tubelet)
    return _equal(
        _predictions(subject, case, video=video),
        _predictions(subject, case),
        0,
        "pixels of tokens that are not visible change the predictions",
    )


@check("invariants", "ENC-1", on=(cases.V1, cases.V2))
def every_visible_token_reaches_the_predictions(subject: Subject, case: Case) -> Finding:
    """Check that each visible token changes its own clip's predictions, and no other clip's."""
    before = _predictions(subject, case)
    unread, leaks = [], []
    for token in case.batch["visible"][0]:
        tokens = reference.tubelets(case.batch["video"], case.config.tubelet)
        tokens[0, token] ^= 255
        video = reference.untubelets(tokens, case.config.grid, case.config.tubelet)
        change = np.abs(_predictions(subject, case, video=video) - before)
        if not change[0].max() > 1e-3 * np.abs(before).max():
            unread.append(int(token))
        if change[1:].max() > TOLERANCES["prediction"].value * np.abs(before).max():
            leaks.append(int(token))
    text = f"without effect: visible tokens {unread}; reached another clip: {leaks}"
    return Finding(len(unread) + len(leaks), 0, text)


@check("invariants", "ENC-1", "DEC-1", on=(cases.V1, cases.V2))
def clips_do_not_depend_on_their_place_in_the_batch(subject: Subject, case: Case) -> Finding:
    turned = {name: value[::-1].copy() for name, value in case.batch.items()}
    return _equal(
        _predictions(subject, case, **turned)[::-1],
        _predictions(subject, case),
        TOLERANCES["prediction"].value,
        "the predictions of a clip depend on its place in the batch",
    )


@check("invariants", "DEC-3", on=(cases.V1,), needs=("DEC-3",))
def predictions_follow_the_order_of_decoded(subject: Subject, case: Case) -> Finding:
    order = np.random.default_rng(0).permutation(case.batch["decoded"].shape[1])
    got = _predictions(subject, case, decoded=case.batch["decoded"][:, order])
    return _equal(
        got,
        _predictions(subject, case)[:, order],
        TOLERANCES["prediction"].value,
        "with `decoded` in another order, the predictions are not those in that order",
    )


@check("invariants", "ENC-1", on=(cases.V1,), needs=("DEC-3",))
def the_order_of_visible_does_not_matter(subject: Subject, case: Case) -> Finding:
    order = np.random.default_rng(0).permutation(case.batch["visible"].shape[1])
    got = _predictions(subject, case, visible=case.batch["visible"][:, order])
    return _equal(
        got,
        _predictions(subject, case),
        TOLERANCES["prediction"].value,
        "with `visible` in another order, the predictions differ",
    )


@check("invariants", "TARGET-1", on=(cases.RAW_PIXELS,), needs=("INPUT-2",))
def the_target_does_not_depend_on_mean_and_std(subject: Subject, case: Case) -> Finding:
    other = dataclasses.replace(case, config=dataclasses.replace(case.config, mean=(0.5, 0.4, 0.3)))
    return _equal(
        subject.answer(observations.TARGET, other),
        subject.answer(observations.TARGET, case),
        0,
        "another mean changes the target",
    )


# Values ------------------------------------------------------------------------------------------

compare(
    "values",
    "predictions",
    observations.PREDICTION,
    "INPUT-1",
    "INPUT-2",
    "TUBE-1",
    "TUBE-2",
    "POS-1",
    "EMBED-1",
    "EMBED-2",
    "BLOCK-1",
    "BLOCK-2",
    "BLOCK-3",
    "BLOCK-4",
    "BLOCK-5",
    "ENC-2",
    "DEC-1",
    "DEC-2",
    "DEC-3",
    "WEIGHT-2",
    on=cases.PREDICTED,
)
compare(
    "values", "epsilon of one LayerNorm", observations.PREDICTION, "BLOCK-2", on=probes.PRETRAINING
)
compare("values", "target", observations.TARGET, "TARGET-1", "TARGET-2", on=cases.TARGETED)
compare(
    "values",
    "target of low contrast",
    observations.TARGET,
    "TARGET-2",
    on=(cases.LOW_CONTRAST, cases.MAE_LOW_CONTRAST),
    tolerance="target_of_low_contrast",
)


@check("values", "TARGET-4", on=(cases.ONE_COLOUR,))
def target_of_one_colour_is_finite(subject: Subject, case: Case) -> Finding:
    wrong = ~np.isfinite(subject.answer(observations.TARGET, case))
    return Finding(int(wrong.sum()), 0, "values that are not finite")


compare("values", "loss", observations.LOSS, "LOSS-1", on=(cases.V1,))
compare(
    "values",
    "weighted loss",
    observations.LOSS,
    "LOSS-2",
    on=(cases.V2_ODD_GRID,),
    needs=("LOSS-2",),
)


@check("values", "LOSS-1", "LOSS-2", on=(cases.V2_ODD_GRID,), needs=("LOSS-2",))
def with_a_weight_of_ones_the_loss_is_the_mean(subject: Subject, case: Case) -> Finding:
    ones = np.ones_like(case.batch["weight"])
    got = subject.model(case).loss({**case.batch, "weight": ones})
    predictions = observations.PREDICTION.oracle(case)
    expected = reference.loss(predictions, observations.TARGET.oracle(case))
    found = difference(observations.LOSS, got, expected)
    return Finding(found.error, TOLERANCES["loss"].value, found.text)


# Derivatives -------------------------------------------------------------------------------------

compare(
    "gradients",
    "gradients",
    observations.GRADIENT,
    "TARGET-1",
    "BLOCK-3",
    on=(cases.V1, cases.V2, cases.LAYER_SCALE, cases.COSINE_ATTENTION, cases.MAE),
)
compare(
    "training", "three steps of AdamW", observations.THREE_STEPS, "OPT-2", "OPT-5", on=(cases.V1,)
)

# Classifier --------------------------------------------------------------------------------------

compare("classifier", "logits", observations.LOGITS, on=cases.CLASSIFIERS)
compare(
    "classifier",
    "epsilon of its last LayerNorm",
    observations.LOGITS,
    "BLOCK-2",
    on=probes.CLASSIFIERS,
)
