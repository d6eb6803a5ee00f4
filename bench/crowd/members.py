"""Who the hosts of a crowd are: everything follows from a number."""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from wgmap.addresses import control_address, host_prefix
from wgmap.wg.keys import PrivateKey
from wgmap_chaos.lab.topology import CONTROL_PREFIX

PLACES = IPv4Network("198.18.0.0/15")  # on the underlay (RFC 2544); all of them one namespace's
EIDS = IPv4Network("10.66.128.0/17")  # above those of a lab's agents
PORT = 51820
MOST = EIDS.num_addresses
_BATCH = 100  # peers of one request to the admin API


@dataclass(frozen=True)
class Member:
    """One host; its keys are made from its number, so that two processes agree on them."""

    number: int

    @property
    def name(self) -> str:
        """Its name as a peer."""
        return f"c{self.number}"

    @property
    def eid(self) -> IPv4Address:
        """Its address in the overlay."""
        return EIDS[self.number]

    @property
    def places(self) -> tuple[IPv4Address, IPv4Address]:
        """Its addresses on the underlay: where it is first, and where it moves to."""
        return PLACES[self.number + 1], PLACES[self.number + 1 + MOST]

    @property
    def place(self) -> IPv4Address:
        """Its first address on the underlay."""
        return self.places[0]

    @cached_property
    def control_key(self) -> PrivateKey:
        """The key of its control tunnels."""
        return self._key("control")

    @cached_property
    def data_key(self) -> PrivateKey:
        """The key of its data tunnels."""
        return self._key("data")

    @cached_property
    def control(self) -> IPv6Address:
        """Its address in the control tunnels."""
        return control_address(CONTROL_PREFIX, self.control_key.public)

    def enrolment(self, *, anywhere: bool) -> dict[str, object]:
        """Return what the admin API wants to know of it.

        ``anywhere``: it may register wherever its control tunnel comes from, as customers are
        enrolled whose address changes; else its place is named.
        """
        return {
            "name": self.name,
            "prefixes": [str(host_prefix(self.eid))],
            "control_key": str(self.control_key.public),
            "endpoint_allow": [] if anywhere else [str(host_prefix(self.place))],
        }

    def _key(self, what: str) -> PrivateKey:
        return PrivateKey(hashlib.sha256(f"{what} {self.number}".encode()).digest())


def members(first: int, count: int) -> list[Member]:
    """Return so many members from a number on."""
    assert first + count <= MOST, f"at most {MOST}"
    return [Member(number) for number in range(first, first + count)]


def enrolments(whom: list[Member], *, anywhere: bool) -> Iterator[dict[str, object]]:
    """Yield the bodies of ``POST /v1/imports`` that enrol these."""
    them = iter(whom)
    while batch := list(itertools.islice(them, _BATCH)):
        yield {"peers": [one.enrolment(anywhere=anywhere) for one in batch]}
