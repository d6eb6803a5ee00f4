#!/usr/bin/env bash
# Installs a headless browser and its driver for the tests of the page, where there is none and the
# distribution has one as a package (Ubuntu's is a snap: there these tests are skipped, and say so).
set -euo pipefail
command -v chromium >/dev/null && command -v chromedriver >/dev/null && exit 0
. /etc/os-release
[[ ${ID:-} == debian ]] || exit 0
echo "installing: chromium"
as_root=()
if ((EUID != 0)); then as_root=(sudo); fi
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null
