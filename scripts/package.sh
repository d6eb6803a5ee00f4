#!/usr/bin/env bash
# Makes a Debian package of a lone agent out of a wheelhouse: everything in one file, nothing is
# downloaded where it is installed. The units are those of the Ansible collection.
#
#   scripts/package.sh WHEELHOUSE [DIRECTORY]     writes DIRECTORY/wgmap-agent_VERSION_ARCH.deb
set -euo pipefail
cd "$(dirname "$0")/.."
wheelhouse=$(realpath "$1")
out=$(realpath -m "${2:-dist}")
ansible=$PWD/.venv-rollout/bin/ansible
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

IFS=- read -r _ _ version python _ <<<"$(basename "$wheelhouse")"
minor=${python#cp3}
mkdir -p "$work/wheels" "$root/usr/lib/wgmap" "$root/usr/bin" "$root/usr/lib/systemd/system" \
    "$root/usr/share/doc/wgmap-agent" "$root/DEBIAN" "$out"
tar -C "$work/wheels" -xf "$wheelhouse"
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip --quiet --disable-pip-version-check install --no-compile \
    --no-index --find-links "$work/wheels" --target "$root/usr/lib/wgmap" "wgmap==$version"
rm -rf "$root/usr/lib/wgmap/bin"

bash_completions=$root/usr/share/bash-completion/completions
zsh_completions=$root/usr/share/zsh/vendor-completions
mkdir -p "$bash_completions" "$zsh_completions"
complete() {
    PYTHONPATH=$root/usr/lib/wgmap "$work/venv/bin/python" -B -c \
        "from $1 import main; raise SystemExit(main(['completion', '$2']))"
}

# Debian's interpreter with our modules, and nothing of whoever calls it.
for program in agent:wgmap_agent.main server:wgmap_cluster.main :wgmap_cluster.cli.main; do
    name=wgmap${program%%:*}
    name=${name/wgmapagent/wgmap-agent}
    name=${name/wgmapserver/wgmap-server}
    cat >"$root/usr/bin/$name" <<END
#!/usr/bin/python3 -I
import sys
sys.path.insert(0, "/usr/lib/wgmap")
from ${program##*:} import main
sys.exit(main())
END
    chmod 755 "$root/usr/bin/$name"
    complete "${program##*:}" bash >"$bash_completions/$name"
    complete "${program##*:}" zsh >"$zsh_completions/_$name"
done

roles=$PWD/deploy/ansible/roles
units=$root/usr/lib/systemd/system
render() {
    ANSIBLE_LOCALHOST_WARNING=false "$ansible" localhost -c local -m ansible.builtin.template \
        -a "src=$1 dest=$2 mode=0644" -e "@$roles/agent/defaults/main.yml" -e common_bin=/usr/bin \
        -e common_userspace=false -e common_systemd=252 -e common_user=wgmap-agent \
        -e ansible_managed='Part of the package wgmap-agent.' >/dev/null 2>"$work/errors" ||
        { cat "$work/errors" >&2; exit 1; }
}
mkdir -p "$units/wgmap-agent.service.d"
render "$roles/agent/templates/wgmap-agent.service.j2" "$units/wgmap-agent.service"
render "$roles/common/templates/hardening.conf.j2" "$units/wgmap-agent.service.d/10-hardening.conf"
render "$roles/common/templates/wgmap-wg@.service.j2" "$units/wgmap-wg@.service"

mkdir -p "$root/usr/lib/sysusers.d"
echo 'u wgmap-agent - "Agent of wgmap" /var/lib/wgmap-agent' >"$root/usr/lib/sysusers.d/wgmap-agent.conf"
cp LICENSE "$root/usr/share/doc/wgmap-agent/copyright"
cp docs/install.md "$root/usr/share/doc/wgmap-agent/README.md"
for script in postinst prerm postrm; do
    install -m 755 "deploy/debian/$script" "$root/DEBIAN/$script"
done
cat >"$root/DEBIAN/control" <<END
Package: wgmap-agent
Version: $version
Architecture: $(dpkg --print-architecture)
Maintainer: The wgmap developers <developers@wgmap.invalid>
Depends: python3 (>= 3.$minor), python3 (<< 3.$((minor + 1))), iproute2, systemd
Recommends: wireguard-go
Suggests: wireguard-tools
Section: net
Priority: optional
Homepage: https://github.com/wgmap/wgmap
Description: agent of wgmap, a control plane for WireGuard
 Tunnels to other hosts of a virtual network are made on demand, when the
 first packet leaves for them; map servers say where they are.
END
name=$out/wgmap-agent_${version}_$(dpkg --print-architecture).deb
dpkg-deb -Zgzip --root-owner-group --build "$root" "$name.new" >/dev/null
mv "$name.new" "$name"
echo "$name"
