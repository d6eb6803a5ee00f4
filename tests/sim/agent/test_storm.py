"""A fleet that loses a server and gets it back spreads its messages (make bench-storms: 1,000)."""

from support.agent_sim.storm import Phase, Storm, simulate

AGENTS = 60


def share_of_worst_second(storm: Storm, server: str, phase: Phase) -> float:
    """What part of the first 20 seconds' messages comes in one of them."""
    values = storm.per_s(server, Phase("", phase.begin, phase.begin + 20), 1.0)
    return max(values) / sum(values)


def test_a_lost_server_and_its_return_are_no_storm() -> None:
    storm = simulate(AGENTS, seconds=45.0)
    _, lost, back = storm.phases
    for phase, servers in ((lost, ("ms2", "ms3")), (back, ("ms1", "ms2", "ms3"))):
        for server in servers:
            assert storm.ratio(server, phase) < 5
            assert share_of_worst_second(storm, server, phase) < 0.25  # all at once: nearly 1
    assert storm.peak("ms1", lost) == 0  # what comes to a dead server is no work
