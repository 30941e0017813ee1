#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# In the guest: makes Soft-RoCE devices. rxe0 (10.9.0.1) is alone; rxa and rxb (10.1.0.1, 10.1.0.2)
# are at the two ends of a veth pair, so that what they send to each other can be lost or cut off.
set -euo pipefail

ip link set lo up
ip link add veth0 type veth peer name veth1
echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
for end in veth0 veth1; do
    echo 1 >/proc/sys/net/ipv4/conf/$end/accept_local
    echo 0 >/proc/sys/net/ipv4/conf/$end/rp_filter
    echo 1 >/proc/sys/net/ipv4/conf/$end/arp_ignore
done
# The MTU of 4096 that rxe then has is what its peers may rely on.
ip addr add 10.1.0.1/24 dev veth0
ip addr add 10.1.0.2/24 dev veth1
ip link set veth0 mtu 9000 up
ip link set veth1 mtu 9000 up
# Both ends are this machine's own, which would keep what they say to each other inside: routes of
# their own, ahead of the table of local addresses, send it over the pair. (rxe works in the first
# network namespace only.)
ip route add 10.1.0.2/32 dev veth0 src 10.1.0.1 table 101
ip route add 10.1.0.1/32 dev veth1 src 10.1.0.2 table 102
ip rule add pref 10 iif veth0 lookup local
ip rule add pref 11 iif veth1 lookup local
ip rule add pref 20 from 10.1.0.1 to 10.1.0.2 lookup 101
ip rule add pref 21 from 10.1.0.2 to 10.1.0.1 lookup 102
ip rule add pref 30 lookup local
ip rule del pref 0
rdma link add rxa type rxe netdev veth0
rdma link add rxb type rxe netdev veth1

ip link add lone0 type dummy
ip addr add 10.9.0.1/24 dev lone0
ip link set lone0 mtu 9000 up
rdma link add rxe0 type rxe netdev lone0

# The address of a device that carries IPv4 appears a moment later.
for device in rxe0 rxa rxb; do
    for ((i = 0; i < 200; i++)); do
        if grep -qs '^0000:0000:0000:0000:0000:ffff:' /sys/class/infiniband/$device/ports/1/gids/*
        then
            continue 2
        fi
        sleep 0.05
    done
    echo "guest: $device has no address after 10 s"
    exit 1
done
