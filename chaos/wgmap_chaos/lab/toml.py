"""Writing TOML: what the configuration files of the daemons need, no more."""

import json
from collections.abc import Mapping
from typing import Any


def dumps(document: Mapping[str, Any]) -> str:
    """Return TOML with strings, numbers, booleans, arrays of them, tables and arrays of tables.

    None leaves a key out. Raises TypeError for anything else.
    """
    return "\n".join(_table((), document)) + "\n"


def _table(path: tuple[str, ...], table: Mapping[str, Any]) -> list[str]:
    lines, later = [], []
    for key, value in table.items():
        inner = (*path, key)
        if isinstance(value, Mapping):
            later += ["", f"[{'.'.join(inner)}]", *_table(inner, value)]
        elif _is_tables(value):
            for entry in value:
                later += ["", f"[[{'.'.join(inner)}]]", *_table(inner, entry)]
        elif value is not None:
            lines.append(f"{key} = {_value(value)}")
    return lines + later


def _is_tables(value: object) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(entry, Mapping) for entry in value)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(entry) for entry in value)}]"
    raise TypeError(f"no TOML for {type(value).__name__}")
