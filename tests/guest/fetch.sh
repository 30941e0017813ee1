#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Gets what the guest boots, once, into a folder: the kernel of a Debian package, which is only
# unpacked and not installed, and an initramfs with busybox and the modules that are needed.
#
#   tests/guest/fetch.sh FOLDER
#
# Status 77, and why in the last line, where that cannot be had here. Needs no root and no network
# once FOLDER has it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$1
# Loaded in this order, each behind what it depends on. rdma_rxe asks for crc32 by an algorithm's
# name, which no dependency tells.
wanted=(virtio_pci 9pnet_virtio 9p dummy veth sch_netem crc32_generic ib_uverbs rdma_rxe)

skip() {
    echo "skipped: $1"
    exit 77
}

for program in qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio \
    apt-get:apt dpkg-deb:dpkg python3:python3; do
    command -v "${program%:*}" >/dev/null || skip "${program%:*} is not here (package ${program#*:})"
done
[ "$(uname -m)" = x86_64 ] || skip "the guest's kernel is for x86_64, this is $(uname -m)"

mkdir -p "$folder"
cd "$folder"
exec 9>lock
flock 9
if [ -f ready ] && cmp -s ready "$here/init.sh"; then exit 0; fi

unpack() {
    local package
    # The name has a number that grows with each security update. Not the cloud flavour: it has
    # neither rdma_rxe nor 9p.
    package=$(apt-cache depends linux-image-amd64 2>/dev/null |
        awk '/Depends: linux-image/ { print $2; exit }')
    [ -n "$package" ] || skip "apt knows no package linux-image-amd64"
    rm -rf kernel
    mkdir kernel
    (cd kernel && apt-get -q download "$package") >fetch.log 2>&1 ||
        skip "the package $package could not be downloaded: $(tail -n 1 fetch.log)"
    dpkg-deb --fsys-tarfile kernel/*.deb | tar -x -C kernel --wildcards './boot/vmlinuz-*' \
        './lib/modules/*/kernel/drivers/infiniband/*' './lib/modules/*/kernel/drivers/virtio/*' \
        './lib/modules/*/kernel/drivers/net/dummy.ko*' './lib/modules/*/kernel/drivers/net/veth.ko*' \
        './lib/modules/*/kernel/net/9p/*' './lib/modules/*/kernel/fs/*' \
        './lib/modules/*/kernel/net/ipv4/*' './lib/modules/*/kernel/net/ipv6/*' \
        './lib/modules/*/kernel/net/sched/*' './lib/modules/*/kernel/crypto/*'
    rm kernel/*.deb
    python3 "$here/vmlinux.py" kernel/boot/vmlinuz-* vmlinux
}

# module NAME: puts it into the initramfs, behind what it depends on.
module() {
    local name=$1 file needs
    [ ! -e "tree/modules/$name.ko" ] || return 0
    file=$(find kernel/lib -name "${name//_/[-_]}.ko*" | head -n 1)
    case $file in
    '') skip "the kernel has no module $name" ;;
    *.xz) xz -dc "$file" >"tree/modules/$name.ko" ;;
    *.zst) zstd -qdc "$file" >"tree/modules/$name.ko" ;;
    *) cp "$file" "tree/modules/$name.ko" ;;
    esac
    needs=$(tr '\0' '\n' <"tree/modules/$name.ko" | sed -n 's/^depends=//p' | head -n 1)
    for file in ${needs//,/ }; do module "${file//-/_}"; done
    echo "$name" >>tree/modules/order
}

if [ ! -f vmlinux ] || [ ! -d kernel/lib ]; then unpack; fi
rm -rf tree
mkdir -p tree/bin tree/modules tree/proc tree/sys tree/dev
cp "$(command -v busybox)" tree/bin/busybox
ln -s busybox tree/bin/sh
for name in "${wanted[@]}"; do module "$name"; done
cp "$here/init.sh" tree/init
chmod 755 tree/init
(cd tree && find . -print0 | cpio --null -o -H newc -R 0:0 --quiet) >initramfs
rm -rf tree
cp "$here/init.sh" ready
