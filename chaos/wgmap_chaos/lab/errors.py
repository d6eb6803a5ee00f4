"""What can go wrong with a lab."""

from wgmap.errors import WgmapError


class LabError(WgmapError):
    """A step of a lab failed; the text says which, and shows what the program said."""
