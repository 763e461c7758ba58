"""The Hypothesis profiles of all tests; $HYPOTHESIS_PROFILE names the one that is used.

`suite` draws the same examples in every run, `nightly` many more by the seed in `--hypothesis-seed`, and
`mutants` those of the suite, without looking for a smaller example that fails.
"""

import os

from hypothesis import HealthCheck, Phase, settings

NAME = os.environ.get("HYPOTHESIS_PROFILE", "suite")
NIGHTLY = NAME == "nightly"
TIMES_MORE = 40 if NIGHTLY else 1
# How long an example takes depends on what else the machine does, and some models are drawn in vain.
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
    """Return the decorator of a test that draws `count` examples, and 40 times as many in nightly.

    Without `smallest` the suite shows the first example that fails: where an example takes long, a
    smaller one may not be found within the test's time limit.
    """
    phases = [
        phase
        for phase in settings.default.phases
        if smallest or NIGHTLY or phase is not Phase.shrink
    ]
    return settings(max_examples=count * TIMES_MORE, phases=phases)
