"""Commands of this machine."""

import subprocess


class SiteError(Exception):
    """The machines cannot be had, or a command on them failed."""


def run(*command: object, check: bool = True, timeout_s: float = 120) -> str:
    """Run a command and return what it printed; raises SiteError with both outputs."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)
    if check and done.returncode:
        raise SiteError(f"{' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
