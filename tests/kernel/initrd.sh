#!/usr/bin/env bash
# initrd.sh VERSION ROOT OUT: makes a small initial RAM disk that mounts this machine's root
# directory read-only over 9p, puts a RAM disk over it, and runs /out/init.sh there.
set -euo pipefail
version=$1 root=$2 out=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{bin,modules,proc,sys,dev}
cp "$(command -v busybox)" "$work/bin/busybox"
for applet in sh mount insmod mkdir switch_root; do ln -s busybox "$work/bin/$applet"; done

lib=$root/lib
[[ -d $lib/modules ]] || lib=$root/usr/lib
[[ -f $lib/modules/$version/modules.dep ]] || depmod -b "${lib%/lib}" "$version"
# All the modules that these need, in the order in which they load.
for module in virtio_pci 9pnet_virtio 9p overlay; do
    modprobe -d "${lib%/lib}" -S "$version" --show-depends "$module" 2>/dev/null |
        awk '/^insmod/ { print $2 }'
done | awk '!seen[$0]++' | while read -r file; do
    name=$(basename "$file")
    case $file in
        *.xz) xz -dc "$file" >"$work/modules/${name%.xz}" ;;
        *.zst) zstd -dcq "$file" >"$work/modules/${name%.zst}" ;;
        *) cp "$file" "$work/modules/$name" ;;
    esac
    name=${name%.xz}
    echo "${name%.zst}" >>"$work/modules/order"
done

cat >"$work/init" <<'INIT'
#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done </modules/order
share='trans=virtio,version=9p2000.L,msize=262144'
mkdir -p /lower /upper /new
mount -t 9p -o "$share,ro,cache=loose" root /lower
mount -t tmpfs -o size=50% upper /upper
mkdir /upper/files /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /new
mount -t proc proc /new/proc; mount -t sysfs sysfs /new/sys; mount -t devtmpfs dev /new/dev
mount -t tmpfs run /new/run
mkdir -p /new/dev/pts /new/dev/shm /new/run/lock /new/out /new/lib/modules
mount -t devpts devpts /new/dev/pts; mount -t tmpfs shm /new/dev/shm
mount -t 9p -o "$share" out /new/out
mount -t 9p -o "$share,ro,cache=loose" modules /new/lib/modules
exec switch_root /new /bin/sh /out/init.sh
INIT
chmod +x "$work/init"
(cd "$work" && find . | cpio -o -H newc --quiet | gzip -1) >"$out"
