/* SPDX-License-Identifier: Apache-2.0 */
/* Registrations of callers' memory, made when it is first used and kept as long as it is steady.
 * Nothing here remembers an address beyond that: a buffer that was freed and mapped again is
 * another one, or, where nobody has said anything about it, none. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"
#include "transports/verbs.h"

static _Atomic uint64_t registrations;

uint64_t cinch_verbs_registrations(void) {
    return atomic_load(&registrations);
}

const char *cinch_verbs_advice(int err) {
    struct rlimit limit = {0, 0};
    getrlimit(RLIMIT_MEMLOCK, &limit);
    if ((err == ENOMEM || err == EPERM || err == EAGAIN) && limit.rlim_cur != RLIM_INFINITY)
        return "it is pinned, and how much may be is limited: raise `ulimit -l` (memlock in "
               "/etc/security/limits.conf, LimitMEMLOCK in a systemd unit), best to unlimited";
    return strerror(err);
}

static void unregister(cinch_verbs *verbs, cinch_verbs_memory *memory) {
    for (int i = 0; i < verbs->rails; i++)
        if (memory->mr[i]) ibv_dereg_mr(memory->mr[i]);
}

void cinch_verbs_forget_memory(cinch_verbs *verbs) {
    for (size_t i = 0; i < verbs->memories; i++) unregister(verbs, &verbs->memory[i]);
    free(verbs->memory);
    verbs->memory = NULL;
    verbs->memories = verbs->room = 0;
}

/* Something has stopped being steady: lets go of what was registered for it. */
static void compare(cinch_verbs *verbs) {
    uint64_t changes = cinch_net_steady_changes(verbs->net);
    if (changes == verbs->memory_changes) return;
    verbs->memory_changes = changes;
    for (size_t i = 0; i < verbs->memories;) {
        cinch_verbs_memory *memory = &verbs->memory[i];
        cinch_steady now;
        if (cinch_net_steady(verbs->net, memory->steady.data, memory->steady.bytes, &now) &&
            now.serial == memory->steady.serial) {
            i++;
            continue;
        }
        unregister(verbs, memory);
        *memory = verbs->memory[--verbs->memories];
    }
}

static bool make_room(cinch_verbs *verbs) {
    if (verbs->memories < verbs->room) return true;
    size_t room = verbs->room ? 2 * verbs->room : 16;
    cinch_verbs_memory *grown = realloc(verbs->memory, room * sizeof *grown);
    if (!grown) return false;
    verbs->memory = grown;
    verbs->room = room;
    return true;
}

/* What cannot be registered goes through the rings as other memory does. */
static const cinch_verbs_memory *add(cinch_verbs *verbs, const cinch_steady *steady) {
    if (!make_room(verbs)) return NULL;
    cinch_verbs_memory *memory = &verbs->memory[verbs->memories];
    *memory = (cinch_verbs_memory){.steady = *steady};
    for (int i = 0; i < verbs->rails; i++) {
        memory->mr[i] = ibv_reg_mr(verbs->rail[i].pd, steady->data, steady->bytes,
                                   IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
        if (memory->mr[i]) continue;
        int err = errno;
        unregister(verbs, memory);
        if (!verbs->refused)
            cinch_warn(
                "rank %d cannot register %zu bytes with %s, so messages from and to them are "
                "copied: %s",
                verbs->rank, steady->bytes, verbs->rail[i].name, cinch_verbs_advice(err));
        verbs->refused = true;
        return NULL;
    }
    atomic_fetch_add(&registrations, (uint64_t)verbs->rails);
    verbs->memories++;
    return memory;
}

const cinch_verbs_memory *cinch_verbs_memory_of(cinch_verbs *verbs, const void *data,
                                                size_t bytes) {
    const unsigned char *first = data;
    cinch_steady steady;
    compare(verbs);
    for (size_t i = 0; i < verbs->memories; i++) {
        const cinch_verbs_memory *memory = &verbs->memory[i];
        size_t at = (size_t)(first - memory->steady.data);
        if (first >= memory->steady.data && at <= memory->steady.bytes &&
            bytes <= memory->steady.bytes - at)
            return memory;
    }
    if (verbs->refused || !cinch_net_steady(verbs->net, data, bytes, &steady)) return NULL;
    return add(verbs, &steady);
}
