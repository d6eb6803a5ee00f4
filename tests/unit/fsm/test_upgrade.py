"""Servers of two versions in one cluster: an old one stops at a new command, and says so."""

from dataclasses import replace

import msgpack
import pytest

from support import fsm
from wgmap.errors import UnavailableError
from wgmap_cluster.fsm import commands
from wgmap_cluster.fsm.commands import Op, encode
from wgmap_cluster.fsm.machine import Machine
from wgmap_cluster.fsm.results import Reason, Refused
from wgmap_cluster.raft.interface import CannotApplyError, Member, MemberStatus
from wgmap_cluster.replica.notes import ServerNote
from wgmap_cluster.replica.proposing import require_all_read

_TOO_NEW = f"version {commands.VERSION + 1}; this server reads up to {commands.VERSION}: upgrade it"
NEW = msgpack.packb([commands.VERSION + 1, 99, "what a later version means by it"])


def test_a_command_of_a_later_version_is_not_passed_by() -> None:
    machine = Machine()
    machine.apply(1, encode(fsm.bootstrap(3)))
    before = (machine.index, dict(machine.state.meta))
    with pytest.raises(CannotApplyError, match=_TOO_NEW):
        machine.apply(2, NEW)
    assert (machine.index, dict(machine.state.meta)) == before


@pytest.mark.parametrize("version", [0, -1, "2", None, True])
def test_what_has_no_version_is_a_bad_command_everywhere(version: object) -> None:
    applied = Machine().apply(1, msgpack.packb([version, 1]))
    assert isinstance(applied.result, Refused)
    assert applied.result.reason is Reason.BAD_COMMAND


def test_a_command_carries_the_first_version_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert msgpack.unpackb(encode(commands.Advance(1.0)))[0] == 1
    monkeypatch.setitem(commands.SINCE, Op.ADVANCE, 2)
    assert msgpack.unpackb(encode(commands.Advance(1.0)))[0] == 2


def test_a_field_that_came_later_is_written_only_where_it_is_given() -> None:
    plain = msgpack.unpackb(encode(commands.Revoke("a1", fsm.ORIGIN)))
    assert plain == [1, Op.REVOKE, "a1", list(fsm.ORIGIN)], "as version 1 wrote it"
    bound = commands.Revoke("a1", fsm.ORIGIN, 7)
    assert msgpack.unpackb(encode(bound)) == [3, *plain[1:], 7]
    assert commands.decode(encode(bound)) == bound
    assert commands.decode(msgpack.packb(plain)) == replace(bound, if_revision=None)


def test_an_instance_is_set_as_version_1_wrote_it_unless_on_condition() -> None:
    plain = msgpack.unpackb(encode(commands.SetInstance(7, fsm.ORIGIN, max_mappings=5)))
    assert plain == [1, Op.SET_INSTANCE, 7, list(fsm.ORIGIN), None, 5]
    bound = commands.SetInstance(7, fsm.ORIGIN, max_mappings=5, if_tag=9)
    assert msgpack.unpackb(encode(bound)) == [4, *plain[1:], 9]
    assert commands.decode(encode(bound)) == bound


def _status(name: str, reads: int | None) -> MemberStatus:
    note = b"" if reads is None else ServerNote(1, True, None, reads=reads).encode()
    return MemberStatus(name, connected=True, note=note, heard_s=0.1)


@pytest.mark.parametrize("reads", [1, None])
def test_a_new_command_waits_for_the_last_server(reads: int | None) -> None:
    members = [Member(name, "[fd00::1]:1") for name in ("ms1", "ms2", "ms3")]
    others = {"ms2": _status("ms2", 2), "ms3": _status("ms3", reads)}
    with pytest.raises(UnavailableError, match="upgrade ms3"):
        require_all_read(2, "ms1", members, others)
    require_all_read(2, "ms1", members, {**others, "ms3": _status("ms3", 2)})
    require_all_read(2, "ms1", members[:2], others)


def test_a_note_of_before_says_version_1() -> None:
    old = msgpack.packb([1, 7, True, None, False])
    note = ServerNote.decode(old)
    assert note is not None
    assert note.reads == 1
