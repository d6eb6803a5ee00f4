# Two commands do everything: `make demo` and `make test`. The others are for people who work on it.
.PHONY: all setup docs audit demo test test-promises test-kernel test-matrix check fuzz format clean mutants bench-log chaos chaos-mutants chaos-log \
        bench-moves bench-first-contact bench-failover bench-storms bench-registers sim-agent \
        bench-control-channel bench-scalability bench-data-plane bench-committed bench-gaps bench-looks bench-pauses \
        bench-agent-scale bench-server-scale bench-scale-model \
        wheelhouse package lint-rollout test-rollout

PYTEST ?= .venv/bin/pytest
WORKERS ?= 0
FUZZ_SECONDS ?= 60
MINUTES ?= 5
SEED ?= 1
SERVERS ?= 3
AGENTS ?= 3
EXAMPLES ?= 1000

all: setup

setup:
	@scripts/setup.sh

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

# The documents as a site, build/site; a warning is an error.
docs: setup
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict

# Known weaknesses of what hosts are installed from; fails where the advisories cannot be reached.
audit: setup
	.venv/bin/python scripts/audit.py

demo: setup
	@scripts/as-root .venv/bin/python -m wgmap_chaos.demo

test: check docs .venv-rollout/.stamp
	@.venv/bin/python scripts/audit.py --if-reached
	@scripts/browser.sh
	$(PYTEST) -n $(WORKERS) --dist loadscope --durations=15

# Coverage-guided, the codec and the reader of WireGuard's answers, then the admin API by its
# description, each for FUZZ_SECONDS. The fuzzer itself is installed only here. Finds stay in .fuzz/.
fuzz: setup
	.venv/bin/python -m pip install --quiet 'atheris>=3'
	mkdir -p .fuzz/corpus .fuzz/uapi
	PYTHONPATH=tests .venv/bin/python tests/fuzz/fuzz_codec.py -max_total_time=$(FUZZ_SECONDS) \
		-max_len=2048 -artifact_prefix=.fuzz/ .fuzz/corpus tests/fuzz/corpus
	PYTHONPATH=tests .venv/bin/python tests/fuzz/fuzz_uapi.py -max_total_time=$(FUZZ_SECONDS) \
		-max_len=2048 -artifact_prefix=.fuzz/ .fuzz/uapi tests/fuzz/uapi
	WGMAP_API_SECONDS=$(FUZZ_SECONDS) WGMAP_API_SEED=$$(date +%s) $(PYTEST) tests/cluster/test_api.py

# The kernel's WireGuard, in an emulated machine with the distribution's kernel (5 minutes).
test-kernel: setup
	tests/kernel/test.sh

# First contact under every fault, delay and lateness, over real WireGuard (10 minutes).
test-matrix: setup
	@scripts/as-root .venv/bin/python -m wgmap_chaos.contacts

format: setup
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# One-line mutations of the replicated log, each of which a test must notice (some minutes).
mutants: setup
	.venv/bin/python scripts/mutants.py

# The promises of the control plane, asked thousands of times under faults (an hour).
test-promises: setup
	WGMAP_LONG=1 $(PYTEST) --log-cli-level=INFO --durations=0 tests/netns/promises \
		tests/netns/interfaces/test_reboot.py tests/netns/interfaces/test_clock_back.py \
		tests/cluster/test_keeping_alive.py \
		tests/netns/test_silence.py tests/netns/test_agent_face.py \
		tests/netns/test_documents.py

# Servers of the log in namespaces, faults, load, and a judge: MINUTES, SEED, SERVERS.
chaos-log: setup
	@scripts/as-root .venv/bin/wgmap-chaos log --minutes $(MINUTES) --seed $(SEED) --servers $(SERVERS)

# The whole product: agents, light clients, operators, faults, judges. SEED, MINUTES, SERVERS, AGENTS.
chaos: setup
	@scripts/as-root .venv/bin/wgmap-chaos run --seed $(SEED) --minutes $(MINUTES) \
		--servers $(SERVERS) --agents $(AGENTS)

# Bugs that are planted on purpose, each of which a judge of chaos must notice (half an hour).
chaos-mutants: setup
	@scripts/as-root .venv/bin/python scripts/chaos_mutants.py $(ONLY)

# The replicated log beside the stock library, three servers on loopback (3 minutes), and how it
# comes back (a minute): docs/evaluation/replication.md.
bench-log: setup
	mkdir -p build
	.venv/bin/python bench/log.py --out build
	.venv/bin/python bench/log_recovery.py

# First contacts beside preconfigured tunnels, 0 and 20 ms one way (9 minutes); and Nebula, where
# it is installed.
bench-first-contact: setup
	@scripts/as-root .venv/bin/python bench/first_contact.py --out build/first-contact

# Lookups with ten to a million mappings, beside servers in C (5 minutes).
bench-scalability: setup
	mkdir -p build
	.venv/bin/python bench/scalability.py --out build

