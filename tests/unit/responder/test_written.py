"""Records written from rows are to the byte those of the codec."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from wgmap.addresses import prefix_to_bytes
from wgmap.lisp.reader import Reader
from wgmap.lisp.records import encode_record, read_record
from wgmap_cluster.fsm.rows import LocatorRow, MappingRow
from wgmap_cluster.responder.answers import join
from wgmap_cluster.responder.written import (
    has_key,
    is_of_host,
    mapping_record,
    narrowed,
    place_of,
    record_bytes,
    without_authority,
)

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
    st.lists(locators, min_size=1, max_size=5).map(tuple),
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


@given(places)
def test_what_is_read_of_a_record_is_what_was_written(place: tuple[int, bytes, MappingRow]) -> None:
    instance, prefix, row = place
    record = record_bytes(*place)
    assert place_of(record) == (instance, prefix)
    assert has_key(record) == bool(row.key)
    assert is_of_host(record) == (prefix[0] == 8 * len(prefix[1:]))
    read = read_record(Reader(record))
    assert (read.ttl_min, read.version) == (row.ttl_min, row.version)


@given(places, st.integers(0, 128))
def test_a_part_is_the_same_record_with_another_prefix(
    place: tuple[int, bytes, MappingRow], longer: int
) -> None:
    instance, prefix, row = place
    part = bytes((min(prefix[0] + longer, 8 * len(prefix[1:])),)) + prefix[1:]
    assert narrowed(record_bytes(*place), part) == record_bytes(instance, part, row)


@given(st.lists(places, max_size=4))
def test_the_bit_of_authority_is_taken_away_and_nothing_else(
    several: list[tuple[int, bytes, MappingRow]],
) -> None:
    written = tuple(record_bytes(*place) for place in several)
    records = [mapping_record(*place) for place in several]
    assert without_authority(written) == join(records, authoritative=False).data
