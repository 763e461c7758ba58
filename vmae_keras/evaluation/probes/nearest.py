"""Classification by nearest neighbours among features of known classes."""

from collections.abc import Sequence

import numpy as np

TEMPERATURE = 0.07
_CHUNK = 1024  # queries per chunk, whose similarities to all known features are held in memory


def neighbour_votes(
    known: np.ndarray,
    numbers: Sequence[int],
    queries: np.ndarray,
    classes: int,
    counts: Sequence[int],
) -> np.ndarray:
    """Return the classes' shares of the neighbours' votes, (len(counts), m, K), for each k in `counts`.

    The k nearest neighbours by cosine vote for their class, each with weight exp(cosine / .07).

    Args:
        known: (n, D) features of known classes.
        numbers: n class numbers.
        queries: (m, D) features to classify.
        classes: K.
        counts: Numbers of neighbours.

    Source: official DINO `eval_knn.py`; clause PROBE-3.

    Raises:
        ValueError: A count is less than 1 or more than n.
    """
    if not 1 <= min(counts) <= max(counts) <= len(known):
        raise ValueError(
            f"There are {len(known)} neighbours. Received: counts={list(counts)}. Ask for 1 to that."
        )
    known, queries = _unit(known), _unit(queries)
    ballots = np.eye(classes)[np.asarray(numbers)]  # (n, K)
    votes = np.empty((len(counts), len(queries), classes))
    for start in range(0, len(queries), _CHUNK):
        cosines = queries[start : start + _CHUNK] @ known.T
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, : max(counts)]
        weights = np.exp(np.take_along_axis(cosines, nearest, axis=1) / TEMPERATURE)
        weighted = weights[..., None] * ballots[nearest]  # (queries, k, K)
        for place, count in enumerate(counts):
            total = weighted[:, :count].sum(axis=1)
            votes[place, start : start + _CHUNK] = total / total.sum(axis=1, keepdims=True)
    return votes


def _unit(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float64)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
