"""Tests of the oracle's windows by hand, and of its probes by hand and with torch."""

import numpy as np
import pytest

from backends_tests.compare import assert_close
from spec import probe_reference as probe

clause = pytest.mark.clause


@clause("FEATURE-1", "FEATURE-2")
def test_windows_and_times_by_hand():
    assert probe.windows(10, 3, 2, 2) == [[0, 2, 4], [2, 4, 6], [4, 6, 8]]
    assert probe.windows(9, 3, 2, 2) == [[0, 2, 4], [2, 4, 6], [4, 6, 8]]  # the last frame is 8
    assert probe.windows(8, 3, 2, 2) == [[0, 2, 4], [2, 4, 6]]
    assert probe.windows(4, 3, 2, 1) == [[0, 2, 3]]  # the video is shorter than a window
    assert probe.windows(1, 3, 1, 9) == [[0, 0, 0]]
    assert probe.window_times(10, 3, 2, 2, 4.0) == [(0.0, 1.25), (0.5, 1.75), (1.0, 2.25)]
    assert probe.window_times(4, 3, 2, 1, 4.0) == [(0.0, 1.0)]


@clause("FEATURE-1")
@pytest.mark.parametrize("count", [15, 16, 17, 19, 20, 21, 300])
def test_long_videos_have_the_official_windows(count):
    """Compare with `extract_tad_feature.py`: range(0, num_frames - 15, 4), which is empty for 15 frames."""
    official = [list(range(start, start + 16)) for start in range(0, count - 15, 4)]
    assert (probe.windows(count, 16, 1, 4) == official) == (count >= 16)


@clause("PROBE-1")
def test_standardised_by_hand():
    training = np.array([[0.0, 10.0], [2.0, 30.0]])
    expected = [[-1, -1], [1, 1], [2, 0]]
    found = probe.standardised(training, np.array([[0.0, 10.0], [2.0, 30.0], [3.0, 20.0]]))
    np.testing.assert_array_equal(found, expected)


@clause("PROBE-2")
def test_torch_attends_to_the_same():
    """Compare with torch's multi-head attention, its query projection the identity; measured 4e-16."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    draw = np.random.default_rng(0).standard_normal
    dim, heads, classes = 12, 3, 5
    widths = {"value": dim, "projection": dim, "wide": 4 * dim, "narrow": dim, "head": classes}
    weights = {"query": draw(dim), "key": draw((dim, dim))}
    for name, width in widths.items():
        inputs = 4 * dim if name == "narrow" else dim
        weights[name] = (draw((inputs, width)) / inputs**0.5, draw(width))
    tokens = draw((2, 7, dim))

    def tensor(value):
        return torch.tensor(np.asarray(value))

    def dense(name, x):
        return x @ tensor(weights[name][0]) + tensor(weights[name][1])

    def norm(x):
        return functional.layer_norm(x, (dim,), eps=1e-6)

    x = norm(tensor(tokens)).transpose(0, 1)
    query = tensor(weights["query"]).expand(1, 2, dim)
    pooled, _ = functional.multi_head_attention_forward(
        query,
        x,
        x,
        dim,
        heads,
        None,
        torch.cat([torch.zeros(2 * dim), tensor(weights["value"][1])]),
        None,
        None,
        False,
        0.0,
        tensor(weights["projection"][0].T),
        tensor(weights["projection"][1]),
        need_weights=False,
        use_separate_proj_weight=True,
        q_proj_weight=torch.eye(dim).double(),
        k_proj_weight=tensor(weights["key"].T),
        v_proj_weight=tensor(weights["value"][0].T),
    )
    y = pooled[0]
    y = y + dense("narrow", functional.gelu(dense("wide", norm(y))))
    expected = dense("head", norm(y)).numpy()
    found = probe.attentive_logits(weights, tokens, heads)
    assert_close(found, expected, "float64")


@clause("PROBE-3")
def test_neighbours_by_hand():
    known = np.array([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    query = np.array([5.0, 0.0])
    assert probe.neighbour_votes(known, [2, 0, 1], query, 3, 1).tolist() == [0, 0, 1]
    near, far = np.exp(1 / 0.07), np.exp(0)
    expected = np.array([far, 0, near]) / (near + far)
    np.testing.assert_allclose(probe.neighbour_votes(known, [2, 0, 1], query, 3, 2), expected)
