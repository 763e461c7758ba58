"""Fixture of an independent implementation that some of the oracle's tests compare with."""

import pytest


@pytest.fixture(scope="session")
def witness():
    """Return the class of `torch_witness.py`; skip the test if torch is not installed."""
    torch = pytest.importorskip("torch")
    from backends_tests.oracle.torch_witness import Witness

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on arrays this small, threads only wait for one another
    yield Witness
    torch.set_num_threads(threads)
