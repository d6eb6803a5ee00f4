"""Machines for a rollout: booted systemd containers on a bridge of their own, reached by ssh.

Everything lies in one directory and in namespaces with one prefix; ``close`` removes all of it.
The root file system is made once and kept in a cache outside of the tree.
"""

import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from rollout import suites
from rollout.commands import SiteError, run
from rollout.plays import Play, descendants

NETWORK = "10.77.0"
CONTROL_HOST = 1
BOOT_S = 60.0
# The hierarchy that systemd wants, whatever this machine has; seen in one mount namespace only.
OWN_CGROUPS = (
    "mount --make-rprivate / && umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup"
)
REPOSITORY = Path(__file__).parents[2]


@dataclass
class Machine:
    """One container."""

    name: str
    address: str
    netns: str
    root: Path
    scope: Path  # its control group
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)


class Site:
    """Containers, and the host that Ansible runs on."""

    def __init__(self) -> None:
        """Nothing is there yet; see ``open``."""
        self.directory = Path(tempfile.mkdtemp(prefix="wgmap-rollout-"))
        self.prefix = f"wr{os.getpid() % 100000}"
        self.machines: dict[str, Machine] = {}
        self.key = self.directory / "id_ed25519"
        self.log = Path(os.environ.get("WGMAP_ROLLOUT_LOG") or self.directory / "log")

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- machines ----------------------------------------------------------------------------

    def add(self, name: str, number: int) -> Machine:
        """Make a machine with the address NETWORK.number, not booted."""
        folder = self.directory / name
        for part in ("upper", "work", "root"):
            (folder / part).mkdir(parents=True)
        machine = Machine(
            name,
            f"{NETWORK}.{number}",
            f"{self.prefix}-{name}",
            folder / "root",
            Path("/sys/fs/cgroup") / f"{self.prefix}-{name}",
        )
        self.machines[name] = machine
        self._mount(machine)
        self._wire(machine, number)
        return machine

    def boot(self, names: Iterable[str] | None = None) -> None:
        """Boot machines and wait until they take commands."""
        chosen = [self.machines[name] for name in (self.machines if names is None else names)]
        for machine in chosen:
            machine.process = self._nspawn(machine)
        for machine in chosen:
            self._await_ssh(machine)

    def kill(self, name: str) -> None:
        """Take the power from a machine: everything on it ends at once."""
        machine = self.machines[name]
        if machine.process is None:
            return
        for pid in descendants(machine.process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        machine.process.wait()
        machine.process = None

    def init_pid(self, name: str) -> int:
        """Return the process 1 of a machine, as seen from here; raises SiteError: it is off."""
        process = self.machines[name].process
        children = [] if process is None else descendants(process.pid)[1:]
        if not children:
            raise SiteError(f"{name} is off")
        return children[0]

    def wipe(self, name: str) -> None:
        """Give a machine that is off an empty disk, as a new one has."""
        machine = self.machines[name]
        run("umount", machine.root)
        for part in ("upper", "work"):
            shutil.rmtree(machine.root.parent / part)
            (machine.root.parent / part).mkdir()
        self._mount(machine)

    def on(self, name: str, *command: str, check: bool = True, timeout_s: float = 60) -> str:
        """Run a command on a machine, over ssh as root."""
        words = [
            *("ip", "netns", "exec", self.bridge, "ssh", "-i", self.key, *self._ssh_options()),
            *(f"root@{self.machines[name].address}", "--", *command),
        ]
        return run(*words, check=check, timeout_s=timeout_s)

    # -- Ansible -----------------------------------------------------------------------------

    def play(self, name: str, *arguments: str) -> Play:
        """Begin a playbook of the collection against the site's inventory; its output is logged."""
        command = [
            *("ip", "netns", "exec", self.bridge),
            str(REPOSITORY / ".venv-rollout/bin/ansible-playbook"),
            *("-i", str(self.directory / "inventory.yml")),
            *(f"wgmap.rollout.{name}", *arguments),
        ]
        with self.log.open("a") as log:
            print(f"== {name} {' '.join(arguments)}", file=log)
        return Play(name, command, os.environ | self._environment(), self.log)

    def _environment(self) -> dict[str, str]:
        return {
            "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "build/ansible"),
            "ANSIBLE_PRIVATE_KEY_FILE": str(self.key),
            "ANSIBLE_SSH_ARGS": " ".join((*self._ssh_options(), "-o", "ControlPersist=600s")),
            "ANSIBLE_HOST_KEY_CHECKING": "false",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_FORKS": "10",
        }

    def write_inventory(self, inventory: dict[str, Any]) -> None:
        """Write the inventory (JSON is YAML)."""
        (self.directory / "inventory.yml").write_text(json.dumps(inventory, indent=1))

    # -- inside ------------------------------------------------------------------------------

    @property
    def bridge(self) -> str:
        """The namespace of the bridge, where Ansible runs."""
        return f"{self.prefix}-br"

    def _open(self) -> None:
        suites.CHOSEN.make()
        # As udev makes it; whoever runs the tests may have one for root alone.
        os.mknod(self.directory / "tun", 0o666 | stat.S_IFCHR, os.makedev(10, 200))
        (self.directory / "tun").chmod(0o666)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key)
        run("ip", "netns", "add", self.bridge)
        inside = ("ip", "-n", self.bridge)
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "link", "add", "br0", "type", "bridge")
        run(*inside, "link", "set", "br0", "up")
        run(*inside, "addr", "add", f"{NETWORK}.{CONTROL_HOST}/24", "dev", "br0")

    def _mount(self, machine: Machine) -> None:
        folder = machine.root.parent
        layers = f"lowerdir={suites.CHOSEN.base},upperdir={folder}/upper,workdir={folder}/work"
        run("mount", "-t", "overlay", "overlay", "-o", layers, machine.root)
        (machine.root / "etc/hostname").write_text(f"{machine.name}\n")
        ssh = machine.root / "root/.ssh"
        ssh.mkdir(mode=0o700, exist_ok=True)
        (ssh / "authorized_keys").write_text(self.key.with_suffix(".pub").read_text())

    def _wire(self, machine: Machine, number: int) -> None:
        run("ip", "netns", "add", machine.netns)
        end = f"{self.prefix}v{number}"
        run(
            *("ip", "link", "add", end, "netns", self.bridge, "type", "veth"),
            *("peer", "name", "eth0", "netns", machine.netns),
        )
        run("ip", "-n", self.bridge, "link", "set", end, "master", "br0", "up")
        inside = ("ip", "-n", machine.netns)
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "link", "set", "eth0", "up")
        run(*inside, "addr", "add", f"{machine.address}/24", "dev", "eth0")

    def _nspawn(self, machine: Machine) -> subprocess.Popen[bytes]:
        script = (
            f"{OWN_CGROUPS} && mkdir -p {machine.scope} && echo $$ > {machine.scope}/cgroup.procs"
            f" && exec systemd-nspawn -q -D {machine.root} -M {machine.netns} --boot"
            " --register=no --keep-unit --capability=all"
            f" --bind={self.directory}/tun:/dev/net/tun"
            f" --network-namespace-path=/run/netns/{machine.netns} --resolv-conf=off"
            " --timezone=off --link-journal=no --console=read-only"
        )
        with (machine.root.parent / "console").open("ab") as log:
            return subprocess.Popen(
                ["unshare", "-m", "bash", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _await_ssh(self, machine: Machine) -> None:
        end = time.monotonic() + BOOT_S
        while True:
            try:
                self.on(machine.name, "true", timeout_s=10)
            except (SiteError, subprocess.TimeoutExpired):
                if time.monotonic() > end:
                    console = (machine.root.parent / "console").read_text(errors="replace")
                    raise SiteError(f"{machine.name} does not boot:\n{console[-3000:]}") from None
                time.sleep(0.2)
            else:
                return

    def _ssh_options(self) -> Sequence[str]:
        return (
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", "LogLevel=ERROR", "-o", "ConnectTimeout=5", "-o", "ControlMaster=auto"),
            *("-o", f"ControlPath={self.directory}/ssh-%h"),
        )

    def close(self) -> None:
        """End everything and remove it."""
        for name in self.machines:
            self.kill(name)
        for machine in self.machines.values():
            run("umount", "-l", machine.root, check=False)
            run("ip", "netns", "del", machine.netns, check=False)
        for path in self.directory.glob("ssh-*"):
            run("ssh", "-o", f"ControlPath={path}", "-O", "exit", "x", check=False)
        run("ip", "netns", "del", self.bridge, check=False)
        scopes = f"find /sys/fs/cgroup/{self.prefix}-* -depth -type d -exec rmdir {{}} +"
        run("unshare", "-m", "bash", "-c", f"{OWN_CGROUPS} && {scopes}", check=False)
        shutil.rmtree(self.directory, ignore_errors=True)
