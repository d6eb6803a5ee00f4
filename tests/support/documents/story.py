"""The commands of the documents, in an order in which they can be given on the hosts of a lab.

``documented`` is what a document says, ``run`` what is typed in its place: the same with real values
for NAME, KEY and the like. Hosts: ``here`` is the machine that has the lab, ``ms1``, ``ms3`` and
``a1``, ``a4`` are a map server, one that is replaced, and two agents. ``{...}`` is of the lab.
"""

from typing import NamedTuple


class Step(NamedTuple):
    """One command.

    With ``until`` it is given again until that is printed; with ``then_ended`` it goes on by itself,
    and is ended once it has printed that.
    """

    host: str
    documented: str  # "": nothing that a document says; it makes the next one possible
    run: str = ""  # default: as documented
    code: int = 0
    shows: str = ""  # what it prints, among other things
    until: str = ""
    then_ended: str = ""


QUICKSTART = (
    Step("here", "SOCKET=$(jq -r '.servers[0].admin_socket' .lab/lab.json)"),
    Step("here", "wgmap --socket $SOCKET status", shows="all 3 servers answer with authority"),
    Step("here", "wgmap --socket SOCKET status", "wgmap --socket $SOCKET status"),
    Step("here", "wgmap --socket $SOCKET peer list", shows="registered"),
    Step("here", "wgmap --socket $SOCKET trace 10.66.2.1", shows="ok   mapping"),
    Step("here", "wgmap --socket $SOCKET page", then_ended="http://127.0.0.1:"),
    Step(
        *("here", "ip netns exec $(jq -r '.agents[0].netns' .lab/lab.json) ping -c 3 10.66.2.1"),
        shows="3 received",
    ),
    Step(
        "here",
        "wgmap-agent --socket $(jq -r '.agents[0].socket' .lab/lab.json) trace 10.66.2.1",
        shows="acknowledged after",
    ),
    Step(
        "here",
        "wgmap-agent --socket SOCKET trace EID",
        "wgmap-agent --socket {a1_socket} trace 10.66.2.1",
    ),
    Step("here", "kill -9 $(jq '.servers[0].pids[]' .lab/lab.json)"),
    Step(
        "here",
        "",
        "ip netns exec $(jq -r '.agents[0].netns' .lab/lab.json) ping -c 3 10.66.3.1",
        shows="3 received",
    ),
    Step("here", "wgmap-chaos lab start-servers"),
    Step("here", "wgmap-chaos lab divert ms1 a2 50"),
    Step("here", "", "wgmap-chaos lab set --delay 0"),
)

LOOKING = (
    Step("ms1", "wgmap --help", shows="trace"),
    Step("ms1", "wgmap peer add --help", shows="--endpoint-allow"),
    Step("ms1", "wgmap status", until="well: all 3 servers answer with authority"),
    Step("ms1", "wgmap doctor", "wgmap doctor; (($? < 2))", shows="quorum"),
    Step(
        "ms1",
        "wgmap doctor --config FILE",
        "wgmap doctor --config /etc/wgmap/server.toml; (($? < 2))",
    ),
    Step("ms1", "wg show wgm-mesh", "wg show {ms1_mesh}", shows="latest handshake"),
    Step(
        "ms1",
        "wgmap trace EID --from NAME",
        "wgmap trace 10.66.2.1 --from a1",
        shows="a1 was told of a2",
    ),
    Step(
        "ms1",
        "wgmap trace EID --from SOCKET",
        "wgmap trace 10.66.2.1 --from {a1_socket}",
        shows="agent",
    ),
    Step(
        "ms1",
        "wgmap mapping list --search TEXT",
        "wgmap mapping list --search a2",
        shows="10.66.2.1/32",
    ),
    Step("ms1", "wgmap mapping show PREFIX", "wgmap mapping show 10.66.2.1/32", shows="version"),
    Step(
        "ms1", "wgmap resolve EID --instance N", "wgmap resolve 10.66.2.1 --instance 0", shows="a2"
    ),
    Step("ms1", "wgmap page --read-only", then_ended="http://127.0.0.1:"),
    Step("ms1", "wgmap page", then_ended="http://127.0.0.1:"),
    Step("ms1", "wgmap peer list", shows="a4"),
    Step("ms1", "wgmap peer show NAME", "wgmap peer show a2", shows="revision:"),
    Step(
        "ms1", "wgmap audit --since N --limit N", "wgmap audit --since 1 --limit 3", shows="enrol"
    ),
    Step(
        *("ms1", "wgmap audit --json --since LAST --limit 10000"),
        "wgmap audit --json --since 2 --limit 10000",
        shows='"number": 3',
    ),
    Step("ms1", "wgmap events", shows="leader"),
    # Something has to happen meanwhile.
    Step(
        "ms1", "", "(for n in 9 8 7 6 5 4 3; do wgmap peer set a2 --limit $n; done) > /dev/null &"
    ),
    Step("ms1", "wgmap events --follow", then_ended="changed"),
    Step("ms1", "wgmap instance list", shows="10.66.0.0/16"),
    Step("ms1", "wgmap server list", shows="ms3"),
    Step("ms1", "wgmap completion bash > /etc/bash_completion.d/wgmap"),
    Step(
        "ms1",
        "",
        "bash -n /etc/bash_completion.d/wgmap && grep -c trace /etc/bash_completion.d/wgmap",
    ),
)

