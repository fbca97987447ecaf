"""Values that several tests of the worker start from."""

import pytest

from state_store import Lease


@pytest.fixture
def lease():
    return Lease(3, 1, b"nonce", b"0-0", 0, 1, "", 5000, b"0-0")
