"""``wgmap events``: what happens in the cluster, line by line."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from wgmap.errors import UnavailableError
from wgmap_cluster.cli import texts
from wgmap_cluster.cli.client import Client
from wgmap_cluster.cli.commands import Report

if TYPE_CHECKING:
    from wgmap_cluster.replica.events import Event


def events(client: Client, options: argparse.Namespace) -> Report:
    """Show the last events, or follow those that come; raises UnavailableError when cut off."""
    path = "/v1/events?follow=1" if options.follow else "/v1/events"
    client.progress.say("waiting for what happens")
    for event in _events(client.receive(path)):
        if event["event"] == "dropped":
            raise UnavailableError(f"this client was too slow: {event['detail']}")
        client.progress.over()  # from here on there is something to see
        line = json.dumps(event) if options.json else texts.event(event)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    if options.follow:
        raise UnavailableError("the server ended the stream")
    return Report(None, "", silent=True)


def _events(pieces: Iterator[bytes]) -> "Iterator[Event]":
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from (json.loads(line) for line in lines if line)
