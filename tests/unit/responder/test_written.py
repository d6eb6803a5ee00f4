"""Records written from rows are to the byte those of the codec."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from wgmap.addresses import prefix_to_bytes
from wgmap.lisp.records import encode_record
from wgmap_cluster.fsm.rows import LocatorRow, MappingRow
from wgmap_cluster.responder.answers import join, mapping_record
from wgmap_cluster.responder.written import record_bytes, without_authority

addresses = st.ip_addresses().map(lambda address: address.packed)
bytes_of_8_bits = st.integers(0, 255)
locators = st.builds(
    LocatorRow,
    addresses,
    st.integers(1, 65535),
    bytes_of_8_bits,
    bytes_of_8_bits,
    st.just(b"") | addresses,
)
mappings = st.builds(
    MappingRow,
    st.just("a1"),
    st.just(b"") | st.binary(min_size=32, max_size=32),
    st.lists(locators, max_size=5).map(tuple),
    st.integers(0, 2**32 - 1),
    st.integers(0, 4095),
)
prefixes = st.builds(
    lambda address, length: prefix_to_bytes(
        ipaddress.ip_network(f"{address}/{min(length, address.max_prefixlen)}", strict=False)
    ),
    st.ip_addresses(),
    st.integers(0, 128),
)
instances = st.just(0) | st.integers(1, 2**32 - 1)
places = st.tuples(instances, prefixes, mappings)


@given(places)
def test_a_record_is_written_as_the_codec_writes_it(place: tuple[int, bytes, MappingRow]) -> None:
    assert record_bytes(*place) == encode_record(mapping_record(*place))


@given(st.lists(places, max_size=4))
def test_the_bit_of_authority_is_taken_away_and_nothing_else(
    several: list[tuple[int, bytes, MappingRow]],
) -> None:
    written = tuple(record_bytes(*place) for place in several)
    records = [mapping_record(*place) for place in several]
    assert without_authority(written) == join(records, authoritative=False).data
