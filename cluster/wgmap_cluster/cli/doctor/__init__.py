"""``wgmap doctor``: looks at all that a server needs, and says what to do about what is wrong."""

import argparse
from pathlib import Path

from wgmap.config import load
from wgmap.errors import ExitCode, WgmapError
from wgmap.terminal import bad, bold, doubtful, good
from wgmap_cluster.cli.client import Client
from wgmap_cluster.cli.commands import Report
from wgmap_cluster.cli.doctor import cluster, host, server
from wgmap_cluster.cli.doctor.finding import Finding, Verdict, failed
from wgmap_cluster.config import ServerConfig

MARKS = {Verdict.OK: "ok  ", Verdict.WARN: "WARN", Verdict.FAIL: "FAIL"}
COLOURS = {Verdict.OK: good, Verdict.WARN: doubtful, Verdict.FAIL: bad}


def doctor(client: Client, options: argparse.Namespace) -> Report:
    """Look at this host, its server and the cluster; FAILED where something fails."""
    findings: list[Finding] = []
    for what, look in (
        ("this host", host.look),
        ("the server on it", lambda: _server(options.config)),
        ("the cluster", lambda: cluster.look(client)),
    ):
        client.progress.say(f"looking at {what}")
        findings += look()
    worst = max((each.verdict for each in findings), default=Verdict.OK)
    value = [
        {
            "check": each.check,
            "verdict": each.verdict.name.lower(),
            "detail": each.detail,
            "advice": each.advice or None,
        }
        for each in findings
    ]
    code = ExitCode.FAILED if worst is Verdict.FAIL else ExitCode.OK
    return Report(value, "\n".join(map(_line, findings)), code)


def _server(path: Path) -> list[Finding]:
    if not path.exists():
        advice = "on a server: --config FILE; elsewhere this does no harm"
        return [Finding("configuration", Verdict.WARN, f"no {path}", advice)]
    try:
        config = load(path, ServerConfig)
    except WgmapError as error:
        return [failed("configuration", str(error), "correct it; wgmap-server will not start")]
    return [Finding("configuration", Verdict.OK, str(path)), *server.look(config)]


def _line(each: Finding) -> str:
    line = f"{COLOURS[each.verdict](MARKS[each.verdict])} {bold(each.check)}: {each.detail}"
    return f"{line}\n       {each.advice}" if each.advice else line
