"""Coverage-guided fuzzing of the LISP codec: ``make fuzz`` (libFuzzer's arguments apply).

Finds are kept under .fuzz/; a crash goes into corpus/ with its fix, where the tests replay it.
"""

import sys

import atheris

with atheris.instrument_imports(include=["wgmap.lisp", "support.lisp_check"]):
    from support.lisp_check import check_bytes

if __name__ == "__main__":
    atheris.Setup(sys.argv, check_bytes)
    atheris.Fuzz()