# The same lookup by LISP, gRPC and HTTP in one control tunnel (2 minutes); installs gRPC.
bench-control-channel: setup
	.venv/bin/python -m pip install --quiet grpcio grpcio-tools
	mkdir -p build
	@scripts/as-root .venv/bin/python bench/control_channel.py --out build

# Data through an on-demand tunnel and through one made by hand (2 minutes); wants iperf3.
bench-data-plane: setup
	mkdir -p build
	@scripts/as-root .venv/bin/python bench/data_plane.py --out build

# 100,000 peers that repeat their register every minute for ten minutes, beside lookups (12 minutes).
bench-registers: setup
	mkdir -p build
	.venv/bin/python bench/registers.py --out build

# Registers that are committed, by servers and by how many are out (6 minutes).
bench-committed: setup
	mkdir -p build
	@scripts/as-root .venv/bin/python bench/committed.py --out build

# What lookups, registers and first contacts see of servers that die (6 minutes).
bench-gaps: setup
	mkdir -p build
	@scripts/as-root .venv/bin/python bench/gaps.py --out build

# The longest pause of lookups while registers commit, snapshots are written and the admin API is
# busy, beside an echo (6 minutes).
bench-pauses: setup
	mkdir -p build
	@scripts/as-root .venv/bin/python bench/pauses.py --out build

# What a look at a device of up to 10,000 peers takes, and who has moved waits for it (a minute).
bench-looks: setup
	mkdir -p build
	@scripts/as-root unshare --net .venv/bin/python bench/looks.py --out build

# One agent with up to 5,000 active data peers, and a scan (10 minutes): docs/evaluation/scale.md.
bench-agent-scale: setup
	mkdir -p build
	@scripts/as-root .venv/bin/python bench/agent_scale.py --out build

# A map server with up to 10,000 control tunnels, and the kernel's WireGuard in a virtual machine
# (15 minutes): docs/evaluation/scale.md.
bench-server-scale: setup
	mkdir -p build
	@scripts/as-root .venv/bin/python bench/server_scale.py --kernel --out build

# What fleets need, computed from the figures under docs/evaluation (a second): docs/scale.md.
bench-scale-model: setup
	mkdir -p build
	.venv/bin/python bench/scale_model.py --out build

# Endpoints that move, beside WireGuard alone (about 10 minutes; with SHORT=--short a minute or two, to
# see that it works): docs/evaluation/moves.md.
bench-moves: setup
	mkdir -p build
	@scripts/as-root .venv/bin/python bench/moves.py --out build $(SHORT)

# Servers that die, and what first contacts feel of it (5 minutes; with SHORT=--short two):
# docs/evaluation/failover.md.
bench-failover: setup
	mkdir -p build
	@scripts/as-root .venv/bin/python bench/failover.py --out build $(SHORT)

# A thousand agents that lose a server and get it back, simulated (3 minutes): storms.md.
bench-storms: setup
	PYTHONPATH=tests .venv/bin/python -m support.agent_sim.storm

# Random plans for simulated agents and servers: EXAMPLES of them, the same ones each time.
sim-agent: setup
	WGMAP_SIM_EXAMPLES=$(EXAMPLES) $(PYTEST) --timeout=0 tests/sim/agent/test_random.py

clean:
	rm -rf .venv .venv-rollout build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .fuzz

# What hosts are installed from: dist/wgmap-wheelhouse-*.tar.
wheelhouse:
	scripts/wheelhouse.sh dist

# A Debian package of a lone agent: dist/wgmap-agent_*.deb (docs/install.md).
package: .venv-rollout/.stamp
	scripts/package.sh "$$(scripts/wheelhouse.sh dist | tail -n 1)" dist

# Ansible, its linter and Prometheus have an environment of their own.
.venv-rollout/.stamp: deploy/requirements-rollout.txt scripts/prometheus.sh
	python3 -m venv .venv-rollout
	.venv-rollout/bin/python -m pip install --quiet -r deploy/requirements-rollout.txt
	scripts/prometheus.sh .venv-rollout/bin
	touch $@

build/ansible:
	mkdir -p build/ansible/ansible_collections/wgmap
	ln -sfn ../../../../deploy/ansible build/ansible/ansible_collections/wgmap/rollout

# From empty machines to a cluster and back, on booted systemd containers that Ansible reaches by ssh;
# needs root, and once some minutes to make the image (docs/testing.md).
test-rollout: setup .venv-rollout/.stamp build/ansible
	@scripts/as-root apt-get install -y -qq --no-install-recommends \
		mmdebstrap systemd-container openssh-client >/dev/null
	WGMAP_ROLLOUT=1 $(PYTEST) --log-cli-level=INFO --durations=0 tests/rollout

lint-rollout: .venv-rollout/.stamp build/ansible
	cd deploy/ansible && PATH="$(CURDIR)/.venv-rollout/bin:$$PATH" \
		ANSIBLE_COLLECTIONS_PATH=$(CURDIR)/build/ansible \
		ansible-lint --nocolor --profile production --offline .
