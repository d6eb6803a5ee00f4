"""What a trace of system calls says of bytes that were not synced."""

from wgmap_chaos.faults.disks import unsynced

TRACE = """\
101 write(7, "abc"..., 300) = 300
101 fdatasync(7 <unfinished ...>
102 write(7, "abc"..., 40) = 40
101 <... fdatasync resumed>)            = 0
102 write(7, "abc"..., 7) = 7
102 write(7, "abc"..., 9) = -1 ENOSPC (No space left on device)
102 fdatasync(7)                        = -1 EIO (Input/output error)
102 write(7, "abc"..., 1 <unfinished ...>
102 +++ killed by SIGKILL +++
"""


def test_what_was_written_after_the_last_sync_is_counted() -> None:
    assert unsynced(TRACE) == 7
    assert unsynced("") == 0
    assert unsynced(TRACE.partition("101 <... fdatasync")[0]) == 340
