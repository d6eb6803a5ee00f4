"""Finds commands in the documents, as people would type them.

A command is a line of a block of code, or inline code, that begins with a program that people are
told to run. In inline code the program's name may be left out where it was just said (``peer show
NAME``). What may be left out is in it (``[--since N]``), comments and what is printed are not.
"""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
PROGRAMS = (
    *(
        "wgmap",
        "wgmap-server",
        "wgmap-agent",
        "wgmap-chaos",
        "make",
        "wg",
        "ip",
        "kill",
        "sysctl",
        "umask",
    ),
    *("systemctl", "journalctl", "apt", "ssh", "cp", "ansible-galaxy", "ansible-playbook"),
    *("pytest", "python", "bench/first_contact.py", "for"),
)
_SHORT = {
    **dict.fromkeys(("peer", "server", "instance", "mapping", "token"), "wgmap"),
    "lab": "wgmap-chaos",
}
_BLOCK = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
_SETTING = re.compile(r"^(?:[A-Z_]+=\S+ )+")
_OPTIONAL = re.compile(r"\[((?:--|[A-Z])[^\]]*)\]")
_VARIABLE = re.compile(r"^[A-Z]+=\$\(")


def commands(path: Path) -> Iterator[str]:
    """Yield the commands of a document, each as one line."""
    text = path.read_text()
    for block in _BLOCK.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        yield from filter(None, map(_line, lines))
    for inline in re.findall(r"`([^`]+)`", _BLOCK.sub("", text)):
        yield from filter(None, [_inline(inline)])


def all_commands() -> dict[str, list[str]]:
    """Return every command with the documents that have it."""
    found: dict[str, list[str]] = {}
    for path in DOCUMENTS:
        for command in commands(path):
            found.setdefault(command, []).append(str(path.relative_to(ROOT)))
    return found


def plain(command: str) -> str:
    """Write a command without the ways to call it: sudo, the environment's path, spaces."""
    text = re.sub(r"\s+#.*", "", command)
    text = re.sub(r"\s+", " ", text.replace(".venv/bin/", "")).strip()
    return text.removeprefix("sudo ").removesuffix(" ...").removesuffix("...")


def _line(line: str) -> str | None:
    text = plain(line)
    return text if _VARIABLE.match(text) or _program(text) in PROGRAMS else None


def _inline(code: str) -> str | None:
    text = plain(_OPTIONAL.sub(r"\1", code))
    first, _, rest = text.partition(" ")
    if first in _SHORT and rest and first != text:
        text = f"{_SHORT[first]} {text}"
    return text if " " in text and _program(text) in PROGRAMS else None


def _program(text: str) -> str:
    return _SETTING.sub("", text).partition(" ")[0]
