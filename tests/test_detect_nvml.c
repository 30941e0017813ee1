/* SPDX-License-Identifier: Apache-2.0 */
/* Detection of what NVML tells, by a fake one: NVLink and C2C, each way in which it can fail, and
 * GPUs that only one of it and /sys has. */
#include <check.h>
#include <dlfcn.h>

#include "tests/detect_words.h"
#include "tests/fake_nvml.h"

static fake_machine *nvml; /* of the library that tells all */

/* The same GPUs for NVML, with capability sm and no links. */
static void nvml_gpus(fake_machine *f, int sm) {
    static const char *const bus[] = {"00000000:03:00.0", "00000000:04:00.0", "00000000:83:00.0",
                                      "00000000:84:00.0"};
    *f = (fake_machine){.gpus = 4};
    for (int i = 0; i < 4; i++) {
        snprintf(f->gpu[i].bus, sizeof f->gpu[i].bus, "%s", bus[i]);
        f->gpu[i].major = sm / 10, f->gpu[i].minor = sm % 10;
    }
}

static fake_link *add_link(fake_machine *f, int gpu, unsigned type, const char *bus) {
    fake_link *l = &f->gpu[gpu].link[f->gpu[gpu].links++];
    *l = (fake_link){.active = 1, .type = type};
    snprintf(l->bus, sizeof l->bus, "%s", bus);
    return l;
}

static void switch_links(fake_machine *f, int gpu, int links) {
    for (int i = 0; i < links; i++) {
        fake_link *l = add_link(f, gpu, FAKE_TO_SWITCH, "FFFFFFFF:FF:FF.0");
        l->domain = 0xffffffff;
    }
}

static void peer_links(fake_machine *f, int a, int b, int links) {
    for (int i = 0; i < links; i++) {
        add_link(f, a, FAKE_TO_GPU, f->gpu[b].bus);
        add_link(f, b, FAKE_TO_GPU, f->gpu[a].bus);
    }
}

START_TEST(test_nvswitch) {
    four_gpus();
    nvml_gpus(nvml, 80);
    for (int i = 0; i < 4; i++) switch_links(nvml, i, 12);
    detect(FAKE_NVML);
    ck_quiet();
    for (int i = 0; i < 4; i++) {
        char gpu[16];
        snprintf(gpu, sizeof gpu, "gpu%d", i);
        ck_gbps(gpu, "nvswitch", 240);
    }
    int arc = cinch_graph_find_arc(&t.graph, 0, cinch_graph_find(&t.graph, "nvswitch"));
    ck_assert_int_eq(t.graph.arc[arc].link, CINCH_LINK_NVLINK);
    ck_assert_int_eq(nvml->started, 0);
    finish();
}
END_TEST

START_TEST(test_peers) {
    four_gpus();
    nvml_gpus(nvml, 70);
    peer_links(nvml, 0, 1, 2);
    peer_links(nvml, 0, 2, 1);
    peer_links(nvml, 1, 3, 1);
    peer_links(nvml, 2, 3, 2);
    detect(FAKE_NVML);
    ck_quiet();
    ck_gbps("gpu0", "gpu1", 40);
    ck_gbps("gpu0", "gpu2", 20);
    ck_gbps("gpu2", "gpu3", 40);
    ck_gbps("gpu0", "gpu3", 0);
    finish();
}
END_TEST

