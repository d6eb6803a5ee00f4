#!/usr/bin/env bash
# Runs the tests of the kernel's WireGuard with the distribution's kernel, in a virtual machine.
# The output is kept in build/kernel/test.log.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p build/kernel
tests/kernel/run.sh build/kernel "cd $(pwd) && export WGMAP_TIME_SCALE=10 && uname -r &&
    .venv/bin/python -u -m pytest -p no:cacheprovider -v -k kernel --timeout 900 \
        tests/netns/wg tests/netns/interfaces tests/netns/agent/test_overheard.py \
        tests/netns/agent/test_backends.py" 2>&1 | tee build/kernel/test.log
