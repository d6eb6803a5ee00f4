"""Hypothesis strategies for every message that can be written."""

import ipaddress
from ipaddress import IPv4Address, IPv6Address

from hypothesis import strategies as st

from wgmap.addresses import IPAddress, IPNetwork
from wgmap.lisp.messages import (
    Action,
    Authentication,
    Eid,
    Encapsulated,
    Locator,
    LocatorForm,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    MapRequest,
    Message,
    Record,
    RequestRecord,
    XtrId,
)

flags = st.booleans()
bytes_8 = st.integers(0, 255)
ports = st.integers(1, 65535)
nonces = st.integers(0, (1 << 64) - 1)
addresses_4: st.SearchStrategy[IPAddress] = st.integers(0, (1 << 32) - 1).map(IPv4Address)
addresses_6: st.SearchStrategy[IPAddress] = st.integers(0, (1 << 128) - 1).map(IPv6Address)
addresses = addresses_4 | addresses_6
instances = st.just(0) | st.integers(0, (1 << 32) - 1)
xtrs = st.none() | st.builds(
    XtrId, st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8)
)


@st.composite
def prefixes(draw: st.DrawFn) -> IPNetwork:
    """Any prefix without host bits."""
    address = draw(addresses)
    length = draw(st.integers(0, address.max_prefixlen))
    return ipaddress.ip_network((address, length), strict=False)


eids = st.builds(Eid, prefixes(), instances)
host_eids = st.builds(Eid, st.builds(ipaddress.ip_network, addresses), instances)


@st.composite
def locators(draw: st.DrawFn) -> Locator:
    """Any locator that its form can carry."""
    form = draw(st.sampled_from(LocatorForm))
    plain = form is LocatorForm.PLAIN
    nat = form in {LocatorForm.WGMAP, LocatorForm.KEY_NAT}
    return Locator(
        draw(addresses),
        draw(ports) if nat else 51820,
        None if plain else draw(st.binary(min_size=32, max_size=32)),
        False if plain else draw(flags),
        draw(bytes_8),
        draw(bytes_8),
        draw(bytes_8),
        draw(bytes_8),
        local=draw(flags),
        probed=draw(flags),
        reachable=draw(flags),
        private_address=draw(st.none() | addresses) if nat else None,
        form=form,
    )


def tuples(values: st.SearchStrategy[object], least: int = 0) -> st.SearchStrategy[object]:
    """Short tuples of values."""
    return st.lists(values, min_size=least, max_size=3).map(tuple)


records = st.builds(
    Record,
    eids,
    tuples(locators()),
    st.integers(0, (1 << 32) - 1),
    st.sampled_from(Action),
    flags,
    st.integers(0, 4095),
)
usual_records = st.builds(  # as map servers write them
    Record,
    eids,
    tuples(
        st.builds(
            Locator,
            addresses,
            ports,
            st.binary(min_size=32, max_size=32),
            flags,
            bytes_8,
            bytes_8,
            bytes_8,
            bytes_8,
            local=flags,
            probed=flags,
            reachable=flags,
        )
    ),
    st.integers(0, (1 << 32) - 1),
    st.sampled_from(Action),
    flags,
    st.integers(0, 4095),
)
authentications = st.builds(Authentication, bytes_8, bytes_8, st.binary(max_size=40))
map_requests = st.builds(
    MapRequest,
    nonces,
    tuples(addresses, 1),
    tuples(st.builds(RequestRecord, eids, flags)),
    st.none() | host_eids,
    authoritative=flags,
    map_reply_record=st.none() | records,
    probe=flags,
    smr=flags,
    pitr=flags,
    smr_invoked=flags,
    local_xtr=flags,
    dont_map_reply=flags,
    xtr=xtrs,
)
map_replies = st.builds(
    MapReply, nonces, tuples(records), probe=flags, echo_nonce=flags, security=flags
)
map_registers = st.builds(
    MapRegister,
    nonces,
    tuples(records),
    authentications,
    proxy_reply=flags,
    security=flags,
    no_merge=flags,
    use_ttl=flags,
    merge=flags,
    mobile=flags,
    want_notify=flags,
    xtr=xtrs,
)
map_notifies = st.builds(MapNotify, nonces, tuples(records), authentications, xtrs)
map_notify_acks = st.builds(MapNotifyAck, nonces, tuples(records), authentications, xtrs)


@st.composite
def encapsulated(draw: st.DrawFn) -> Encapsulated:
    """Any Map-Request in an IP packet."""
    inner = draw(st.sampled_from((addresses_4, addresses_6)))
    return Encapsulated(
        draw(inner),
        draw(st.integers(0, 65535)),
        draw(inner),
        draw(st.integers(0, 65535)),
        draw(map_requests),
        ddt_originated=draw(flags),
        to_etr=draw(flags),
        to_map_server=draw(flags),
    )


messages: st.SearchStrategy[Message] = st.one_of(
    map_requests, map_replies, map_registers, map_notifies, map_notify_acks, encapsulated()
)
