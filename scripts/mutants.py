"""Break the replicated log in one line at a time and see that a test notices.

Each mutant is a copy of the package with one line changed. It is caught by a test (named below) or
by the simulation (a seed is printed). Exit code 1 if one survives. Run by ``make mutants``.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOM = Path("wgmap_cluster/raft")
PYTHON = ROOT / ".venv/bin/python"
SEEDS = 60
TIMEOUT_S = 120 * float(os.environ.get("WGMAP_TIME_SCALE", "1"))  # 5 on a busy machine


@dataclass(frozen=True)
class Mutant:
    """``old`` becomes ``new``; ``test`` is to notice, or the simulation with ``servers``."""

    name: str
    file: str
    old: str
    new: str
    test: str = ""
    servers: int = 3


MUTANTS = (
    Mutant(
        "truncate always",
        "protocol.py",
        "if index <= wal.first or wal.term_at(index) == term:",
        "if index <= wal.first or index <= self._node.commit:",
        test="test_defects.py::test_p1_entries_sent_again_truncate_nothing",
    ),
    Mutant(
        "vote not persisted",
        "wal.py",
        "self._buffer.append(_record(_TERM, msgpack.packb([term, vote])))",
        "self._buffer.append(_record(_TERM, msgpack.packb([term, None])))",
        test="test_elections.py::test_a_vote_is_kept_over_a_restart",
    ),
    Mutant(
        "term not persisted",
        "wal.py",
        "self._buffer.append(_record(_TERM, msgpack.packb([term, vote])))",
        "pass",
    ),
    Mutant(
        "read without quorum",
        "reads.py",
        "elif self._leading.confirmed(batch.term, batch.number):",
        "elif batch.number:",
        test="test_reads.py::test_a_read_needs_answers_given_after_it_was_asked",
    ),
    Mutant(
        "read before the term's first commit",
        "reads.py",
        "if not (self._waiting or self._remote) or first is None or node.commit < first:",
        "if not (self._waiting or self._remote) or first is None:",
    ),
    Mutant(
        "read before it is applied here",
        "reads.py",
        "ready = [(index, read) for index, read in self._confirmed if index <= applied]",
        "ready = [(index, read) for index, read in self._confirmed if index]",
    ),
    Mutant(
        "acknowledgements of an old term counted",
        "protocol.py",
        "if not core.leading or term != core.term:",
        "if not core.leading:",
        test="test_defects.py::test_p6_an_acknowledgement_of_an_old_term_does_not_count",
    ),
    Mutant(
        "request ids reused",
        "proposals.py",
        "self._next_id = node.rng.getrandbits(48) << 14  # unique to this incarnation (P5)",
        "self._next_id = 0",
        test="test_defects.py::test_p5_an_answer_to_an_earlier_incarnation_is_not_taken_for_ours",
    ),
    Mutant(
        "question numbers reused",
        "questions.py",
        "self._last = self._node.rng.getrandbits(48) << 14",
        "self._last = 0",
        test="test_defects.py::"
        "test_an_answer_to_a_question_of_an_earlier_incarnation_is_not_taken_for_ours",
    ),
    # Before the sync only a leader's entries may leave.
    Mutant(
        "send before sync",
        "node.py",
        "self._sync()  # the point before which nothing else leaves",
        "self._flush(); self._sync()",
    ),
    Mutant(
        "acknowledge before sync",
        "node.py",
        "isinstance(message, messages.AppendEntries)",
        "isinstance(message, messages.AppendEntries | messages.AppendReply)",
    ),
    Mutant(
        "vote before sync",
        "node.py",
        "isinstance(message, messages.AppendEntries)",
        "isinstance(message, messages.AppendEntries | messages.VoteReply)",
    ),
    Mutant(
        "stand for election before sync",
        "node.py",
        "isinstance(message, messages.AppendEntries)",
        "isinstance(message, messages.AppendEntries | messages.RequestVote)",
    ),
    Mutant(
        "a leader does not sync what it counts",
        "node.py",
        "self._sync()  # the point before which nothing else leaves",
        "self.leading and self.wal._buffer.clear(); self.wal.synced = self.wal.last\n"
        "        self._sync()",
    ),
    Mutant(
        "a leader counts once too often",
        "protocol.py",
        "held = sorted([*held, core.wal.synced], reverse=True)",
        "held = sorted([*held, core.wal.synced, core.wal.synced], reverse=True)",
        servers=5,
    ),
    Mutant(
        "an entry of an old term committed by counting",
        "protocol.py",
        "if core.wal.term_at(index) == core.term:",
        "if core.wal.term_at(index):",
        test="test_commit.py::test_an_entry_of_an_earlier_term_is_not_committed_by_counting",
    ),
    Mutant(
        "sync without fdatasync",
        "wal.py",
        "file.write(data)\n        file.sync()\n        self._buffer.clear()",
        "file.write(data)\n        self._buffer.clear()",
    ),
    Mutant(
        "the pieces of two leaders' snapshots mixed",
        "snapshot.py",
        "if incoming is None or incoming.whose != whose:",
        "if incoming is None or incoming.whose[1] != whose[1]:",
        test="test_snapshot.py::test_the_files_of_two_leaders_are_never_mixed",
    ),
    Mutant(
        "the log held for ever for who died during an install",
        "protocol.py",
        "return now() - transfer.progress > self._node.settings.install_timeout_s",
        "return False",
        test="test_snapshot.py::test_a_server_that_dies_while_it_is_sent_one"
        "_holds_the_log_for_a_while_only",
    ),
    Mutant(
        "commit on a snapshot chunk",
        "protocol.py",
        "offset = snapshots.receive(",
        "self._node.raise_commit(min(message.last_index, self._node.wal.last))\n"
        "        offset = snapshots.receive(",
    ),
    Mutant(
        "commit without log match",
        "protocol.py",
        "self._node.raise_commit(min(message.commit, matched))",
        "self._node.raise_commit(min(message.commit, self._node.wal.last))",
        test="test_commit.py::test_a_follower_commits_only_what_is_known_to_match",
    ),
    Mutant(
        "drop the log behind a snapshot",
        "node.py",
        "if wal.term_at(meta.index) != meta.term:",
        "if wal.first < meta.index:",
    ),
    Mutant(
        "no pre-vote",
        "elections.py",
        "if self._won_question or self._asked_to_stand or not self._node.voters():",
        "if self.member:",
        test="test_elections.py::test_a_server_that_was_cut_off_disturbs_nobody",
    ),
    Mutant(
        "apply out of order",
        "node.py",
        "for entry in self.wal.slice(start, stop) if start < stop else ():",
        "for entry in reversed(self.wal.slice(start, stop)) if start < stop else ():",
    ),
    Mutant(
        "membership change without commit of the last",
        "membership.py",
        "if first is None or node.commit < first or node.commit < self.index:",
        "if first is None:",
        test="test_membership.py::test_one_change_at_a_time",
    ),
    Mutant(
        "stale snapshot installed",
        "protocol.py",
        "if message.last_index <= self._node.commit:  # P13: never go back",
        "if message.last_index <= 0:",
        test="test_defects.py::test_p13_a_second_install_rolls_nothing_back",
    ),
    Mutant(
        "a vote for a shorter log",
        "elections.py",
        "return (last_term, last_index) >= (last[2], last[1])",
        "return (last_term, last_index) >= (0, 0)",
    ),
    Mutant(
        "two votes in a term",
        "elections.py",
        "if message.term < node.term or node.leading or node.vote not in (None, name):",
        "if message.term < node.term or node.leading:",
    ),
    Mutant(
        "corrupt middle cut",
        "wal.py",
        "if _has_later_batch(data, offset, self.nonce):",
        "if len(data) < offset:",
        test="test_wal.py::test_a_broken_middle_stops_with_file_and_offset",
    ),
    Mutant(
        "compaction in place",
        "wal.py",
        'temporary = beside(self.path, ".new")',
        "temporary = self.path",
        test="test_defects.py::test_p4_a_kill_during_compaction_leaves_the_old_log_or_the_new_one",
    ),
    Mutant(
        "snapshot taken into use before it is whole",
        "snapshot.py",
        "if self._saving is None or not self._saving[0].done():",
        "if self._saving is None:",
    ),
    Mutant(
        "no sync of the directory",
        "disk.py",
        "os.fsync(directory)",
        "pass",
        test="test_disk.py::test_a_file_takes_anothers_place_durably",
    ),
    Mutant(
        "a read asked again while its answer is on its way",
        "reads.py",
        "if asked.leader != leader or not asked.reads:",
        "if asked.leader:",
        test="test_reads.py::test_a_read_waits_for_a_leader_that_is_far_away",
    ),
    Mutant(
        "who is refused asks again at once",
        "node.py",
        "self.elections.refused |= name == self.leader",
        "pass",
        test="test_reads.py::test_who_is_refused_asks_again_when_the_leader_is_heard_and_not_before",
    ),
    Mutant(
        "a successor stands for ever as if asked to",
        "elections.py",
        "self._won_question = self._asked_to_stand = False",
        "self._won_question = False",
        test="test_elections.py::test_a_successor_that_was_overtaken_leaves_the_new_leader_alone",
    ),
    Mutant(
        "what a server remembers of disks counts before the log",
        "others.py",
        "expected = self._membership.store(name) or stores.get(name, store)",
        "expected = stores.get(name, store)",
        test="test_membership.py::test_a_server_that_was_away_takes_the_new_disk_of_another_one",
    ),
    Mutant(
        "a wiped disk is let in",
        "others.py",
        "if expected != store:",
        "if not store:",
        test="test_membership.py::test_a_server_that_was_away_takes_the_new_disk_of_another_one",
    ),
    Mutant(
        "a removal that leaves no quorum",
        "membership.py",
        "if 2 * len(silent) >= len(members):",
        "if len(silent) > len(members):",
        test="test_membership.py::test_nobody_is_removed_where_those_who_stay_could_do_nothing",
    ),
    Mutant(
        "a server is added unheard",
        "membership.py",
        "if member.name not in answering:",
        "if not member.name:",
        test="test_membership.py::test_a_dead_server_is_not_added_to_a_young_cluster",
    ),
    Mutant(
        "a dropped proposal counts as applied",
        "proposals.py",
        "if pending.term == term:",
        "if pending.term:",
    ),
)


def run(mutant: Mutant, base: Path) -> str | None:
    """Return what caught a mutant, None if it survives."""
    shutil.copytree(ROOT / "cluster", base, dirs_exist_ok=True)
    path = base / ROOM / mutant.file
    source = path.read_text()
    if source.count(mutant.old) != 1:
        return f"ERROR: the line is there {source.count(mutant.old)} times"
    path.write_text(source.replace(mutant.old, mutant.new))
    environment = {**os.environ, "PYTHONPATH": f"{base}:{ROOT / 'tests'}"}
    if mutant.test:
        command = [PYTHON, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        command.append(f"tests/unit/raft/{mutant.test}")
    else:
        sizes = ["--seed", "1", "--seeds", str(SEEDS), "--servers", str(mutant.servers)]
        command = [PYTHON, "-m", "support.raftsim", *sizes]
    try:
        done = subprocess.run(  # noqa: S603  # our own interpreter
            command, cwd=ROOT, env=environment, capture_output=True, text=True,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"ERROR: no verdict within {TIMEOUT_S} s"
    if done.returncode == 0:
        return None
    return mutant.test or done.stderr.strip().splitlines()[-1].partition("Error: ")[2]


def main(only: list[str]) -> int:
    """Run the mutants whose names contain one of ``only``."""
    with tempfile.TemporaryDirectory(prefix="wgmap-mutant-") as directory:
        base = Path(directory)
        for test in ("", "test_defects.py"):  # the tests must pass where nothing is changed
            line = '"""The write-ahead log:'
            fault = run(Mutant("none", "wal.py", line, line, test), base)
            if fault is not None:
                sys.stdout.write(f"without any change: {fault}\n")
                return 1
    survivors = 0
    for mutant in MUTANTS:
        if only and not any(word in mutant.name for word in only):
            continue
        with tempfile.TemporaryDirectory(prefix="wgmap-mutant-") as directory:
            caught = run(mutant, Path(directory))
        survivors += caught is None or caught.startswith("ERROR")
        sys.stdout.write(f"{mutant.name:45} {caught or 'SURVIVES'}\n")
        sys.stdout.flush()
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
