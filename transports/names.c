/* SPDX-License-Identifier: Apache-2.0 */
/* The table of transports, and CINCH_TRANSPORT read against it. */
#include "transports/names.h"

#include <stdio.h>
#include <string.h>

#include "transports/region.h"
#include "transports/tcp.h"

/* What this build lacks keeps its row, so that ranks of different builds number them alike. */
#if CINCH_HAS_VERBS
extern const cinch_transport cinch_transport_verbs;
#else
static const char *no_verbs(void) {
    return "not in this build, which was made without libibverbs";
}
static const cinch_transport cinch_transport_verbs = {"verbs", no_verbs, NULL, NULL};
#endif
#if CINCH_HAS_UCX
extern const cinch_transport cinch_transport_ucx;
#else
static const char *no_ucx(void) {
    return "not in this build, which was made without UCX";
}
static const cinch_transport cinch_transport_ucx = {"ucx", no_ucx, NULL, NULL};
#endif

static const cinch_transport *const table[CINCH_TRANSPORTS] = {
    &cinch_transport_shm, &cinch_transport_verbs, &cinch_transport_ucx, &cinch_transport_tcp};
static const char accepted[] =
    "auto, or a list out of shm,verbs,ucx,tcp,nccl; ^ before the list excludes";

const cinch_transport *cinch_transport_at(int index) {
    return index >= 0 && index < CINCH_TRANSPORTS ? table[index] : NULL;
}

static bool is(const char *name, size_t length, const char *known) {
    return strlen(known) == length && memcmp(name, known, length) == 0;
}

/* The row of a name, -1: none. */
static int find(const char *name, size_t length) {
    for (int i = 0; i < CINCH_TRANSPORTS; i++)
        if (is(name, length, table[i]->name)) return i;
    return -1;
}

/* It has no row, for it carries no messages of ours: calls on device memory go by it as they are
 * (coll/nccl/inner.h). */
static bool is_nccl(const char *name, size_t length) {
    return is(name, length, "nccl");
}

static bool refuse(const char *name, size_t length, char *why, size_t room) {
    if (length == 0)
        snprintf(why, room, "an empty name; accepted: %s", accepted);
    else
        snprintf(why, room, "\"%.*s\" is no transport; accepted: %s",
                 length > 40 ? 40 : (int)length, name, accepted);
    return false;
}

bool cinch_transport_list_parse(const char *text, cinch_transport_list *list, char *why,
                                size_t room) {
    bool named[CINCH_TRANSPORTS] = {false}, all = strcmp(text, "auto") == 0;
    bool exclude = text[0] == '^';
    list->count = 0;
    list->named = !all && !exclude;
    for (const char *at = all ? "" : text + exclude; !all;) {
        size_t length = strcspn(at, ",");
        int index = find(at, length);
        if (index < 0 && !is_nccl(at, length)) return refuse(at, length, why, room);
        if (index >= 0 && !exclude && !table[index]->open) {
            snprintf(why, room, "\"%s\" is %s", table[index]->name, table[index]->unusable());
            return false;
        }
        if (index >= 0 && !exclude && !named[index]) list->index[list->count++] = index;
        if (index >= 0) named[index] = true;
        if (at[length] == '\0') break;
        at += length + 1;
    }
    bool some = list->count > 0;
    for (int i = 0; i < CINCH_TRANSPORTS && !list->named; i++) {
        if (named[i]) continue;
        list->index[list->count++] = i;
        some |= table[i]->open != NULL;
    }
    if (some) return true;
    snprintf(why, room, "\"%.80s\" leaves no transport; accepted: %s", text, accepted);
    return false;
}

bool cinch_transport_parse(const char *list, char *why, size_t room) {
    cinch_transport_list parsed;
    return cinch_transport_list_parse(list, &parsed, why, room);
}
