"""What a light client takes for an answer to its register, and what for news."""

import pytest

from wgmap_chaos.load.light import MAX_NUMBER, is_push


@pytest.mark.parametrize("number", [1, 3, MAX_NUMBER])
def test_a_notify_with_a_register_s_number_answers_it(number: int) -> None:
    assert not is_push(number)


# The nonce of a push as seen: it was taken for a register that nobody had made.
@pytest.mark.parametrize("nonce", [223764209203838, MAX_NUMBER + 1, (1 << 64) - 1])
def test_any_other_nonce_is_news(nonce: int) -> None:
    assert is_push(nonce)
