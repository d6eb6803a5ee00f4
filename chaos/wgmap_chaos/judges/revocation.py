"""After a revocation is acknowledged no server vouches for the peer's key any more."""

from collections import defaultdict

from wgmap_chaos.history.history import History
from wgmap_chaos.history.records import Op, Outcome
from wgmap_chaos.judges.verdict import Verdict


def judge(history: History) -> Verdict:
    """Judge what was asked after a revocation: about the peer, and by it."""
    acknowledged = {
        call.key: call.ended for call in history.of(Op.REVOKE, Outcome.OK) if call.ended is not None
    }
    eids: dict[str, set[str]] = defaultdict(set)
    broken: list[str] = []
    owners: dict[str, str] = {}
    for call in history.of(Op.REGISTER):
        eids[call.who].add(call.key)
        owners[call.key] = call.who
        since = acknowledged.get(call.who)
        if since is not None and call.begun > since and call.outcome is Outcome.OK:
            broken.append(f"{call.server} took a register of {call.who} at {call.begun:.3f}")
    asked = 0
    for call in (*history.of(Op.LOOKUP, Outcome.OK), *history.of(Op.REFRESH, Outcome.OK)):
        since = acknowledged.get(owners.get(call.key, ""))
        if since is None or call.begun <= since:
            continue
        asked += 1
        if call.authoritative and call.result:
            late = call.begun - since
            broken.append(f"{call.server} vouched for {call.key} {late:.3f} s after its revocation")
    what = f"answers about {len(acknowledged)} revoked peers"
    return Verdict("revocation", asked, what, tuple(broken))
