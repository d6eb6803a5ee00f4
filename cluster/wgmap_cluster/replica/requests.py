"""What operators ask for, and the commands that it becomes."""

from dataclasses import dataclass, field

from wgmap.addresses import IPAddress, IPNetwork, prefix_to_bytes
from wgmap.wg.keys import PublicKey
from wgmap_cluster.fsm.commands import Enrol, Origin, SetPeer
from wgmap_cluster.replica.views import LISP_AUTH


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A peer to enrol: with a control key (an agent) or an address (a plain LISP client)."""

    name: str
    prefixes: tuple[IPNetwork, ...]
    control_key: PublicKey | None = None
    control_address: IPAddress | None = None
    endpoint_allow: tuple[IPNetwork, ...] = ()
    instance: int = 0
    lisp_key: bytes = field(default=b"", repr=False)
    lisp_auth: str = "sha256"
    limit: int = 0  # of prefixes and mappings; 0: the default


@dataclass(frozen=True, slots=True)
class PeerChange:
    """What to change of a peer; None leaves it. ``revision``: only if that is the present one."""

    new_name: str | None = None
    prefixes: tuple[IPNetwork, ...] | None = None
    endpoint_allow: tuple[IPNetwork, ...] | None = None
    control_key: PublicKey | None = None
    lisp_key: bytes | None = field(default=None, repr=False)
    lisp_auth: str | None = None
    limit: int | None = None
    revision: int | None = None


def enrol_command(enrolment: Enrolment, origin: Origin) -> Enrol:
    """Build the command that enrols a peer."""
    address = enrolment.control_address
    return Enrol(
        enrolment.name,
        enrolment.instance,
        tuple(map(prefix_to_bytes, enrolment.prefixes)),
        origin,
        control_key=bytes(enrolment.control_key or b""),
        control_address=address.packed if address is not None else b"",
        endpoint_allow=tuple(map(prefix_to_bytes, enrolment.endpoint_allow)),
        lisp_key=enrolment.lisp_key,
        lisp_auth=LISP_AUTH[enrolment.lisp_auth] if enrolment.lisp_key else 0,
        limit=enrolment.limit,
    )


def set_command(name: str, change: PeerChange, origin: Origin) -> SetPeer:
    """Build the command that changes a peer."""
    return SetPeer(
        name,
        origin,
        prefixes=_prefixes(change.prefixes),
        endpoint_allow=_prefixes(change.endpoint_allow),
        control_key=None if change.control_key is None else bytes(change.control_key),
        lisp_key=change.lisp_key,
        lisp_auth=None if change.lisp_auth is None else LISP_AUTH[change.lisp_auth],
        new_name=change.new_name,
        limit=change.limit,
        if_revision=change.revision,
    )


def _prefixes(networks: tuple[IPNetwork, ...] | None) -> tuple[bytes, ...] | None:
    return None if networks is None else tuple(map(prefix_to_bytes, networks))
