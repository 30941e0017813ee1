/* SPDX-License-Identifier: Apache-2.0 */
/* Loads codecs from shared objects and refuses those that do not keep to include/cinch/codec.h. */
#include "compress/codec_plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "compress/codec.h"

#define PLUGINS_MAX 32
#define NAME_MAX_LEN 31
#define FLAGS_KNOWN                                                                                \
    (CINCH_CODEC_FIXED_SIZE | CINCH_CODEC_DETERMINISTIC | CINCH_CODEC_EF | CINCH_CODEC_EF_DEFAULT)

/* Written under the lock; a reader sees an entry only after count has passed it. */
static struct {
    void *handle;
    const cinchCodec_t *vt;
} plugin[PLUGINS_MAX];
static atomic_int plugin_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

const cinchCodec_t *cinch_codec_plugin_at(int i) {
    return i >= 0 && i < atomic_load_explicit(&plugin_count, memory_order_acquire) ? plugin[i].vt
                                                                                   : NULL;
}

static bool is_name(const char *name) {
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    size_t len = name ? strnlen(name, NAME_MAX_LEN + 1) : 0;
    return len > 0 && len <= NAME_MAX_LEN && strspn(name, allowed) == len;
}

static bool is_taken(const char *name) {
    const cinchCodec_t *vt;
    if (!strcmp(name, "none") || !strcmp(name, "auto")) return true;
    for (int i = 0; (vt = cinch_codec_at(i)); i++)
        if (!strcmp(vt->name, name)) return true;
    return false;
}

static const char *missing_function(const cinchCodec_t *vt) {
    if (!vt->parse) return "parse";
    if (!vt->granule) return "granule";
    if (!vt->bound) return "bound";
    if (!vt->encode) return "encode";
    if (!vt->decode) return "decode";
    if (!vt->prepare && vt->prepare_bytes) return "prepare";
    if (vt->prepare && !vt->prepare_bytes) return "prepare_bytes";
    if (!vt->block && vt->step_bound) return "block";
    if (vt->block && !vt->step_bound) return "step_bound";
    return NULL;
}

static cinchResult_t check_table(const char *path, const cinchCodec_t *vt) {
    const cinchResult_t bad = cinchInvalidUsage;
    if (!vt)
        return cinch_fail(bad,
                          "codec plug-in %s does not serve codec ABI %d, the one of this cinch",
                          path, CINCH_CODEC_ABI);
    if (vt->size < sizeof(cinchCodec_t))
        return cinch_fail(bad, "codec plug-in %s has a table of %zu bytes, %zu are needed", path,
                          vt->size, sizeof(cinchCodec_t));
    if (vt->abi != CINCH_CODEC_ABI)
        return cinch_fail(bad, "codec plug-in %s is built for codec ABI %u, this cinch has %d",
                          path, (unsigned)vt->abi, CINCH_CODEC_ABI);
    if (!is_name(vt->name))
        return cinch_fail(bad,
                          "codec plug-in %s has no valid name: 1 to %d letters, digits, '_' and "
                          "'-' are accepted",
                          path, NAME_MAX_LEN);
    if (is_taken(vt->name))
        return cinch_fail(bad, "codec plug-in %s is named '%s', which is taken", path, vt->name);
    if (vt->flags & ~FLAGS_KNOWN)
        return cinch_fail(bad, "codec plug-in %s has flags that this cinch does not know (%#x)",
                          path, (unsigned)(vt->flags & ~FLAGS_KNOWN));
    if (!(vt->flags & CINCH_CODEC_DETERMINISTIC))
        return cinch_fail(bad, "codec plug-in %s does not promise CINCH_CODEC_DETERMINISTIC", path);
    const char *missing = missing_function(vt);
    if (missing) return cinch_fail(bad, "codec plug-in %s lacks the function %s", path, missing);
    return cinchSuccess;
}

/* The loader gives one handle per object however it is called, so a handle tells what is known. */
static cinchResult_t add_plugin(const char *path, void *handle, bool *keep) {
    int count = atomic_load_explicit(&plugin_count, memory_order_relaxed);
    for (int i = 0; i < count; i++)
        if (plugin[i].handle == handle) return cinchSuccess;
    if (count == PLUGINS_MAX)
        return cinch_fail(cinchInvalidUsage, "codec plug-in %s is one too many: at most %d load",
                          path, PLUGINS_MAX);
    cinchCodecFunc_t entry;
    *(void **)&entry = dlsym(handle, "cinchCodec");
    if (!entry)
        return cinch_fail(cinchInvalidUsage, "codec plug-in %s does not export cinchCodec", path);
    const cinchCodec_t *vt = entry(CINCH_CODEC_ABI);
    CINCH_TRY(check_table(path, vt));
    plugin[count].handle = handle;
    plugin[count].vt = vt;
    atomic_store_explicit(&plugin_count, count + 1, memory_order_release);
    *keep = true;
    return cinchSuccess;
}

static cinchResult_t load_one(const char *path) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const char *cause = dlerror();
        return cinch_fail(cinchInvalidUsage, "codec plug-in %s cannot be loaded: %s", path,
                          cause ? cause : "no reason given");
    }
    bool keep = false;
    cinchResult_t result = add_plugin(path, handle, &keep);
    if (!keep) dlclose(handle);
    return result;
}

cinchResult_t cinch_codec_load_plugins(const char *paths) {
    cinchResult_t result = cinchSuccess;
    pthread_mutex_lock(&lock);
    while (paths && *paths && result == cinchSuccess) {
        char path[PATH_MAX];
        size_t len = strcspn(paths, ",");
        if (len == 0 || len >= sizeof path) {
            result = cinch_fail(cinchInvalidUsage,
                                "the list of codec plug-ins has an empty or too long path");
            break;
        }
        memcpy(path, paths, len);
        path[len] = 0;
        result = load_one(path);
        paths += len + (paths[len] == ',');
    }
    pthread_mutex_unlock(&lock);
    return result;
}
