#!/usr/bin/env bash
# Builds what hosts without a way to a package index are installed from: one tar with the wheels of
# wgmap and of everything that it needs. What is downloaded must have the hashes of the lock file;
# packages that have no wheels are compiled here, so build it on the hosts' kind of machine.
#
#   scripts/wheelhouse.sh [DIRECTORY]     writes DIRECTORY/wgmap-wheelhouse-VERSION-PYTHON-PLATFORM.tar
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-dist}")
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv "$work/venv"
pip=("$work/venv/bin/python" -m pip --quiet --disable-pip-version-check)
"${pip[@]}" install --require-hashes -r deploy/requirements-build.lock
"${pip[@]}" wheel --no-deps --no-build-isolation --require-hashes \
    --wheel-dir "$work/wheels" -r deploy/requirements.lock
"${pip[@]}" wheel --no-deps --no-build-isolation --no-index --wheel-dir "$work/wheels" .

# What is missing in it is found here, not on the first host.
"${pip[@]}" install --dry-run --ignore-installed --no-index --find-links "$work/wheels" wgmap

version=$("$work/venv/bin/python" -c 'import sys; sys.path.insert(0, "common"); import wgmap; print(wgmap.__version__)')
tags=$("$work/venv/bin/python" - <<'END'
import sys, sysconfig
platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
print("cp%d%d-%s" % (*sys.version_info[:2], platform))
END
)
mkdir -p "$out"
name="$out/wgmap-wheelhouse-$version-$tags.tar"
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$work/wheels" -cf "$name.new" .
mv "$name.new" "$name"
echo "$name"
