/* SPDX-License-Identifier: Apache-2.0 */
/* Detection of NICs, on machines that each test describes by a folder as /sys. */
#include <check.h>

#include "tests/detect_words.h"

static const char *nic_at(const char *bus) {
    return sys_pci("pci0000:00", bus, "0x020000", "0x15b3", GEN4, "16", 0);
}

START_TEST(test_nic_speeds) {
    sys_begin(1);
    sys_net(nic_at("0000:00:05.0"), "eth0", "-1", "up");
    sys_net(nic_at("0000:00:06.0"), "eth1", NULL, "unknown");
    sys_net(nic_at("0000:00:07.0"), "eth2", "25000", NULL);
    sys_net(nic_at("0000:00:08.0"), "eth3", "25000", "down");
    sys_net(nic_at("0000:00:09.0"), "eth4", "0", "up");
    sys_net(nic_at("0000:00:0a.0"), "eth5", "4000000", "up");
    detect("");
    ck_assert_int_eq(t.nics, 5);
    ck_gbps("eth0", "net:eth0", 1.25);
    ck_gbps("eth1", "net:eth1", 1.25);
    ck_gbps("eth2", "net:eth2", 3.125);
    ck_gbps("eth4", "net:eth4", 1.25);
    ck_gbps("eth5", "net:eth5", 24);
    ck_warned("the NIC eth0 has no readable speed: 10 Gb/s is planned with");
    ck_warned("the NIC eth1 has no readable speed");
    ck_warned("the NIC eth4 has no readable speed");
    ck_warned("the NIC eth5 says 500 GB/s, 20.8 times its bus");
    ck_warned("interfaces that are down: 1, the first of them eth3");
    ck_assert_int_eq(t.warnings, 5);
    finish();
}
END_TEST

/* A card with two ports has one bus; the system's own devices are no NICs. */
START_TEST(test_cards) {
    sys_begin(1);
    sys_net(nic_at("0000:00:05.0"), "eth0", "25000", "up");
    sys_net(nic_at("0000:00:05.1"), "eth1", "25000", "up");
    sys_put("sys/class/net/lo/type", "772");
    sys_put("sys/class/net/docker0/type", "1");
    sys_put("sys/class/net/bonding_masters", "bond0");
    sys_net("pci0000:00/0000:00:05.0", "eth0_rep", "25000", "up");
    sys_put("sys/devices/pci0000:00/0000:00:05.0/net/eth0_rep/phys_port_name", "pf0vf3");
    detect("");
    ck_quiet();
    ck_assert_int_eq(t.nics, 2);
    ck_gbps("eth0", "cpu0", 24);
    ck_gbps("eth0", "net:eth0", 3.125);
    ck_gbps("eth0", "net:eth1", 3.125);
    ck_assert_int_eq(cinch_graph_find(&t.graph, "eth1"), -1);
    finish();
}
END_TEST

START_TEST(test_bonds) {
    sys_begin(1);
    const char *mode = _i ? "active-backup 1" : "802.3ad 4";
    sys_put("sys/devices/virtual/net/bond0/bonding/mode", "%s", mode);
    sys_put("sys/devices/virtual/net/bond0/bonding/active_slave", "%s", _i ? "eth1" : "");
    sys_put("sys/devices/virtual/net/bond0/speed", "50000");
    sys_link("sys/class/net/bond0", "sys/devices/virtual/net/bond0");
    sys_net(nic_at("0000:00:05.0"), "eth0", "25000", "up");
    sys_net(nic_at("0000:00:06.0"), "eth1", "25000", "up");
    /* In the device's folder, as a link in /sys/class/net leads there. */
    sys_link("sys/devices/pci0000:00/0000:00:05.0/net/eth0/master",
             "sys/devices/virtual/net/bond0");
    sys_link("sys/devices/pci0000:00/0000:00:06.0/net/eth1/master",
             "sys/devices/virtual/net/bond0");
    detect("");
    ck_assert_int_eq(t.nics, _i ? 1 : 2);
    ck_assert_int_eq(cinch_graph_find(&t.graph, "eth0") < 0, _i == 1);
    ck_gbps("eth1", "net:eth1", 3.125);
    ck_warned(_i ? "the NIC eth0 is the spare of the bond bond0: left out"
                 : "the NIC eth0 is in the bond bond0: it is planned with at its own speed");
    ck_warned("the NIC eth1 is in the bond bond0");
    ck_assert_int_eq(t.warnings, 2);
    finish();
}
END_TEST

/* What carries the same bytes twice: a virtual function beside its NIC, a member of an interface
 * that has a device, too. */
