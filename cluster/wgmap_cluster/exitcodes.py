"""Exit codes that the processes of a server understand among themselves."""

LOG_FAILED = 74  # EX_IOERR of sysexits.h: the log or its disk failed; to start again is no help
