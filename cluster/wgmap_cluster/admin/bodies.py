"""What clients send, checked field by field before anything else sees it."""

import ipaddress
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, StringConstraints, ValidationError, model_validator

from wgmap.addresses import IPAddress, IPNetwork
from wgmap.config import (
    AddressField,
    KeyField,
    NameField,
    NetworkField,
    Section,
    first_fault,
)
from wgmap.errors import ConfigError
from wgmap_cluster.fsm.commands import MAX_ENDPOINTS, MAX_PREFIXES
from wgmap_cluster.replica.operations import Enrolment

MAX_BODY_BYTES = 64 * 1024
MAX_INSTANCE = (1 << 32) - 1
MAX_SECRET = 128  # characters of a shared secret

SectionT = TypeVar("SectionT", bound=Section)


class PeerBody(Section):
    """``POST /v1/peers``."""

    name: NameField
    prefixes: Annotated[tuple[NetworkField, ...], Field(min_length=1, max_length=MAX_PREFIXES)]
    control_key: KeyField | None = None
    control_address: AddressField | None = None
    endpoint_allow: Annotated[tuple[NetworkField, ...], Field(max_length=MAX_ENDPOINTS)] = ()
    instance: Annotated[int, Field(strict=True, ge=0, le=MAX_INSTANCE)] = 0
    lisp_key: Annotated[
        str | None, StringConstraints(strict=True, min_length=1, max_length=MAX_SECRET)
    ] = None
    lisp_auth: Literal["sha256", "sha1"] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.control_key is None) == (self.control_address is None):
            msg = "either control_key or control_address"
            raise ValueError(msg)
        if self.lisp_auth is not None and self.lisp_key is None:
            msg = "lisp_auth without lisp_key"
            raise ValueError(msg)
        return self

    def enrolment(self) -> Enrolment:
        """Return what it asks for."""
        return Enrolment(
            self.name,
            self.prefixes,
            self.control_key,
            self.control_address,
            self.endpoint_allow,
            self.instance,
            (self.lisp_key or "").encode(),
            self.lisp_auth or "sha256",
        )


def parse(data: bytes, kind: type[SectionT]) -> SectionT:
    """Read a JSON body; raises ConfigError naming the field."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise ConfigError(first_fault(error, "the body")) from None


def parse_eid(text: str) -> IPAddress | IPNetwork:
    """Read an address or a prefix; raises ConfigError."""
    try:
        return ipaddress.ip_network(text) if "/" in text else ipaddress.ip_address(text)
    except ValueError as error:
        raise ConfigError(f"eid: {error}") from error


def parse_instance(text: str) -> int:
    """Read an instance id; raises ConfigError."""
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= MAX_INSTANCE):
        raise ConfigError(f"instance: {text!r} is not a number from 0 to {MAX_INSTANCE}")
    return int(text)
