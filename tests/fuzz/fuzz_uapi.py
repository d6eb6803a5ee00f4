"""Coverage-guided fuzzing of what is read from WireGuard processes: ``make fuzz``.

Finds are kept under .fuzz/; a crash goes into uapi/ with its fix, where the tests replay it.
"""

import sys

import atheris

with atheris.instrument_imports(include=["wgmap.wg.uapi", "wgmap.addresses", "support.uapi_check"]):
    from support.uapi_check import check_answer

if __name__ == "__main__":
    atheris.Setup(sys.argv, check_answer)
    atheris.Fuzz()
