r"""First contact with a destination: the states of a flow and its transitions, as one table.

::

    PACKET                      FOUND
    ------> ASKING ---------------------------------> SENDING --. KICKED: send again
              |    \                                  ^ |  ^  <-'
              |     \ FOUND_BOTH_PULL       RELEASED / |  | PACKET_KNOWN
              |      '---------> WAITING ------------'  |
              |                   |  ^ PACKET_PASSIVE   | STANDS
              | NOT_FOUND,        | STANDS              v
              | GAVE_UP: refuse   '---------------> PASSING --. PACKET: send
              v                                       |    <--'
            (gone)                                    v OUT
                                                    LEFT ----> KICKED: SENDING
                                                      v PROVED, GAVE_UP: forget
                                                    (gone)

A flow that is gone has nothing held. WAITING is the higher key where both sides pulled each
other at once: any packet that reaches the data device starts a handshake, and two initiations
that cross destroy each other. What is sent goes out in portions (``outlet``); copies are kept until
the tunnel stands, because a kick drops what the device has, and in LEFT until the other side has
shown that it has the session: a response says that it had it once (``watch``).
"""

from dataclasses import dataclass
from enum import Enum, auto

from wgmap.addresses import IPAddress
from wgmap.wg.keys import PublicKey


class State(Enum):
    """Where first contact with one destination stands."""

    NEW = auto()  # nothing is known, nothing held
    ASKING = auto()  # a Map-Request is out
    WAITING = auto()  # the peer is installed; it is its turn to initiate
    SENDING = auto()  # packets are handed to WireGuard, copies kept until the handshake stands
    PASSING = auto()  # it stands; what is left of them goes out
    LEFT = auto()  # all went out; copies are kept until the other side is known to have the session
    GONE = auto()


class Event(Enum):
    """What happens to a flow."""

    PACKET = auto()  # came out of the TUN
    PACKET_KNOWN = auto()  # the same, and the peer is installed and ours to initiate
    PACKET_PASSIVE = auto()  # the same, and it is the installed peer's turn to initiate
    FOUND = auto()  # peer and route are installed, and it is our turn to initiate
    FOUND_BOTH_PULL = auto()  # installed, but the other side pulls us and its key is lower
    RELEASED = auto()  # the other side did not initiate in time
    HELD_BACK = auto()  # the destination has another key, and does not know us yet
    KICKED = auto()  # the peer was removed and added: what it had staged is lost
    STANDS = auto()  # the handshake is complete
    OUT = auto()  # all was handed over
    PROVED = auto()  # and the other side has shown that it has the session
    NOT_FOUND = auto()  # a negative answer
    GAVE_UP = auto()  # no answer, or the time that packets are held is over
    PEER_GONE = auto()  # the mapping was withdrawn or its peer removed


class Step(Enum):
    """What is done with the held packets on a transition."""

    HOLD = auto()  # keep the packet that came
    HOLD_AND_ASK = auto()  # keep it and send a Map-Request
    HOLD_AND_SEND = auto()  # keep a copy, hand it to WireGuard
    SEND = auto()  # hand it to WireGuard
    SEND_COPIES = auto()  # hand all to WireGuard, keep copies
    SEND_REST = auto()  # hand over what was not yet
    FORGET = auto()  # they were delivered
    REFUSE = auto()  # tell the senders
    DROP = auto()  # too old for telling anyone
    NOTHING = auto()


TRANSITIONS: dict[tuple[State, Event], tuple[State, Step]] = {
    (State.NEW, Event.PACKET): (State.ASKING, Step.HOLD_AND_ASK),
    (State.NEW, Event.PACKET_KNOWN): (State.SENDING, Step.HOLD_AND_SEND),
    (State.NEW, Event.PACKET_PASSIVE): (State.WAITING, Step.HOLD),
    (State.ASKING, Event.PACKET): (State.ASKING, Step.HOLD),
    (State.ASKING, Event.FOUND): (State.SENDING, Step.SEND_COPIES),
    (State.ASKING, Event.FOUND_BOTH_PULL): (State.WAITING, Step.NOTHING),
    (State.ASKING, Event.NOT_FOUND): (State.GONE, Step.REFUSE),
    (State.ASKING, Event.GAVE_UP): (State.GONE, Step.REFUSE),
    (State.WAITING, Event.PACKET): (State.WAITING, Step.HOLD),
    (State.WAITING, Event.RELEASED): (State.SENDING, Step.SEND_COPIES),
    (State.WAITING, Event.KICKED): (State.SENDING, Step.SEND_COPIES),
    (State.WAITING, Event.STANDS): (State.PASSING, Step.SEND_COPIES),
    (State.WAITING, Event.PEER_GONE): (State.GONE, Step.REFUSE),
    (State.WAITING, Event.GAVE_UP): (State.GONE, Step.DROP),
    (State.SENDING, Event.PACKET): (State.SENDING, Step.HOLD_AND_SEND),
    (State.SENDING, Event.HELD_BACK): (State.WAITING, Step.NOTHING),
    (State.SENDING, Event.KICKED): (State.SENDING, Step.SEND_COPIES),
    (State.SENDING, Event.STANDS): (State.PASSING, Step.SEND_REST),
    (State.SENDING, Event.PEER_GONE): (State.GONE, Step.REFUSE),
    (State.SENDING, Event.GAVE_UP): (State.GONE, Step.DROP),
    (State.PASSING, Event.PACKET): (State.PASSING, Step.HOLD_AND_SEND),
    (State.PASSING, Event.KICKED): (State.SENDING, Step.SEND_COPIES),
    (State.PASSING, Event.OUT): (State.LEFT, Step.NOTHING),
    (State.PASSING, Event.PEER_GONE): (State.GONE, Step.REFUSE),
    (State.PASSING, Event.GAVE_UP): (State.GONE, Step.DROP),
    (State.LEFT, Event.PACKET): (State.LEFT, Step.SEND),
    (State.LEFT, Event.PROVED): (State.GONE, Step.FORGET),
    (State.LEFT, Event.KICKED): (State.SENDING, Step.SEND_COPIES),
    (State.LEFT, Event.HELD_BACK): (State.WAITING, Step.NOTHING),
    (State.LEFT, Event.PEER_GONE): (State.GONE, Step.FORGET),
    (State.LEFT, Event.GAVE_UP): (State.GONE, Step.FORGET),
}


@dataclass(slots=True)
class Flow:
    """One destination in first contact."""

    destination: IPAddress
    started: float
    state: State = State.NEW
    key: PublicKey | None = None  # whose tunnel it waits for, once found

    def on(self, event: Event) -> Step:
        """Make the transition; an event that means nothing in this state changes nothing."""
        self.state, step = TRANSITIONS.get((self.state, event), (self.state, Step.NOTHING))
        return step
