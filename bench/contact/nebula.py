"""Nebula beside it: the same pair of namespaces, its lighthouse on a map server's host.

A contact is cold when the process that asks was started anew: then it knows the lighthouse and
nobody else. Certificates, processes and interfaces are made here and removed again.
"""

import ipaddress
import json
import shutil
import subprocess
import time
from pathlib import Path

from contact.probe import Prober
from wgmap.addresses import IPAddress
from wgmap_chaos.lab import shell
from wgmap_chaos.lab.inventory import AgentEntry, HostEntry, ServerEntry
from wgmap_chaos.priority import favour

PORT = 51997
END_S = 5.0
READY_TRIES = 100
READY_S = 0.1
_NETWORK = "10.68.0"


def is_there() -> bool:
    """Say whether nebula is installed."""
    return shutil.which("nebula") is not None and shutil.which("nebula-cert") is not None


class Nebula:
    """One lighthouse and two nodes."""

    def __init__(
        self, directory: Path, lighthouse: ServerEntry, agents: tuple[AgentEntry, ...]
    ) -> None:
        self._directory = directory
        self._lighthouse, self._agents = lighthouse, agents
        self._hosts: list[HostEntry] = [lighthouse, *agents]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def open(self) -> None:
        """Make certificates and start all three."""
        self._directory.mkdir()
        self._cert("ca", "-name", "bench")
        for number, host in enumerate(self._hosts, start=1):
            self._cert("sign", "-name", host.name, "-ip", f"{_NETWORK}.{number}/24")
            text = json.dumps(self._config(host))
            (self._directory / f"{host.name}.yml").write_text(text)
            self._start(host)

    def reset(self, asking: AgentEntry, prober: Prober) -> bool:
        """Start the node anew that asks; say whether its lighthouse answered it in time."""
        self._end(asking)
        self._start(asking)
        for _ in range(READY_TRIES):
            try:
                if prober.ask(ipaddress.ip_address(f"{_NETWORK}.1"), READY_S).replied is not None:
                    return True
            except OSError:  # its interface is not there yet
                time.sleep(READY_S)
        return False

    def eid(self, agent: AgentEntry) -> IPAddress:
        """Return the address of a node; IPv4 only, as this version of Nebula is."""
        return ipaddress.ip_address(f"{_NETWORK}.{self._hosts.index(agent) + 1}")

    def close(self) -> None:
        """End the processes; their interfaces go with them."""
        for host in self._hosts:
            self._end(host)

    def _start(self, host: HostEntry) -> None:
        argv = ["nebula", "-config", str(self._directory / f"{host.name}.yml")]
        process = subprocess.Popen(
            shell.inside(host.netns, argv),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._processes[host.name] = process
        favour([process.pid])

    def _end(self, host: HostEntry) -> None:
        process = self._processes.pop(host.name, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _cert(self, command: str, *arguments: str) -> None:
        argv = ["nebula-cert", command, *arguments]
        subprocess.run(argv, cwd=self._directory, check=True)

    def _underlay(self) -> dict[str, bool]:
        """Return what Nebula may use: left alone it tries all addresses of a host, ours among them.

        Then each of its contacts would be one of ours as well, from both ends.
        """
        agents = [address for one in self._agents for address in one.underlay]
        allowed = {
            f"{one}/{one.max_prefixlen}": True for one in (self._lighthouse.underlay, *agents)
        }
        return {"0.0.0.0/0": False, "::/0": False, **allowed}

    def _config(self, host: HostEntry) -> dict[str, object]:
        """Return a configuration: JSON is YAML."""
        own = self._directory
        is_lighthouse = host is self._lighthouse
        anything = [{"port": "any", "proto": "any", "host": "any"}]
        return {
            "pki": {
                "ca": str(own / "ca.crt"),
                "cert": str(own / f"{host.name}.crt"),
                "key": str(own / f"{host.name}.key"),
            },
            "static_host_map": {f"{_NETWORK}.1": [f"{self._lighthouse.underlay}:{PORT}"]},
            "lighthouse": {
                "am_lighthouse": is_lighthouse,
                "hosts": [] if is_lighthouse else [f"{_NETWORK}.1"],
                "local_allow_list": self._underlay(),
                "remote_allow_list": self._underlay(),
            },
            "listen": {"host": "0.0.0.0", "port": PORT},
            "tun": {"dev": host.underlay_port.removesuffix("-prt") + "-neb", "mtu": 1300},
            "firewall": {"outbound": anything, "inbound": anything},
            "logging": {"level": "error"},
        }
