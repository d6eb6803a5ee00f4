"""Strict TOML configuration: an unknown key or a wrong value is one line that names it."""

import ipaddress
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    PlainValidator,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)

from wgmap.addresses import Endpoint, IPAddress, IPNetwork, parse_address
from wgmap.errors import ConfigError
from wgmap.wg.keys import PublicKey

MAX_FILE_BYTES = 1 << 20
T = TypeVar("T")


def _text(parse: Callable[[str], T], kind: type | tuple[type, ...]) -> PlainValidator:
    def convert(value: Any) -> T:
        if isinstance(value, kind):
            return value  # type: ignore[return-value]  # built in Python, not read from a file
        if not isinstance(value, str):
            msg = f"expected a string, got {value!r}"
            raise ValueError(msg)  # noqa: TRY004  # pydantic turns ValueErrors into messages
        return parse(value)

    return PlainValidator(convert)


_ADDRESSES = (ipaddress.IPv4Address, ipaddress.IPv6Address)
_NETWORKS = (ipaddress.IPv4Network, ipaddress.IPv6Network)


def _schema(what: str, **more: Any) -> WithJsonSchema:
    """Describe a text for the API's description: JSON Schema knows none of these formats."""
    return WithJsonSchema({"type": "string", "description": what, **more})


AddressField = Annotated[
    IPAddress,
    _text(parse_address, _ADDRESSES),
    _schema("An IPv4 or IPv6 address.", anyOf=[{"format": "ipv4"}, {"format": "ipv6"}]),
]
Address6Field = Annotated[
    ipaddress.IPv6Address,
    _text(ipaddress.IPv6Address, ipaddress.IPv6Address),
    _schema("An IPv6 address.", format="ipv6"),
]
NetworkField = Annotated[
    IPNetwork,
    _text(ipaddress.ip_network, _NETWORKS),
    _schema(
        "A prefix without host bits, or an address.",
        anyOf=[{"format": "ipv4"}, {"format": "ipv6"}, {"pattern": "^[0-9A-Fa-f.:]+/[0-9]{1,3}$"}],
    ),
]
Network6Field = Annotated[
    ipaddress.IPv6Network, _text(ipaddress.IPv6Network, ipaddress.IPv6Network)
]
KeyField = Annotated[
    PublicKey,
    _text(PublicKey.parse, PublicKey),
    _schema("A public key in base64.", pattern="^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"),
]
EndpointField = Annotated[
    Endpoint,
    _text(Endpoint.parse, Endpoint),
    _schema("ADDRESS:PORT, IPv6 in brackets.", pattern="^[^ ]+:[0-9]{1,5}$"),
]
Listen: TypeAlias = Path | Endpoint


def _listen(text: str) -> Listen:
    return Path(text) if text.startswith("/") else Endpoint.parse(text)


ListenField = Annotated[Listen, _text(_listen, (Path, Endpoint))]  # "/path.sock", "ADDRESS:PORT"
InterfaceField = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.=+-]{1,15}$")]
NameField = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


class Section(BaseModel):
    """Base of every section of a configuration file: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


SectionT = TypeVar("SectionT", bound=Section)


def load(path: Path, kind: type[SectionT]) -> SectionT:
    """Read a TOML file as ``kind``; raises ConfigError naming file, key and reason."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise ConfigError(msg) from error
    if len(data) > MAX_FILE_BYTES:
        msg = f"{path}: over {MAX_FILE_BYTES} bytes"
        raise ConfigError(msg)
    return parse(data, kind, str(path))


def parse(data: bytes, kind: type[SectionT], name: str) -> SectionT:
    """Read TOML as ``kind``; ``name`` stands for the file in errors. Raises ConfigError."""
    try:
        return kind.model_validate(tomllib.loads(data.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{name}: {error}"
        raise ConfigError(msg) from error
    except ValidationError as error:
        msg = f"{name}: {first_fault(error, 'the file')}"
        raise ConfigError(msg) from None


def first_fault(error: ValidationError, whole: str) -> str:
    """Say in one line which key is wrong and why; ``whole`` names all of it together."""
    first = error.errors(include_url=False)[0]
    # A field that may be one of several things has the name of a reader in brackets behind its own.
    where = ".".join(str(part) for part in first["loc"] if "[" not in str(part)) or whole
    reason = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
    return f"{where}: {reason.removeprefix('Value error, ')}"
