#!/usr/bin/env bash
# Installs what wgmap needs on Debian 12 or Ubuntu 24.04: apt packages (through sudo where we are
# not root) and the virtual environment .venv. Does nothing where everything is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(wireguard-go wireguard-tools iproute2 iputils-ping nftables strace procps ethtool jq
          python3-venv python3-dev gcc libc6-dev)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
        missing+=("$package")
done
if ((${#missing[@]})); then
    echo "installing: ${missing[*]}"
    as_root=()
    if ((EUID != 0)); then as_root=(sudo); fi
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

stamp=.venv/.wgmap-stamp
wanted="$(cat pyproject.toml scripts/setup.sh | sha256sum) $(pwd)"
if [[ ! -f $stamp || "$(cat "$stamp")" != "$wanted" ]]; then
    python=${PYTHON:-python3}
    # The distribution's interpreter where the default one cannot make environments.
    "$python" -m venv .venv || { python=/usr/bin/python3; "$python" -m venv --clear .venv; }
    .venv/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
    .venv/bin/python -m pip install --quiet -e '.[chaos]' --group dev --group docs
    echo "$wanted" >"$stamp"
fi
