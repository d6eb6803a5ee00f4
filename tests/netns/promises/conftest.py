"""What these tests share."""

import pytest

from support.voice import fresh_nonces


@pytest.fixture
def base() -> int:
    """A nonce above those that any test before, or an agent after it, has used."""
    return fresh_nonces()
