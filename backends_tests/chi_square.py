"""Pearson's chi-square test of what is drawn: that it is uniform, and independent of what else is drawn."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from statistics import NormalDist

# Share of seeds under which correct draws fail a test. Seeds are fixed: a test that passes goes on passing
# until the draws change.
FALSE_ALARMS = 1e-5


def assert_uniform(draws: Iterable[Hashable], cells: Iterable[Hashable]) -> None:
    """Fail unless the draws spread evenly over the cells, and over nothing else.

    Draw tuples, with cells from `itertools.product`, to see that their parts are independent too.
    """
    cells = list(cells)
    assert_distribution(draws, dict.fromkeys(cells, 1 / len(cells)))


def assert_distribution(draws: Iterable[Hashable], shares: Mapping[Hashable, float]) -> None:
    """Fail unless each cell's part of the draws is its share of 1."""
    counts = Counter(draws)
    total = counts.total()
    assert abs(sum(shares.values()) - 1) < 1e-9  # a sum in float64
    assert min(shares.values()) * total >= 10, f"{total} draws are too few for the approximation"
    assert counts.keys() <= shares.keys(), f"drawn: {sorted(counts.keys() - shares.keys())[:5]}"
    expected = {cell: share * total for cell, share in shares.items()}
    found = sum((counts[cell] - expected[cell]) ** 2 / expected[cell] for cell in shares)
    most = limit(len(shares) - 1)
    assert found < most, f"chi-square is {found:.1f}, at most {most:.1f} of {len(shares)} cells"


def limit(degrees: int) -> float:
    """Return what chi-square exceeds with probability FALSE_ALARMS.

    By Wilson and Hilferty's approximation.
    """
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + NormalDist().inv_cdf(1 - FALSE_ALARMS) * spread**0.5) ** 3
