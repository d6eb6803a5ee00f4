"""Every named packet of the vectors, both directions."""

import json
from pathlib import Path
from typing import Any

import pytest

from wgmap.lisp import auth
from wgmap.lisp.codec import Authenticated, decode, encode
from wgmap.lisp.messages import (
    CodecError,
    Encapsulated,
    LocatorForm,
    MapRegister,
    MapReply,
    MapRequest,
    Message,
)

VECTORS = Path(__file__).parents[2] / "vectors"
SECRET = b"wgmap-golden-secret"
TYPES: dict[str, int] = {
    "MapRequest": 1,
    "MapReply": 2,
    "MapRegister": 3,
    "MapNotify": 4,
    "MapNotifyAck": 5,
    "Encapsulated": 8,
}


def load(name: str, part: str) -> list[Any]:
    """Read one list of a vector file as pytest parameters."""
    vectors = json.loads((VECTORS / name).read_text())[part]
    return [pytest.param(vector, id=vector["name"]) for vector in vectors]


def facts(message: Message) -> dict[str, object]:
    """Say in the vectors' words what a message means."""
    found: dict[str, object] = {"type": TYPES[type(message).__name__]}
    if isinstance(message, Encapsulated):
        inner = {f"inner_{key}": value for key, value in facts(message.message).items()}
        endpoints = {
            "source": f"{message.source} {message.source_port}",
            "destination": f"{message.destination} {message.destination_port}",
        }
        return found | inner | endpoints | {"inner": 1}
    found["nonce"] = message.nonce
    if isinstance(message, MapRequest):
        found |= _request_facts(message)
    else:
        found |= _record_facts(message)
    if not isinstance(message, MapReply) and message.xtr is not None:
        found |= {"xtr_id": message.xtr.xtr_id.hex(), "site_id": message.xtr.site_id.hex(), "I": 1}
    return found


def _request_facts(message: MapRequest) -> dict[str, object]:
    record = message.records[0]
    return {
        "eid": str(record.eid.prefix),
        "iid": record.eid.instance,
        "N": int(record.subscribe),
        "irc": len(message.itr_rlocs) - 1,
        "itr_rlocs": [str(address) for address in message.itr_rlocs],
        "source_eid": str(message.source_eid.prefix) if message.source_eid else None,
        "S": int(message.smr),
        "s": int(message.smr_invoked),
        "D": int(message.dont_map_reply),
        "M": int(message.map_reply_record is not None),
    }


def _record_facts(message: MapReply | Authenticated) -> dict[str, object]:
    if not message.records:
        return {}
    record = message.records[0]
    found: dict[str, object] = {
        "eid": str(record.eid.prefix),
        "iid": record.eid.instance,
        "ttl": record.ttl_min,
        "act": int(record.action),
        "A": int(record.authoritative),
        "version": record.version,
        "locators": len(record.locators),
    }
    if not isinstance(message, MapReply):
        authentication = message.authentication
        found |= {"keyid": authentication.key_id, "alg": authentication.algorithm}
        found["authlen"] = len(authentication.data)
    for locator in record.locators[:1]:
        found["key"] = locator.key.hex() if locator.key else None
        bracketed = f"[{locator.address}]" if locator.address.version == 6 else locator.address
        found["endpoint"] = f"{bracketed}:{locator.port}"
        found["private"] = str(locator.private_address) if locator.private_address else None
        found["form"] = LocatorForm(locator.form).name
        found["revoked"] = int(locator.key_revoked)
    return found


GOOD = load("lisp.json", "good") + load("lisp-extra.json", "good")
MALFORMED = load("lisp.json", "malformed") + load("lisp-extra.json", "malformed")


@pytest.mark.parametrize("vector", GOOD)
def test_good_packet_means_what_it_should(vector: dict[str, Any]) -> None:
    found = facts(decode(bytes.fromhex(vector["hex"])))

    assert {key: found.get(key) for key in vector["expect"]} == vector["expect"]


@pytest.mark.parametrize("vector", GOOD)
def test_good_packet_is_written_back(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    canonical = bytes.fromhex(vector.get("canonical", vector["hex"]))

    assert encode(decode(data)).hex() == canonical.hex()
    assert decode(canonical) == decode(data)


@pytest.mark.parametrize("vector", MALFORMED)
def test_malformed_packet(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    if vector["level"] == "codec":
        with pytest.raises(CodecError) as caught:
            decode(data)
        assert 0 <= caught.value.offset <= len(data)
        assert vector.get("reason", "") in caught.value.reason
    else:
        assert encode(decode(data)) == data


@pytest.mark.parametrize("vector", [v for v in GOOD if v.values[0]["expect"].get("alg")])
def test_signed_packet_verifies(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    message = decode(data)
    assert not isinstance(message, MapRequest | MapReply | Encapsulated)

    sha1 = message.authentication.algorithm == 1
    assert auth.verify(data, message, SECRET, legacy_sha1=sha1)
    assert not auth.verify(data, message, SECRET + b"x", legacy_sha1=sha1)
    assert auth.sign_like(data, message.authentication, SECRET) == data


def test_flipped_mac_is_seen() -> None:
    (vector,) = (v.values[0] for v in MALFORMED if v.id == "bad-mac")
    data = bytes.fromhex(vector["hex"])
    message = decode(data)

    assert isinstance(message, MapRegister)
    assert not auth.verify(data, message, SECRET)