CHANGING = (
    Step("ms1", "", "KEY=$(wg genkey | wg pubkey); OTHER=$(wg genkey | wg pubkey)"),
    Step(
        *(
            "ms1",
            "wgmap peer add a1 --prefix 10.66.1.1/32 --prefix fd66::1/128 --control-key KEY > agent.toml",
        ),
        "wgmap peer add a9 --prefix 10.66.99.1/32 --prefix fd66::99/128 --control-key $KEY > agent.toml",
    ),
    Step("ms1", "", "cat agent.toml", shows="[[server]]"),
    Step(
        *("ms1", "wgmap peer add NAME --prefix PREFIX --control-key KEY > agent.toml"),
        "wgmap peer add a9 --prefix 10.66.99.1/32 --prefix fd66::99/128 --control-key $KEY > again.toml",
    ),
    Step("ms1", "", "cmp agent.toml again.toml"),
    Step(
        *("ms1", "wgmap peer add laptop --prefix 10.66.9.1/32 --control-key KEY > agent.toml"),
        "wgmap peer add laptop --prefix 10.66.9.1/32 --control-key $OTHER > agent.toml",
    ),
    Step("ms1", "wgmap peer import FILE", "wgmap peer import peers.jsonl", shows="2"),
    Step("ms1", "wgmap peer set NAME", "wgmap peer set laptop --limit 5", shows="5"),
    Step(
        *("ms1", "wgmap peer set NAME --if-revision N"),
        "wgmap peer set laptop --limit 6 --if-revision 2",
        shows="revision:",
    ),
    Step("ms1", "", "wgmap peer set laptop --limit 7 --if-revision 2", code=1, shows="revision 3"),
    Step(
        *("ms1", "wgmap peer revoke NAME --if-revision N"),
        "wgmap peer revoke laptop --if-revision 3",
        shows="confirmed after",
    ),
    Step("ms1", "wgmap peer revoke NAME", "wgmap peer revoke a9", shows="confirmed after"),
    Step(
        "ms1",
        "wgmap instance set N --overlay PREFIX",
        "wgmap instance set 7 --overlay 172.16.0.0/12",
    ),
    Step("ms1", "wgmap instance set N --max-mappings", "wgmap instance set 7 --max-mappings 1000"),
    Step("ms1", "", "TAG=$(wgmap instance list --json | jq '.[] | select(.instance == 7).tag')"),
    Step(
        *("ms1", "wgmap instance set N --if-tag TAG"),
        "wgmap instance set 7 --max-mappings 2000 --if-tag $TAG",
        shows="2000",
    ),
    Step("ms1", "", "wgmap instance set 7 --no-overlay --if-tag $TAG", code=1, shows="at tag"),
    Step(
        *("ms1", "wgmap token make monitoring --role read --file /etc/wgmap/tokens"),
        shows="monitoring.",
    ),
    Step(
        "ms1",
        "umask 077; wg genkey | tee operator.key | wg pubkey",
        "OPERATOR=$(umask 077; wg genkey | tee operator.key | wg pubkey)",
    ),
    Step(
        *("ms1", "wgmap backup /var/backups/wgmap-$(date +%F) --seal-to KEY"),
        "wgmap backup /var/backups/wgmap-$(date +%F) --seal-to $OPERATOR",
    ),
    Step(
        *("ms1", "wgmap restore FILE --unseal-with operator.key --keys-to keys/"),
        "wgmap restore /var/backups/wgmap-$(date +%F) --unseal-with operator.key --keys-to keys/",
    ),
    Step("ms1", "", "test -s keys/ms1/control.key -a -s keys/ms1/mesh.key"),
    Step(
        *("ms1", "wgmap-server keygen --dir /var/lib/wgmap"),
        shows="control",
    ),
    Step(
        "ms1",
        "wgmap-server reload --config FILE",
        "wgmap-server reload --config /etc/wgmap/server.toml",
    ),
    Step("ms1", "", "wgmap status", until="well: all 3 servers answer with authority"),
    Step("ms1", "wgmap server transfer-leader", "wgmap server transfer-leader ms1"),
)