/* Each way in which one link or GPU differs from its peers has its warning. */
START_TEST(test_link_faults) {
    four_gpus();
    nvml_gpus(nvml, 90);
    for (int i = 0; i < 3; i++) switch_links(nvml, i, 18);
    detect(FAKE_NVML);
    ck_warned("GPU 0000:84:00.0 has no NVLink or xGMI, which 3 of its peers have");
    ck_assert_int_eq(t.warnings, 1);

    switch_links(nvml, 3, 18);
    nvml->gpu[1].link[5].state = 15;
    nvml->gpu[1].link[6].state = 3;
    detect(FAKE_NVML);
    ck_warned("the state of NVLink 5 of GPU 0000:04:00.0 (GPU is lost): left out");
    ck_warned("the state of NVLink 6 of GPU 0000:04:00.0 (Unknown Error): left out");
    ck_warned("GPU 0000:04:00.0 has 16 links to the switch, its peers up to 18");
    ck_gbps("gpu1", "nvswitch", 16 * 20.6);
    ck_gbps("gpu0", "nvswitch", 18 * 20.6);

    nvml_gpus(nvml, 90);
    for (int i = 0; i < 4; i++) switch_links(nvml, i, 18);
    for (int i = 2; i < 6; i++) nvml->gpu[0].link[i].active = 0;
    nvml->gpu[2].link[0].apart = 1;
    detect(FAKE_NVML);
    ck_warned("4 of the 18 NVLinks of GPU 0000:03:00.0 are not active");
    ck_warned("1 NVLinks of GPU 0000:83:00.0 are not for memory of peers");
    ck_gbps("gpu0", "nvswitch", 14 * 20.6);
    ck_gbps("gpu2", "nvswitch", 17 * 20.6);
    finish();
}
END_TEST

START_TEST(test_end_faults) {
    four_gpus();
    nvml_gpus(nvml, 80);
    peer_links(nvml, 0, 1, 4);
    nvml->gpu[0].link[1].remote = 15; /* where it goes is not told; that it is a GPU, is */
    nvml->gpu[0].link[2].typed = 999; /* what it is is not told; where it goes, is */
    nvml->gpu[0].link[3].type = FAKE_TO_UNKNOWN;
    detect(FAKE_NVML);
    ck_warned("does not tell where NVLink 1 of GPU 0000:03:00.0 goes (GPU is lost): left out");
    ck_warned("from GPU 0000:04:00.0 to GPU 0000:03:00.0 there are 80 GB/s of links and back 60");
    ck_assert_int_eq(t.warnings, 2);
    ck_gbps("gpu0", "gpu1", 60);

    nvml_gpus(nvml, 80);
    switch_links(nvml, 0, 2);
    switch_links(nvml, 1, 2);
    nvml->gpu[0].link[0].typed = 13, nvml->gpu[0].link[0].remote = 13;
    peer_links(nvml, 2, 3, 1);
    add_link(nvml, 2, FAKE_TO_GPU, "00000000:99:00.0");
    add_link(nvml, 2, FAKE_TO_GPU, "none");
    detect(FAKE_NVML);
    ck_warned("where NVLink 0 of GPU 0000:03:00.0 goes (Unknown Error): left out");
    ck_warned("GPU 0000:83:00.0 has 1 NVLinks to GPUs that cannot be seen here: left out");
    ck_warned("where NVLink 2 of GPU 0000:83:00.0 goes (an address of no GPU): left out");
    ck_gbps("gpu0", "nvswitch", 20);
    ck_gbps("gpu2", "gpu3", 20);
    finish();
}
END_TEST

/* A driver that does not tell what a link leads to: its address does, or its class in /sys. */
START_TEST(test_old_nvml) {
    void *library = dlopen(FAKE_NVML_OLD, RTLD_NOW | RTLD_LOCAL);
    ck_assert_msg(library != NULL, "%s", dlerror());
    fake_machine *old = dlsym(library, "fake_nvml");
    four_gpus();
    sys_pci("pci0000:80", "0000:c1:00.0", "0x068000", "0x10de", GEN3, "2", 0);
    sys_pci("pci0000:80", "0000:c2:00.0", "0x068001", "0x1014", GEN3, "2", 0);
    nvml_gpus(old, 70);
    peer_links(old, 0, 1, 2);
    switch_links(old, 2, 3);
    add_link(old, 3, 99, "00000000:C1:00.0");
    add_link(old, 3, 99, "00000000:C2:00.0");
    add_link(old, 3, 99, "00000000:C2:00.0");
    detect(FAKE_NVML_OLD);
    ck_gbps("gpu0", "gpu1", 40);
    ck_gbps("gpu2", "nvswitch", 60);
    ck_gbps("gpu3", "nvswitch", 20);
    ck_gbps("gpu3", "cpu1", 24 + 40);
    ck_warned("GPU 0000:84:00.0 has 1 links to the switch, its peers up to 3");
    finish();
    dlclose(library);
}
END_TEST

