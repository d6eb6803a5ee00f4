"""Commands of the documents that the story does not run: why not, and what runs them.

The first pattern that a command begins with counts. ``by`` is a file, which must be there: a test
that runs the same, the program itself, or the document that says when it was run and what came out.
"""

from typing import NamedTuple


class Elsewhere(NamedTuple):
    """A reason that is good for all commands that begin so."""

    begins: str
    why: str
    by: str


ELSEWHERE = (
    # Whole machines.
    Elsewhere(
        "apt ", "installs on a machine: on one of the booted ones", "tests/rollout/test_6_lone.py"
    ),
    Elsewhere("systemctl ", "wants a booted machine", "tests/rollout/test_4_units.py"),
    Elsewhere("ansible-", "wants booted machines", "tests/rollout/test_1_deploy.py"),
    Elsewhere(
        "cp deploy/ansible/inventory.example.yml",
        "the example is checked",
        "tests/deploy/test_inventory.py",
    ),
    Elsewhere(
        "make wheelhouse",
        "builds a release: the rollout's are built by it",
        "tests/rollout/releases.py",
    ),
    Elsewhere(
        "make package", "builds a package, which is installed", "tests/rollout/test_6_lone.py"
    ),
    Elsewhere("make lint-rollout", "installs Ansible and its linter", "docs/evaluation/rollout.md"),
    Elsewhere(
        "make test-rollout", "half an hour and the machine's cgroups", "docs/evaluation/rollout.md"
    ),
    Elsewhere(
        "ssh ",
        "wants a second machine; the page on a port is the same",
        "tests/support/pageproxy.py",
    ),
    Elsewhere(
        "sysctl ",
        "sets the whole machine; the collection does",
        "deploy/ansible/roles/common/templates/wgmap-wg@.service.j2",
    ),
    # What runs this test, or is run beside it by the same command.
    Elsewhere("make test-kernel", "an emulated machine of its own", "docs/kernel-wireguard.md"),
    Elsewhere(
        "make test-matrix",
        "ten minutes; a part of it is a test",
        "tests/netns/test_fault_matrix.py",
    ),
    Elsewhere(
        "make test-promises",
        "an hour; its short form are these tests",
        "docs/evaluation/promises.md",
    ),
    Elsewhere("make test", "runs this", ".ci/run"),
    Elsewhere("make setup", "make test begins with it", "Makefile"),
    Elsewhere("make check", "make test begins with it", "Makefile"),
    Elsewhere("make docs", "make test begins with it", "Makefile"),
    Elsewhere("make audit", "make test runs it where an index is reached", "scripts/audit.py"),
    Elsewhere("make demo", "its steps are a test of their own", "chaos/wgmap_chaos/demo/steps.py"),
    Elsewhere("pytest ", "a part of make test", "Makefile"),
    Elsewhere("WGMAP_", "a part of make test, with more examples or pictures", "docs/testing.md"),
    # Minutes to hours, by hand.
    Elsewhere(
        "make bench-",
        "minutes on a quiet machine: figures, not right or wrong",
        "docs/evaluation/performance.md",
    ),
    Elsewhere("bench/", "minutes on a quiet machine", "docs/evaluation/first-contact.md"),
    Elsewhere(
        "make fuzz",
        "goes on for as long as it is told; the corpora are replayed",
        "tests/fuzz/test_corpus.py",
    ),
    Elsewhere("make mutants", "some minutes of processor", "docs/evaluation/replication.md"),
    Elsewhere(
        "make sim-agent", "minutes; a few plans are a test", "tests/sim/agent/test_random.py"
    ),
    Elsewhere(
        "PYTHONPATH=tests python -m support.raftsim",
        "hours; some seeds are a test",
        "tests/sim/raft/test_simulation.py",
    ),
    Elsewhere("make chaos-log", "minutes; a short run is a test", "tests/netns/test_log_chaos.py"),
    Elsewhere("make chaos", "minutes to hours; a short run is a test", "tests/netns/test_chaos.py"),
    Elsewhere("for seed in ", "hours of make chaos", "docs/evaluation/chaos.md"),
    Elsewhere("wgmap-chaos run", "what make chaos calls", "tests/netns/test_chaos.py"),
    Elsewhere("wgmap-chaos judge", "reads what a run of chaos wrote", "tests/netns/test_chaos.py"),
    Elsewhere(
        "wgmap restore FILE --revoke NAMES",
        "wants an empty cluster: the drill",
        "tests/netns/test_operating.py",
    ),
    Elsewhere("wgmap-chaos lab ", "the frame of the story", "tests/netns/test_documents.py"),
)
