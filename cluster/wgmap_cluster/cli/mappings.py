"""``wgmap mapping``: what is registered, a page at a time."""

import argparse
import ipaddress
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from wgmap.errors import ConfigError
from wgmap_cluster.cli import texts
from wgmap_cluster.cli.client import Client
from wgmap_cluster.cli.commands import Report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wgmap_cluster.replica.views import MappingRowView

PAGE = 500


def show_list(client: Client, options: argparse.Namespace) -> Report:
    """List mappings, at most so many."""
    query: dict[str, Any] = {"limit": min(PAGE, options.limit or PAGE)}
    for name in ("search", "instance"):
        if getattr(options, name) is not None:
            query[name] = getattr(options, name)
    views = list(islice(_all(client, query), options.limit or None))
    return Report(views, texts.mapping_rows(views))


def _all(client: Client, query: dict[str, Any]) -> "Iterator[MappingRowView]":
    while True:
        page: list[MappingRowView] = client.get(f"/v1/mappings?{urlencode(query)}")
        yield from page
        if len(page) < query["limit"]:
            return
        query["after"] = f"{page[-1]['instance']},{page[-1]['prefix']}"


def show(client: Client, options: argparse.Namespace) -> Report:
    """Show the mapping of exactly a prefix (of an address: its /32 or /128)."""
    try:
        prefix = ipaddress.ip_network(options.prefix)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    address = quote(str(prefix.network_address), safe="")
    path = f"/v1/mappings/{options.instance}/{address}/{prefix.prefixlen}"
    view: MappingRowView = client.get(path)
    return Report(view, texts.mapping_row(view))
