#!/usr/bin/env bash
# Takes Debian's promtool out of its package without installing that, for it would start a service.
#
#   scripts/promtool.sh FILE     writes the program to FILE
set -euo pipefail
target=$(realpath -m "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chown _apt "$work" 2>/dev/null || true # who downloads
cd "$work"
apt-get -qq download prometheus 2>/dev/null
dpkg-deb -x prometheus_*.deb .
mkdir -p "$(dirname "$target")"
mv usr/bin/promtool "$target"
