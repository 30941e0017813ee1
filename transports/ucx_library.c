/* SPDX-License-Identifier: Apache-2.0 */
/* Loads UCX when it is first wanted, and asks it what it would use. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transports/ucx.h"

/* The oldest that is tested. Newer ones extend structures at their ends only, with masks of the
 * fields that a caller knows, so this is also what we say to have been built for. */
enum { MAJOR = 1, MINOR = 13 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static cinch_ucx_library library;
static bool loaded;
static char reason[256];

static void load(void) {
    unsigned major, minor, release;
    void *handle = dlopen("libucp.so.0", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!handle) {
        snprintf(reason, sizeof reason, "UCX could not be loaded: %.200s", dlerror());
        return;
    }
#define X(name)                                                                                    \
    *(void **)&library.name = dlsym(handle, #name);                                                \
    if (!library.name && !reason[0])                                                               \
        snprintf(reason, sizeof reason, "libucp.so.0 lacks %s: UCX %d.%d or newer is needed",      \
                 #name, MAJOR, MINOR);
    CINCH_UCX_FUNCTIONS(X)
#undef X
    if (library.ucp_get_version) {
        library.ucp_get_version(&major, &minor, &release);
        if (major != MAJOR || minor < MINOR)
            snprintf(reason, sizeof reason, "libucp.so.0 is UCX %u.%u.%u: %d.%d or newer is needed",
                     major, minor, release, MAJOR, MINOR);
    }
    loaded = !reason[0];
}

const cinch_ucx_library *cinch_ucx_load(const char **why) {
    pthread_once(&once, load);
    if (why) *why = loaded ? NULL : reason;
    return loaded ? &library : NULL;
}

/* ---- what it would use ---- */

/* Copies, sockets and memory of one host: none of them is a reason to leave tcp and shm. */
static const char *const plain[] = {"self",  "tcp",  "sysv", "posix", "cma", "knem",
                                    "xpmem", "cuda", "gdr",  "rocm",  "ze_"};

static void look_at(const char *name, cinch_ucx_means *means) {
    bool known = false;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        known |= strncmp(name, plain[i], strlen(plain[i])) == 0;
    means->tcp |= strncmp(name, "tcp", 3) == 0;
    means->better |= !known;
}

/* A context has lines "resource 1 : md 1 dev 1 flags -- tcp/lo", an endpoint lines
 * "lane[0]: 1:tcp/lo.0 md[1] -> ...". */
static void look_at_line(const char *line, cinch_ucx_means *means) {
    const char *resource = strstr(line, "resource "), *lane = strstr(line, "lane[");
    const char *name = resource ? strstr(resource, "-- ") : NULL;
    if (name) {
        look_at(name + 3, means);
    } else if (lane && (lane = strchr(lane, ':')) && (lane = strchr(lane + 1, ':'))) {
        look_at(lane + 1, means);
    }
}

typedef struct memory_file {
    FILE *file;
    char *text;
    size_t length;
} memory_file;

static cinch_ucx_means read_means(memory_file *m) {
    cinch_ucx_means means = {0};
    fclose(m->file);
    char *rest = m->text;
    for (char *line; rest && (line = strsep(&rest, "\n"));) look_at_line(line, &means);
    free(m->text);
    return means;
}

cinch_ucx_means cinch_ucx_context_means(const cinch_ucx_library *ucx, ucp_context_h context) {
    memory_file m = {0};
    m.file = open_memstream(&m.text, &m.length);
    if (!m.file) return (cinch_ucx_means){.tcp = true};
    ucx->ucp_context_print_info(context, m.file);
    return read_means(&m);
}

cinch_ucx_means cinch_ucx_ep_means(const cinch_ucx_library *ucx, ucp_ep_h ep) {
    memory_file m = {0};
    m.file = open_memstream(&m.text, &m.length);
    if (!m.file) return (cinch_ucx_means){.tcp = true};
    ucx->ucp_ep_print_info(ep, m.file);
    return read_means(&m);
}

/* ---- contexts ---- */

/* A send from the caller's memory that is half out when its socket breaks is completed twice by UCX
 * (1.13.1: uct_tcp_ep_sendv after uct_tcp_ep_purge), and an assertion then ends the process. So
 * over sockets messages go through UCX's own memory, unless the user has said otherwise. */
static const char *const for_sockets[][2] = {{"ZCOPY_THRESH", "inf"}, {"RNDV_SCHEME", "am"}};

static void set_for_sockets(const cinch_ucx_library *ucx, ucp_config_t *config) {
    memory_file m = {0};
    m.file = open_memstream(&m.text, &m.length);
    if (!m.file) return;
    ucx->ucp_config_print(config, m.file, NULL, UCS_CONFIG_PRINT_CONFIG);
    fclose(m.file);
    for (size_t i = 0; i < sizeof for_sockets / sizeof *for_sockets; i++) {
        char open[64];
        snprintf(open, sizeof open, "UCX_%s=auto\n", for_sockets[i][0]);
        if (m.text && strstr(m.text, open))
            ucx->ucp_config_modify(config, for_sockets[i][0], for_sockets[i][1]);
    }
    free(m.text);
}

static ucs_status_t open_context(const cinch_ucx_library *ucx, bool sockets,
                                 ucp_context_h *context) {
    ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES,
                           .features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP};
    ucp_config_t *config;
    ucs_status_t status = ucx->ucp_config_read(NULL, NULL, &config);
    if (status != UCS_OK) return status;
    if (sockets) set_for_sockets(ucx, config);
    status = ucx->ucp_init_version(MAJOR, MINOR, &params, config, context);
    ucx->ucp_config_release(config);
    return status;
}

ucs_status_t cinch_ucx_context(const cinch_ucx_library *ucx, ucp_context_h *context) {
    ucs_status_t status = open_context(ucx, false, context);
    if (status != UCS_OK) return status;
    cinch_ucx_means means = cinch_ucx_context_means(ucx, *context);
    if (!means.tcp || means.better) return UCS_OK;
    ucx->ucp_cleanup(*context);
    return open_context(ucx, true, context);
}
