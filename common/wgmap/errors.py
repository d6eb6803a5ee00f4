"""The errors of wgmap and the exit codes that operators see."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every program."""

    OK = 0
    FAILED = 1  # failed or not found
    USAGE = 2  # usage or configuration
    UNCONFIRMED = 3  # done, but not yet confirmed by all


class WgmapError(Exception):
    """Base of every error that is shown to people as one line."""

    exit_code = ExitCode.FAILED
    position: int | None = None  # which of several items is at fault, from 0


class ConfigError(WgmapError):
    """A configuration file, key file or command line is wrong; the text names which and why."""

    exit_code = ExitCode.USAGE


class NotFoundError(WgmapError):
    """What was asked for does not exist."""


class ConflictError(WgmapError):
    """The request contradicts what is there (a name taken, prefixes that overlap)."""


class LimitError(ConflictError):
    """A configured limit would be passed; an operator can raise it."""


class ChangedError(ConflictError):
    """It was changed since it was looked at; look again and decide anew."""


class UnavailableError(WgmapError):
    """No quorum, no answer in time; the same request may succeed later."""