START_TEST(test_c2c) {
    four_gpus();
    nvml_gpus(nvml, 90);
    for (int g = 0; g < 2; g++) {
        nvml->gpu[g].c2c = 10;
        for (unsigned i = 0; i < 10; i++) {
            nvml->gpu[g].c2c_link[i].up = i != 9;
            nvml->gpu[g].c2c_link[i].mbytes = 40000;
        }
    }
    nvml->gpu[1].c2c_link[3].result = 15;
    detect(FAKE_NVML);
    ck_gbps("gpu0", "cpu0", 360); /* beside PCI, which ends in the switch */
    ck_gbps("gpu1", "cpu0", 320);
    ck_warned("of 1 of the C2C links of GPU 0000:04:00.0");
    finish();
}
END_TEST

START_TEST(test_nvml_fails) {
    four_gpus();
    nvml_gpus(nvml, 80);
    nvml->init = 15;
    detect(FAKE_NVML);
    ck_warned("what NVLinks 4 NVIDIA GPUs have cannot be seen: NVML does not start (GPU is lost)");
    ck_assert_int_eq(t.gpus, 4);
    nvml->init = 0, nvml->count = 999;
    detect(FAKE_NVML);
    ck_warned("cannot be seen: NVML does not count GPUs (Unknown Error)");
    ck_assert_int_eq(t.gpus, 4);
    ck_assert_int_eq(nvml->started, 0);
    detect("/nowhere/libnvidia-ml.so.1");
    ck_warned("cannot be seen: NVML cannot be loaded (/nowhere/libnvidia-ml.so.1:");
    detect("libm.so.6");
    ck_warned("cannot be seen: NVML has no nvmlInit_v2");

    nvml_gpus(nvml, 80);
    for (int i = 0; i < 4; i++) switch_links(nvml, i, 4);
    nvml->gpu[1].handle = 15;
    nvml->gpu[2].capability = 999;
    detect(FAKE_NVML);
    ck_assert_int_eq(t.gpus, 3);
    ck_warned("NVML does not tell where GPU 1 is (GPU is lost): left out");
    ck_warned("NVIDIA GPUs in /sys that NVML does not list, as in a container that was not given "
              "them: 1");
    ck_warned("the compute capability of GPU 0000:83:00.0 (Unknown Error): the slowest");
    ck_gbps("gpu0", "nvswitch", 80);
    ck_gbps("gpu1", "nvswitch", 72);
    finish();
}
END_TEST

/* What NVML lists and /sys does not: a container without PCI. */
START_TEST(test_gpus_without_sys) {
    sys_begin(2);
    nvml_gpus(nvml, 80);
    for (int i = 0; i < 4; i++) switch_links(nvml, i, 12);
    detect(FAKE_NVML);
    ck_assert_int_eq(t.gpus, 4);
    ck_gbps("gpu3", "cpu0", 12);
    ck_gbps("gpu3", "nvswitch", 240);
    ck_warned("GPU 0000:84:00.0 is not in /sys: it is taken to be at the first CPU");
    finish();
}
END_TEST

int main(void) {
    void *library = dlopen(FAKE_NVML, RTLD_NOW | RTLD_LOCAL);
    nvml = library ? dlsym(library, "fake_nvml") : NULL;
    if (!nvml) {
        fprintf(stderr, "no fake NVML: %s\n", dlerror());
        return 1;
    }
    Suite *suite = suite_create("detect_nvml");
    TCase *all = tcase_create("all");
    tcase_add_unchecked_fixture(all, NULL, finish);
    tcase_add_test(all, test_nvswitch);
    tcase_add_test(all, test_peers);
    tcase_add_test(all, test_link_faults);
    tcase_add_test(all, test_end_faults);
    tcase_add_test(all, test_old_nvml);
    tcase_add_test(all, test_c2c);
    tcase_add_test(all, test_nvml_fails);
    tcase_add_test(all, test_gpus_without_sys);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    dlclose(library);
    return failed != 0;
}
