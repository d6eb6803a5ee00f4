"""What a datagram costs of its sender's limit: as many as it asks for, and by its length.

A limit of datagrams alone would leave it to a sender how much work each of them is.
"""

REQUEST_BYTES = 160  # the usual request, also an encapsulated one, is shorter
REGISTER_BYTES = 1024  # two prefixes of a host with several addresses
_MAP_REQUEST, _MAP_REGISTER, _ENCAPSULATED = 1, 3, 8
_COUNT = 3  # the record count of a Map-Request (RFC 9301, section 5.2)
_INNER = {4: 20, 6: 40}  # bytes of the inner IP header, by version
_OUTER, _UDP = 4, 8


def weight(data: bytes) -> int:
    """Return how many of the usual requests, or registers, a datagram is worth; at least 1."""
    kind = data[0] >> 4 if data else 0
    if kind == _MAP_REGISTER:
        return 1 + len(data) // REGISTER_BYTES
    by_length = 1 + len(data) // REQUEST_BYTES
    at = _COUNT
    if kind == _ENCAPSULATED and len(data) > _OUTER:
        at += _OUTER + _UDP + _INNER.get(data[_OUTER] >> 4, 0)
    elif kind != _MAP_REQUEST:
        return by_length
    return max(by_length, data[at]) if len(data) > at else by_length
