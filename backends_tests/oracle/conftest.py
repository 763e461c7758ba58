"""The second opinion that some of the oracle's tests ask for."""

import pytest


@pytest.fixture(scope="session")
def witness():
    """The class of `torch_witness.py`; the test is skipped where torch is not installed."""
    torch = pytest.importorskip("torch")
    from backends_tests.oracle.torch_witness import Witness

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on arrays this small, threads only wait for one another
    yield Witness
    torch.set_num_threads(threads)
