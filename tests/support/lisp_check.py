"""What holds for any bytes at all: for hypothesis and for the fuzzer."""

from wgmap.lisp import usual
from wgmap.lisp.auth import verify
from wgmap.lisp.codec import decode, encode
from wgmap.lisp.messages import CodecError, MapNotify, MapNotifyAck, MapRegister, Message
from wgmap.lisp.reader import Reader
from wgmap.lisp.records import read_record


def accept(data: bytes) -> Message | None:
    """Decode; None where the bytes are refused. Any other error is a finding."""
    try:
        return decode(data)
    except CodecError as error:
        if not 0 <= error.offset <= len(data):
            raise AssertionError(f"an offset outside the {len(data)} bytes") from error
        return None


def check_bytes(data: bytes) -> None:
    """What is accepted can be written, means the same when read again, and can be verified."""
    for start in (0, 12, 16):  # where records of messages are without authentication
        check_record(data[start:])
    message = accept(data)
    if message is None:
        return
    assert decode(encode(message)) == message
    if isinstance(message, MapRegister | MapNotify | MapNotifyAck):
        assert not verify(data, message, b"a secret that nothing was signed with")


def check_record(data: bytes) -> None:
    """A record that is read the quick way is the one that the reader of all forms reads."""
    quick = Reader(data)
    record = usual.read(quick)
    if record is None:
        assert quick.offset == 0
        return
    slow = Reader(data)
    assert read_record(slow) == record
    assert slow.offset == quick.offset
