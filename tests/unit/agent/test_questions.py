"""Questions that are put together are those that the codec writes."""

import pytest

from support.agent_values import IDENTITY, net
from wgmap.lisp import codec
from wgmap.lisp.mark import UNKNOWN, Mark
from wgmap.lisp.messages import Eid, MapRequest, RequestRecord
from wgmap_agent.engine.questions import Questions

TARGETS = (
    "10.66.2.1/32",
    "10.66.3.0/24",
    "10.66.2.2/32",
    "fd66::2/128",
    "fd66::/64",
    "fd66::3/128",
)


@pytest.mark.parametrize("refresh", [False, True])
def test_a_question_is_read_as_what_was_asked(refresh: bool) -> None:
    questions = Questions(IDENTITY)
    sources = {4: net("10.66.1.1/32"), 6: net("fd66::1/128")}
    for nonce, text in enumerate(TARGETS, start=(1 << 64) - 10):
        written = questions.write(net(text), nonce, refresh=refresh)
        asked = MapRequest(
            nonce,
            (IDENTITY.control_address,),
            (RequestRecord(Eid(net(text), IDENTITY.instance)),),
            Eid(sources[net(text).version], IDENTITY.instance),
            smr_invoked=refresh,
            xtr=Mark(UNKNOWN, 0).xtr(),
        )
        assert codec.decode(written) == asked
        assert written == codec.encode(asked)