START_TEST(test_doubles) {
    sys_begin(1);
    sys_net(nic_at("0000:00:05.0"), "eth0", "25000", "up");
    const char *vf = nic_at("0000:00:05.7");
    sys_net(vf, "eth9", "25000", "up");
    sys_link("sys/devices/pci0000:00/0000:00:05.7/physfn", "sys/devices/pci0000:00/0000:00:05.0");
    sys_net("vmbus/device7", "eth1", "40000", "up");
    sys_net(nic_at("0000:00:08.0"), "eth2", "40000", "up");
    sys_link("sys/devices/pci0000:00/0000:00:08.0/net/eth2/master",
             "sys/devices/vmbus/device7/net/eth1");
    detect("");
    ck_assert_int_eq(t.nics, 2);
    ck_assert_int_ge(cinch_graph_find(&t.graph, "eth0"), 0);
    ck_assert_int_ge(cinch_graph_find(&t.graph, "eth2"), 0);
    finish();
}
END_TEST

START_TEST(test_container) {
    sys_begin(1);
    sys_put("sys/devices/virtual/net/eth0/speed", "10000");
    sys_put("sys/devices/virtual/net/eth0/ifindex", "2");
    sys_put("sys/devices/virtual/net/eth0/iflink", "7");
    sys_put("sys/devices/virtual/net/dummy0/ifindex", "3");
    sys_put("sys/devices/virtual/net/dummy0/iflink", "3");
    sys_put("sys/devices/virtual/net/tun0/ifindex", "4");
    sys_put("sys/devices/virtual/net/tun0/iflink", "0");
    sys_put("sys/devices/virtual/net/tun0/type", "65534");
    for (int i = 0; i < 3; i++) {
        char link[64], to[64];
        const char *name = i == 0 ? "eth0" : i == 1 ? "dummy0" : "tun0";
        snprintf(link, sizeof link, "sys/class/net/%s", name);
        snprintf(to, sizeof to, "sys/devices/virtual/net/%s", name);
        sys_link(link, to);
    }
    detect("");
    ck_assert_int_eq(t.nics, 1);
    ck_gbps("eth0", "net:eth0", 1.25);
    ck_gbps("eth0", "cpu0", 12);
    ck_warned("network interfaces are virtual, as in a container, the first of them eth0");
    ck_warned("no NIC is on a PCI bus, as in a virtual machine");
    finish();
}
END_TEST

START_TEST(test_fabric) {
    sys_begin(2);
    const char *a = sys_pci("pci0000:00", "0000:00:05.0", "0x020700", "0x15b3", GEN4, "16", 0);
    const char *b = sys_pci("pci0000:80", "0000:80:05.0", "0x020700", "0x15b3", GEN4, "16", 1);
    sys_fabric(a, "mlx5_0", 1, "4: ACTIVE", "200 Gb/sec (4X HDR)", "0001:0002");
    sys_fabric(b, "mlx5_1", 1, "4: ACTIVE", "100 Gb/sec (4X EDR)", "0001:0002");
    sys_fabric(b, "mlx5_1", 2, "4: ACTIVE", "50 Gb/sec (1X)", "0001:0002");
    sys_fabric(nic_at("0000:00:07.0"), "mlx5_2", 1, "1: DOWN", "10 Gb/sec (4X SDR)", "0003");
    sys_net(a, "ib0", "200000", "up");
    sys_net(nic_at("0000:00:09.0"), "eth0", "1000", "up");
    detect("");
    ck_assert_int_eq(t.nics, 3);
    ck_gbps("mlx5_0", "net:mlx5_0", 25);
    ck_gbps("mlx5_1", "net:mlx5_1", 12.5);
    ck_gbps("mlx5_1", "net:mlx5_1:2", 6.25);
    ck_gbps("mlx5_0", "cpu0", 24);
    ck_gbps("mlx5_1", "cpu1", 24);
    ck_warned("the NICs mlx5_0 and mlx5_1 are one card in two slots");
    ck_warned("that are not active: 1, the first of mlx5_2");
    ck_warned("network interfaces left out: 1, as others have an OpenFabrics device");
    finish();
}
END_TEST

/* More than there is room for, all on one card. */
START_TEST(test_many) {
    char link[64], card[128];
    sys_begin(257);
    snprintf(card, sizeof card, "sys/devices/%s", nic_at("0000:00:05.0"));
    for (int i = 0; i < 257; i++) {
        snprintf(link, sizeof link, "sys/class/net/eth%d/device", i);
        sys_link(link, card);
    }
    detect("");
    ck_warned("of the NUMA nodes 256 are taken");
    ck_warned("there are more warnings than are kept");
    ck_assert_int_eq(t.nics, 256);
    finish();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("detect_nics");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_unchecked_fixture(all, NULL, finish);
    tcase_add_test(all, test_nic_speeds);
    tcase_add_test(all, test_cards);
    tcase_add_loop_test(all, test_bonds, 0, 2);
    tcase_add_test(all, test_doubles);
    tcase_add_test(all, test_container);
    tcase_add_test(all, test_fabric);
    tcase_add_test(all, test_many);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
