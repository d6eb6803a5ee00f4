"""Every bound and delay of the engine, each with its reason. Times in seconds."""

from dataclasses import dataclass
from typing import Self

HOLD_LONGER_S = 5.0  # than a question is asked: time for the handshake after a late answer


@dataclass(frozen=True, slots=True)
class Settings:
    """The engine's constants; tests hand in others."""

    # Held packets. WireGuard stages 128 packets a peer before a handshake: 100 always fit.
    held_per_destination: int = 100
    held_packets: int = 10_000  # of all destinations: 15 MB at an MTU of 1420
    # So many leave for one peer at once, before its handshake and each time after it: a hundred
    # full packets at once overflow the socket buffer of a receiver in user space.
    portion: int = 16
    portion_pause_s: float = 0.01  # a busy machine keeps a receiver waiting for several
    max_flows: int = 1024  # destinations in first contact; more are refused, not held
    # Copies of what was sent are kept until something came back in the session that took it, or for
    # so long. A side that lost the session has kicked by then: 0.8 s and eight round trips later,
    # or, where it had initiated before, as much again as it had waited. They make room for others.
    kept_s: float = 5.0
    hold_s: float = 15.0  # longer than every retry below: whatever is still held then is dropped

    # Requests. The first timeout is the RTT estimator's; the floor lies over a server's p99.
    request_floor_s: float = 0.1
    request_unknown_rtt_s: float = 0.25  # no sample yet: covers an RTT of 160 ms with margin
    request_cap_s: float = 2.0
    # Hedging. The preferred server alone is asked; the others after a few of its round trips.
    hedge_floor_s: float = 0.004  # above a server's p99 without any way between
    hedge_rtts: tuple[float, float] = (1.5, 3.0)  # the least (and four variations), the most
    hedge_refresh_s: float = 0.03  # a refresh waits for the leader as well
    late_floor_s: float = 0.02  # a probe is not called late sooner: our own loop may be busy
    hedge_share: float = 0.1  # of all questions, while no server is known to be silent
    hedge_burst: float = 5.0
    # A server that was passed over is asked behind the others for a while, longer each time.
    avoid_first_s: float = 2.0  # longer than it takes to see that it is silent
    avoid_cap_s: float = 60.0
    avoid_forget_s: float = 300.0  # after so long without a lapse the back-off starts anew
    far_rtts: float = 2.0  # a server farther than the nearest by this factor
    far_s: float = 0.01  # and this comes behind the others
    request_give_up_s: float = 10.0  # then the senders are told "unreachable" (configured)
    # A push that changed peers is acknowledged so much later, behind the handshake that it may be
    # about: the server repeats it after 50 ms.
    acknowledge_s: float = 0.003
    max_requests: int = 2048  # flows, and revalidations beside them
    better_answer_s: float = 0.05  # how long, beside 2 RTT, an A=0 answer waits for an A=1 one
    staleness_s: float = 1.0  # S: an A=1 answer that took longer counts as A=0
    unknown_s: float = 3.0  # negative cache for "unknown for now": short, it may register soon
    negative_s: float = 60.0  # most that any other negative answer is believed
    unsure_negative_s: float = 1.0  # an A=0 negative answer
    max_negative: int = 4096  # the oldest makes room
    refusals_per_s: float = 100.0  # ICMP errors to local senders
    refusals_per_flow: int = 10  # when the packets held for one destination are given up

    # Mappings. A peer with more prefixes than this is refused: AllowedIPs are set whole.
    max_peers: int = 16_384
    max_prefixes_per_peer: int = 256
    max_withdrawn: int = 4096  # remembered withdrawals: what a late push may not bring back
    revalidate_retry_s: float = 30.0  # between questions for a mapping past its TTL
    revalidate_spread_s: float = 5.0  # jitter, so that peers of one TTL are not asked at once
    revalidate_second_s: float = 20.0  # the same, where a server is left that pushes changes
    revalidate_per_s: float = 20.0  # of one agent: a thousand of them regain a server as one

    # Without authority: an answer of a server out of touch, or of our own cache, is used for so
    # long at most (configured), counted from when it was confirmed last.
    unconfirmed_s: float = 86_400.0
    cache_peers: int = 1024  # (configured; 0: no cache)
    cache_first_s: float = 1.0  # a change is on disk so much later,
    cache_save_s: float = 30.0  # and so long after the one before
    # No server answers: known where all are silent, else after this long it is taken for so.
    recall_s: float = 1.5
    recall_again_s: float = 0.1  # between two looks whether they are silent

    # Handshakes. The puller initiates at once; the pushed side waits this long (and an RTT).
    fallback_s: float = 0.15
    fallback_jitter_s: float = 0.05
    # An initiation that came so long after its peer was decided on found it in the device.
    race_s: float = 0.02
    # One that came while its peer was being set may be in WireGuard's hands: if it gets it a second
    # time at that moment, it may take it twice.
    settle_s: float = 0.003
    # Beside kick_rtts: a tunnel that does not stand by then is kicked. Well after the fallback, or
    # the two would cross; and peers may be further away than the servers that the RTT is from.
    kick_s: float = 0.25
    kick_rtts: float = 3.0
    second_s: float = 0.15  # more, for the side that leaves the kick to the other
    kick_both_rtts: float = 2.0  # where both pulled at once and two initiations have crossed
    # WireGuard takes one initiation of a peer in 20 ms (INITIATIONS_PER_SECOND is 50).
    flood_s: float = 0.025
    kick_cap_s: float = 5.0  # back-off between kicks; WireGuard's own retry is as slow
    look_s: float = 0.04  # beside look_rtts: by then an initiation has its response
    look_rtts: float = 1.25
    look_again_s: float = 0.05  # (or half an RTT) between looks until the kick
    poll_s: float = 0.02  # least time between two readings of the data device
    keepalive_s: int = 25  # set to start a handshake without data, then cleared
    # A pushed peer that nothing comes from pulled nobody (its mapping changed, or it is gone). It
    # leaves, so that what is sent to it comes to us again and makes a question that tells it of us.
    pushed_unheard_s: float = 3.0
    never_stood_s: float = 90.0  # a peer without any handshake goes: WireGuard gives up as well
    standing_s: float = 180.0  # WireGuard's REJECT_AFTER_TIME: an older session is no session

    # A peer's new key beside its old one, which goes on meanwhile: tried for so long (where the old
    # one falls silent, no longer), and again after this and twice that each time.
    succession_s: float = 60.0
    succession_kick_s: float = 1.0

    # Watching peers that stand.
    watch_s: float = 2.0  # between two readings of the data device while there are peers,
    watch_rest: float = 30.0  # or so many times what one took (10,000 peers: 0.1 to 0.2 s),
    watch_cap_s: float = 10.0  # but no longer than this
    # We sent data and nothing at all came back, counted from the reading before: 2 s on average.
    silent_s: float = 3.0
    probe_wait_s: float = 1.0  # beside 2 RTT: an answer to the probe inside the tunnel
    recovery_first_s: float = 0.25  # first repeated question for a peer that may have moved
    recovery_spread_s: float = 0.002  # for each peer, so that all are not asked for at once
    recovery_cap_s: float = 15.0
    looks_per_s: float = 500.0  # questions for peers that are looked for, of all together
    looks_burst: float = 200.0
    moves_per_s: float = 5.0  # a flapping interface is followed no faster,
    moves_burst: float = 4.0  # but a change in steps (addresses of two families, new and old) is

    # A peer with several endpoints. From another than the first the way back is tried after this
    # (configured), doubled up to the cap; a try without an answer costs so long (beside 2 RTT).
    way_back_s: float = 60.0
    way_back_cap_s: float = 900.0
    way_trial_s: float = 0.25

    # Registration and servers.
    # Beside 4 RTT (a commit takes some between servers): then the next server is tried as well,
    # which does no harm. One that does not even answer a probe is not given that long. A peer that
    # moved together with us finds us only by what is registered: longer shows as silence.
    register_first_s: float = 0.06
    register_cap_s: float = 5.0
    refresh_s: float = 60.0  # an unchanged register is repeated (or after a third of its TTL)
    repeat_spread_s: float = 2.0  # a register is repeated so soon after all servers were gone
    max_servers: int = 32
    probe_s: float = 10.0  # a server that we did not hear for this long is asked something
    server_silent_s: float = 1.0  # beside 3 RTT without any answer: silent
    servers_first_s: float = 1.0  # the server set is asked for so soon after the start,
    servers_retry_s: float = 10.0  # so often until it is known,
    servers_again_s: float = 900.0  # and then within its TTL
    servers_soon_s: float = 30.0  # within this where a server lost who had asked it
    servers_lost_s: float = 30.0  # all are silent for so long: those of the start are tried again
    server_probe_first_s: float = 1.0
    control_keepalive_s: int = 25
    # A server may learn of our key only after our first initiation: WireGuard would wait 5 s.
    control_kick_s: float = 1.0
    control_kick_cap_s: float = 30.0
    deaf_s: float = 6.0  # a rebooted server starts its handshakes itself: it is given this long

    @classmethod
    def configured(
        cls, unanswered_s: float, never_stood_s: float, unconfirmed_s: float, cache_peers: int
    ) -> Self:
        """Make the settings of an agent.

        ``unanswered_s``: when a question without an answer is given up; ``never_stood_s``: when a
        peer is that was never heard; ``unconfirmed_s``: when one is that only an answer without
        authority tells of; ``cache_peers``: how many are remembered (0: none).
        """
        return cls(
            request_give_up_s=unanswered_s,
            hold_s=unanswered_s + HOLD_LONGER_S,
            never_stood_s=never_stood_s,
            unconfirmed_s=unconfirmed_s,
            cache_peers=cache_peers,
        )
