/* SPDX-License-Identifier: Apache-2.0 */
/* Settings under a fuzzer: lines NAME=value become the environment; the table reads it, and what
 * reads single values after it: codecs, algorithms, transports, exclusions, where ranks meet; and
 * the comparison of two ranks' texts. Whatever fails has a sentence. */
#include <strings.h>

#include "base/log.h"
#include "base/settings.h"
#include "coll/policy.h"
#include "tests/fuzz/fuzz.h"
#include "transports/address.h"
#include "transports/rendezvous_wire.h"
#include "transports/transport.h"

/* What would open, load or write a file that the fuzzer names. */
static int is_a_path(const char *name) {
    static const char *const paths[] = {"DEBUG_FILE", "CODEC_PLUGIN", "SECRET_FILE", "STATS_FILE"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (strcmp(name + 6, paths[i]) == 0) return 1;
    return 0;
}

static void set_lines(char *text) {
    for (int i = 0; cinch_setting_at(i); i++) unsetenv(cinch_setting_at(i)->name);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char name[80], *value = strchr(line, '=');
        if (!value) continue;
        *value++ = '\0';
        snprintf(name, sizeof name, "CINCH_%.60s", line);
        for (int i = 0; cinch_setting_at(i); i++)
            if (strcmp(name, cinch_setting_at(i)->name) == 0 && !is_a_path(name))
                setenv(name, value, 1);
    }
}

static void read_values(const cinch_settings *settings) {
    char why[CINCH_ERROR_TEXT], host[64];
    cinch_policy policy;
    uint16_t port;
    cinch_meeting meeting;
    cinchUniqueId id;
    why[0] = '\0';
    if (!cinch_policy_load(settings, "a name", &policy, why)) fuzz_expect(*why, "no sentence");
    why[0] = '\0';
    if (!cinch_transport_parse(settings->transport, why, sizeof why))
        fuzz_expect(*why, "no sentence");
    cinch_ifname_matches(settings->socket_ifname, "eth0");
    cinch_host_port_parse(settings->comm_id, host, sizeof host, &port);
    if (!settings->comm_id[0]) return;
    if (cinch_rendezvous_id(settings, &id) != cinchSuccess)
        fuzz_expect(*cinch_last_error(), "no sentence");
    else
        fuzz_expect(cinch_meeting_of(settings, &id, &meeting) == cinchSuccess, cinch_last_error());
}

static void compare(const cinch_settings *settings, const char *other) {
    char why[CINCH_ERROR_TEXT];
    size_t bytes = cinch_settings_agreed(settings, NULL, 0);
    char *text = malloc(bytes);
    fuzz_expect(text != NULL, "no memory");
    fuzz_expect(cinch_settings_agreed(settings, text, bytes) == bytes, "another length");
    fuzz_expect(cinch_settings_compare(text, 0, text, 1, why), "not what it is");
    why[0] = '\0';
    if (!cinch_settings_compare(text, 0, other, 1, why)) fuzz_expect(*why, "no sentence");
    cinch_settings_compare(other, 0, text, 1, why);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cinch_settings settings;
    char why[CINCH_ERROR_TEXT] = "";
    char *text = malloc(size + 1), *other = malloc(size + 1);
    fuzz_expect(text && other, "no memory");
    memcpy(text, data, size);
    text[size] = '\0';
    memcpy(other, text, size + 1);
    set_lines(text);
    if (!cinch_settings_load(&settings, why)) fuzz_expect(*why, "no sentence");
    cinch_log_threshold = CINCH_LOG_NONE;
    read_values(&settings);
    compare(&settings, other);
    cinch_settings_free(&settings);
    free(text);
    free(other);
    return 0;
}

size_t fuzz_seed(int k, uint8_t *out) {
    static const char *const seeds[] = {
        "CODEC=int8:block=256,round=stochastic,ef=1,seed=7\nCODEC_INTRA=topk:ratio=0.01,ef=0,"
        "select=global\nCODEC_INTER=auto\nMAX_REL_ERROR=0.01\n",
        "CODEC_EXCLUDE=size=1M-4M;call=0-10;call=5-;comm=a name\nCODEC_MIN_BYTES=64K\n"
        "CODEC_OPS=allreduce,allgather\nCODEC_DTYPES=half,bfloat16\n",
        "ALGO=ring\nTRANSPORT=shm,tcp\nSOCKET_IFNAME==eth0,ib\nSOCKET_FAMILY=AF_INET6\n",
        "ALGO=allreduce:tree,broadcast:ring,auto\nTRANSPORT=^tcp\nSOCKET_IFNAME=^docker\n",
        "COMM_ID=10.0.0.1:5000#00112233445566778899aabbccddeeff\nCHECKSUM=1\nRANK=3\nSIZE=8\n",
        "COMM_ID=[2001:db8::1]:5000\nCODEC=bf16\nNONFINITE=error\nTIMEOUT_MS=1000\n",
        "COMM_ID=file:/nowhere/meet\nDEBUG=info\nTREES=4\nCHUNK=1M\nEF_MAX_BYTES=2G\n",
        "CINCH_CODEC=none\nCINCH_CODEC_MIN_BYTES=1024K\nCINCH_CHECKSUM=1\nCINCH_ALGO=auto\n"};
    if (k >= (int)(sizeof seeds / sizeof *seeds)) return 0;
    memcpy(out, seeds[k], strlen(seeds[k]));
    return strlen(seeds[k]);
}
