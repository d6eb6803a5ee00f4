#!/usr/bin/env bash
# fetch.sh FOLDER: unpacks the distribution's kernel into FOLDER/root, without installing it, and
# prints its version. Installs what a virtual machine needs.
set -euo pipefail
folder=$1
packages=(qemu-system-x86 busybox-static cpio kmod xz-utils)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
        missing+=("$package")
done
if ((${#missing[@]})); then
    as_root=()
    if ((EUID != 0)); then as_root=(sudo); fi
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! compgen -G "$folder/root/boot/vmlinuz-*" >/dev/null; then
    mkdir -p "$folder"
    # Pinned versions vanish from the archive; the metapackage names the present one.
    for meta in linux-image-amd64 linux-image-generic; do
        image=$(apt-cache depends "$meta" 2>/dev/null |
            awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ { print $2; exit }')
        [[ -z $image ]] || break
    done
    [[ -n $image ]] || { echo "no kernel package found" >&2; exit 1; }
    (
        cd "$folder"
        rm -f ./*.deb
        # Ubuntu keeps the modules in a package of their own.
        apt-get download -qq "$image" >&2
        modules=${image/linux-image-/linux-modules-}
        apt-get download -qq "$modules" >&2 2>/dev/null || true
        for package in ./*.deb; do dpkg-deb -x "$package" root; done
        rm -f ./*.deb
    )
fi
image=$(compgen -G "$folder/root/boot/vmlinuz-*" | head -n 1)
echo "${image##*/vmlinuz-}"
