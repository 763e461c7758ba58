"""Hypothesis profiles of all tests; $HYPOTHESIS_PROFILE selects one.

`suite` draws the same examples in every run. `nightly` draws many more, from the seed in
`--hypothesis-seed`. `mutants` draws those of the suite and does not shrink failures.
"""

import os

from hypothesis import HealthCheck, Phase, settings

NAME = os.environ.get("HYPOTHESIS_PROFILE", "suite")
NIGHTLY = NAME == "nightly"
TIMES_MORE = 40 if NIGHTLY else 1
# The duration of an example depends on other load on the machine, and some drawn models are discarded.
SHARED = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much],
}

settings.register_profile("suite", derandomize=True, **SHARED)
settings.register_profile("nightly", max_examples=100 * TIMES_MORE, print_blob=True, **SHARED)
settings.register_profile(
    "mutants",
    settings.get_profile("suite"),
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile(NAME)


def examples(count, *, smallest=True):
    """Return a decorator that draws `count` examples for a test, and 40 times as many in nightly runs.

    With `smallest=False` the suite reports the first failing example without shrinking it. Use this where
    an example is slow and shrinking may exceed the test's time limit.
    """
    phases = [
        phase
        for phase in settings.default.phases
        if smallest or NIGHTLY or phase is not Phase.shrink
    ]
    return settings(max_examples=count * TIMES_MORE, phases=phases)
