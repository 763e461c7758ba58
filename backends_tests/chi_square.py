"""Pearson's chi-square test for uniform and independent random draws."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from statistics import NormalDist

# Share of seeds for which correct draws fail a test. Seeds are fixed, so a passing test keeps passing until
# the draws change.
FALSE_ALARMS = 1e-5


def assert_uniform(draws: Iterable[Hashable], cells: Iterable[Hashable]) -> None:
    """Raise unless the draws spread evenly over the cells and never leave them.

    To test that the parts of tuples are independent too, pass tuples and cells from `itertools.product`.
    """
    cells = list(cells)
    assert_distribution(draws, dict.fromkeys(cells, 1 / len(cells)))


def assert_distribution(draws: Iterable[Hashable], shares: Mapping[Hashable, float]) -> None:
    """Raise unless the share of draws in each cell matches its expected share. The shares sum to 1."""
    counts = Counter(draws)
    total = counts.total()
    assert abs(sum(shares.values()) - 1) < 1e-9  # rounding of a sum in float64
    assert min(shares.values()) * total >= 10, f"{total} draws are too few for the approximation"
    assert counts.keys() <= shares.keys(), f"drawn: {sorted(counts.keys() - shares.keys())[:5]}"
    expected = {cell: share * total for cell, share in shares.items()}
    found = sum((counts[cell] - expected[cell]) ** 2 / expected[cell] for cell in shares)
    most = limit(len(shares) - 1)
    assert found < most, f"chi-square is {found:.1f}, at most {most:.1f} of {len(shares)} cells"


def limit(degrees: int) -> float:
    """Return the value that chi-square exceeds with probability FALSE_ALARMS.

    Uses the Wilson-Hilferty approximation.
    """
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + NormalDist().inv_cdf(1 - FALSE_ALARMS) * spread**0.5) ** 3
