#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a command in the guest: an emulated machine whose kernel has Soft-RoCE. It sees this machine's
# files at their own paths, read-only, with an empty /tmp, in which only the folders WORK are as here.
#
#   tests/guest/run.sh FOLDER WORK[:WORK...] COMMAND [ARGUMENTS...]
#
# FOLDER is what fetch.sh has filled. The exit status is the command's; 125 where the guest ended
# without telling it. LIMIT: seconds until it is ended (300). No root, no network.
set -euo pipefail

folder=$(realpath "$1")
IFS=: read -ra works <<<"$2"
shift 2

control=$(mktemp -d)
trap 'rm -rf "$control"' EXIT
chmod 755 "$control"
{
    echo "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root"
    echo "cd /tmp"
    printf '%q ' "$@"
    echo
} >"$control/command"

# A virtual machine may show /dev/kvm and be of no use with it: the CPU's flags tell.
accelerator=(-accel "tcg,thread=multi,tb-size=256" -cpu max)
if grep -qE '^flags.* (vmx|svm)( |$)' /proc/cpuinfo && [ -w /dev/kvm ]; then
    accelerator=(-accel kvm -cpu host)
fi
# share TAG FOLDER
shares=()
share() {
    shares+=(-fsdev "local,id=$1,path=$2,security_model=none,readonly=on,multidevs=remap"
        -device "virtio-9p-pci,fsdev=$1,mount_tag=$1")
}
share root /
share ctl "$control"
: >"$control/works"
for work in "${works[@]}"; do
    work=$(realpath "$work")
    share "work${#shares[@]}" "$work"
    echo "${shares[-1]##*=} $work" >>"$control/works"
done

timeout -k 5 "${LIMIT:-300}" qemu-system-x86_64 "${accelerator[@]}" -M q35 -smp 2 -m 1G -nodefaults \
    -no-user-config -display none -serial stdio -monitor none -no-reboot \
    -kernel "$folder/vmlinux" -initrd "$folder/initramfs" \
    -append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on" \
    "${shares[@]}" </dev/null 2>&1 | tr -d '\r' | tee "$control/log" | grep -v '^guest: status ' || true
status=$(sed -n 's/^guest: status \([0-9]*\)$/\1/p' "$control/log" | tail -n 1)
exit "${status:-125}"
