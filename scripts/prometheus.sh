#!/usr/bin/env bash
# Takes Debian's Prometheus and promtool out of their package without installing that, for it would
# start a service.
#
#   scripts/prometheus.sh DIRECTORY     writes the programs into DIRECTORY
set -euo pipefail
target=$(realpath -m "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chown _apt "$work" 2>/dev/null || true # who downloads
cd "$work"
apt-get -qq download prometheus 2>/dev/null
dpkg-deb -x prometheus_*.deb .
mkdir -p "$target"
mv usr/bin/prometheus usr/bin/promtool "$target"