AGENT = (
    Step("a1", "wgmap-agent status", until="registered"),
    Step("a1", "wgmap-agent status --json", shows='"registered": true'),
    Step("a1", "", "ping -c 1 10.66.2.1", shows="1 received"),
    Step("a1", "wgmap-agent trace EID", "wgmap-agent trace 10.66.2.1", shows="log index"),
    Step("a1", "wgmap-agent rotate-key"),
    Step("a1", "wgmap-agent forget", "wgmap-agent forget 10.66.2.1"),
    Step("a1", "", "ping -c 1 10.66.2.1", shows="1 received"),
    Step("a4", "wgmap-agent keygen --dir /var/lib/wgmap-agent", shows="control"),
    # A new control key, as "Keys of an agent" tells it.
    Step("a4", "", "kill $(jq .agents[3].pids.agent {lab}/lab.json)"),
    Step("a4", "", "mv {a4_state}/control.key {a4_state}/control.key.old"),
    Step(
        "a4", "wgmap-agent keygen", "wgmap-agent keygen --dir {a4_state} --json > {shared}/a4.json"
    ),
    Step(
        *("ms1", "wgmap peer set NAME --control-key KEY"),
        "wgmap peer set a4 --control-key $(jq -r .control_key {shared}/a4.json)",
    ),
    Step(
        *("a4", "wgmap-agent run --config /etc/wgmap/agent.toml"),
        "wgmap-agent run --config /etc/wgmap/agent.toml > {shared}/a4.log 2>&1 &",
    ),
    Step("a4", "", "wgmap-agent status --json", until='"registered": true'),
    Step("a1", "", "ping -c 1 -W 5 10.66.4.1", shows="1 received"),
)

SERVERS = (
    Step("ms1", "wgmap server remove NAME", "wgmap server remove ms3"),
    Step("ms1", "wgmap server remove ms4", "wgmap server remove ms3", code=1, shows="no server"),
    Step("ms3", "", "kill -9 {ms3_pids}; rm -rf {ms3_state}"),
    Step(
        "ms3",
        "wgmap-server keygen --dir DIR",
        "wgmap-server keygen --dir {ms3_state} --json > {shared}/ms3.json",
    ),
    # Its configuration lists it as well, with its new keys.
    Step("ms3", "", "MESH_KEY=$(jq -r .mesh_key {shared}/ms3.json)"),
    Step("ms3", "", "CONTROL_KEY=$(jq -r .control_key {shared}/ms3.json)"),
    Step(
        *("ms3", ""),
        'sed -i "s|{ms3_mesh_key}|$MESH_KEY|; s|{ms3_control_key}|$CONTROL_KEY|" {ms3_config}',
    ),
    Step(
        *("ms3", "wgmap-server run --config /etc/wgmap/server.toml"),
        "wgmap-server run --config /etc/wgmap/server.toml > {shared}/ms3.log 2>&1 & SERVER=$!",
    ),
    Step(
        "ms1",
        "wgmap server add ms4 --mesh-key KEY --control-key KEY --endpoint 198.51.100.4"
        " --mesh-address fd77:676d:6d65::4 --control-address fd77:676d:6170::4",
        # On a machine that is busy it may end before the server votes; the same again goes on then.
        "for turn in 1 2 3; do wgmap server add ms3 --mesh-key $(jq -r .mesh_key {shared}/ms3.json)"
        " --control-key $(jq -r .control_key {shared}/ms3.json) --endpoint {ms3_underlay}"
        " --mesh-address {ms3_mesh} --control-address {ms3_control} && break; done",
    ),
    Step("ms1", "", "wgmap status", until="well: all 3 servers answer with authority"),
    Step("ms3", "", "kill $SERVER; wait $SERVER"),
    Step("ms3", "wgmap-server check-state DIR", "wgmap-server check-state {ms3_state}"),
)

STORY = (*QUICKSTART, *LOOKING, *CHANGING, *AGENT, *SERVERS)
