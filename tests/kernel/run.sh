#!/usr/bin/env bash
# run.sh FOLDER COMMAND...: boots the kernel in FOLDER on a copy-on-write view of this machine's
# files, runs a shell command there as root, prints its output and returns its exit status.
# Emulated (no KVM is needed), so some ten times slower than the machine itself.
set -euo pipefail
folder=$(realpath "$1")
shift
here=$(dirname "$(realpath "$0")")
version=$("$here/fetch.sh" "$folder")
root=$folder/root
[[ -f $folder/initrd.gz ]] || "$here/initrd.sh" "$version" "$root" "$folder/initrd.gz"
modules=$root/lib/modules
[[ -d $modules ]] || modules=$root/usr/lib/modules

out=$folder/out
rm -rf "$out"
mkdir -p "$out"
printf '%s\n' "$*" >"$out/command.sh"
cat >"$out/init.sh" <<'INIT'
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
ip link set lo up
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
[ -e /dev/stdin ] || ln -s /proc/self/fd/0 /dev/stdin
hostname wgmap-kernel-test
modprobe tun
sh /out/command.sh >/out/log 2>&1 </dev/null
echo $? >/out/status
sync
echo o >/proc/sysrq-trigger
sleep 60
INIT

share() { echo -fsdev "local,id=$1,path=$2,security_model=none$3" -device "virtio-9p-pci,fsdev=$1,mount_tag=$1"; }
# shellcheck disable=SC2046  # words are wanted
timeout "${VM_TIMEOUT_S:-900}" qemu-system-x86_64 \
    -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m 2G -nodefaults -no-user-config \
    -display none -no-reboot -serial "file:$out/console" \
    -kernel "$root/boot/vmlinuz-$version" -initrd "$folder/initrd.gz" \
    -append "console=ttyS0 loglevel=4 panic=-1 mitigations=off nokaslr tsc=reliable nowatchdog rdinit=/init" \
    $(share root / ,readonly=on,multidevs=remap) $(share out "$out" "") \
    $(share modules "$modules" ,readonly=on) </dev/null &
machine=$!
trap 'kill "$machine" 2>/dev/null || true' EXIT
touch "$out/log"
tail -n +1 -f --pid="$machine" "$out/log"
wait "$machine" || echo "the virtual machine ended with $?; its console is $out/console" >&2
exit "$(cat "$out/status" 2>/dev/null || echo 99)"
