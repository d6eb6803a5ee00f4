"""Writes the seed corpus from the named vectors: ``python tests/fuzz/make_corpus.py``."""

import json
from pathlib import Path

HERE = Path(__file__).parent
VECTORS = HERE.parent / "vectors"
CORPUS = HERE / "corpus"


def seeds() -> dict[str, bytes]:
    """Return every vector by name, good and malformed."""
    return {
        vector["name"]: bytes.fromhex(vector["hex"])
        for name in ("lisp.json", "lisp-extra.json")
        for part in ("good", "malformed")
        for vector in json.loads((VECTORS / name).read_text())[part]
    }


if __name__ == "__main__":
    for name, data in seeds().items():
        (CORPUS / name).write_bytes(data)
