"""What clients send, checked field by field before anything else sees it."""

import ipaddress
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, StringConstraints, ValidationError, model_validator

from wgmap.addresses import IPAddress, IPNetwork, parse_address
from wgmap.config import (
    AddressField,
    KeyField,
    NameField,
    NetworkField,
    Section,
    first_fault,
)
from wgmap.errors import ConfigError
from wgmap.wg.keys import PublicKey
from wgmap_cluster.fsm.commands import (
    MAX_ENDPOINTS,
    MAX_ENROLLED,
    MAX_INSTANCE_MAPPINGS,
    MAX_PREFIXES,
)
from wgmap_cluster.replica.requests import Enrolment, PeerChange

MAX_BODY_BYTES = 64 * 1024
MAX_INSTANCE = (1 << 32) - 1
MAX_SECRET = 128  # characters of a shared secret

SecretField = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=MAX_SECRET)]
LimitField = Annotated[int, Field(strict=True, ge=0, le=MAX_PREFIXES)]
SectionT = TypeVar("SectionT", bound=Section)


class PeerBody(Section):
    """``POST /v1/peers``."""

    name: NameField
    prefixes: Annotated[tuple[NetworkField, ...], Field(min_length=1, max_length=MAX_PREFIXES)]
    control_key: KeyField | None = None
    control_address: AddressField | None = None
    endpoint_allow: Annotated[tuple[NetworkField, ...], Field(max_length=MAX_ENDPOINTS)] = ()
    instance: Annotated[int, Field(strict=True, ge=0, le=MAX_INSTANCE)] = 0
    lisp_key: SecretField | None = None
    lisp_auth: Literal["sha256", "sha1"] | None = None
    limit: LimitField = 0

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
            self.limit,
        )


class SetPeerBody(Section):
    """``PATCH /v1/peers/{name}``: what is absent stays."""

    name: NameField | None = None
    prefixes: Annotated[
        tuple[NetworkField, ...] | None, Field(min_length=1, max_length=MAX_PREFIXES)
    ] = None
    endpoint_allow: Annotated[tuple[NetworkField, ...] | None, Field(max_length=MAX_ENDPOINTS)] = (
        None
    )
    control_key: KeyField | None = None
    lisp_key: SecretField | None = None
    lisp_auth: Literal["sha256", "sha1"] | None = None
    limit: LimitField | None = None

    def change(self, revision: int | None) -> PeerChange:
        """Return what it asks for, of that revision only."""
        return PeerChange(
            self.name,
            self.prefixes,
            self.endpoint_allow,
            self.control_key,
            None if self.lisp_key is None else self.lisp_key.encode(),
            self.lisp_auth,
            self.limit,
            revision,
        )


class ImportBody(Section):
    """``POST /v1/imports``: one batch, all or nothing."""

    peers: Annotated[tuple[PeerBody, ...], Field(min_length=1, max_length=MAX_ENROLLED)]


class InstanceBody(Section):
    """``PATCH /v1/instances/{instance}``: what is absent stays."""

    overlay: Annotated[tuple[NetworkField, ...] | None, Field(max_length=MAX_PREFIXES)] = None
    max_mappings: Annotated[int | None, Field(strict=True, ge=0, le=MAX_INSTANCE_MAPPINGS)] = None


class RestoreOptions(Section):
    """The first line of ``POST /v1/restore``."""

    digest: Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{64}$")]
    revoke: tuple[NameField, ...] = ()


def parse(data: bytes, kind: type[SectionT]) -> SectionT:
    """Read a JSON body; raises ConfigError naming the field."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise ConfigError(first_fault(error, "the body")) from None


def parse_eid(text: str) -> IPAddress | IPNetwork:
    """Read an address or a prefix; raises ConfigError."""
    try:
        return ipaddress.ip_network(text) if "/" in text else parse_address(text)
    except ValueError as error:
        raise ConfigError(f"eid: {error}") from error


def parse_instance(text: str) -> int:
    """Read an instance id; raises ConfigError."""
    return parse_number(text, "instance", MAX_INSTANCE)


def parse_number(text: str, what: str, most: int) -> int:
    """Read a number from 0; raises ConfigError."""
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= most):
        raise ConfigError(f"{what}: {text!r} is not a number from 0 to {most}")
    return int(text)


def parse_key(text: str, what: str) -> PublicKey:
    """Read a public key; raises ConfigError."""
    try:
        return PublicKey.parse(text)
    except ValueError as error:
        raise ConfigError(f"{what}: {error}") from error


def parse_revision(text: str | None) -> int | None:
    """Read the revision in an If-Match header (RFC 9110, 13.1.1); raises ConfigError."""
    if text is None or text.strip() == "*":
        return None
    return parse_number(text.strip().strip('"'), "If-Match", (1 << 63) - 1)
