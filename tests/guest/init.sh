#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The first process of the guest, run by busybox: loads the modules, mounts the host's file system,
# and runs there what the share named "ctl" says. The last line on the console is its status.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do
    insmod "/modules/$module.ko" || echo "guest: the module $module was not loaded"
done </modules/order
# shellcheck disable=SC3045 # busybox has them
ulimit -c 0
# shellcheck disable=SC3045
ulimit -l unlimited

# share TAG PLACE: a folder of the host, read-only.
share() {
    mkdir -p "$2"
    mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro "$1" "$2"
}
share root /host
share ctl /ctl
mkdir -p /dev/shm
for place in proc sys dev; do mount --bind /$place /host/$place; done
for place in dev/shm run tmp; do mount -t tmpfs tmpfs /host/$place; done
# What lies under a folder that was just covered is laid on top again.
while read -r tag place; do
    [ ! -d "/host$place" ] || continue
    share "$tag" "/works/$tag"
    mkdir -p "/host$place"
    mount --bind "/works/$tag" "/host$place"
done </ctl/works
cp /ctl/command /host/run/guest-command
chroot /host /bin/bash /run/guest-command
echo "guest: status $?"
poweroff -f
