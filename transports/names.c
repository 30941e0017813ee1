/* SPDX-License-Identifier: Apache-2.0 */
/* The table of transports, and CINCH_TRANSPORT read against it. */
#include "transports/names.h"

#include <stdio.h>
#include <string.h>

#include "transports/region.h"
#include "transports/tcp.h"

static const cinch_transport *const table[CINCH_TRANSPORTS] = {&cinch_transport_shm,
                                                               &cinch_transport_tcp};
static const char accepted[] = "auto, or a list out of shm,tcp; ^ before the list excludes";

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

static bool is_later(const char *name, size_t length) {
    return is(name, length, "ucx") || is(name, length, "verbs") || is(name, length, "nccl");
}

static bool refuse(const char *name, size_t length, char *why, size_t room) {
    if (length == 0)
        snprintf(why, room, "an empty name; accepted: %s", accepted);
    else
        snprintf(why, room, "\"%.*s\" is %s; accepted: %s", length > 40 ? 40 : (int)length, name,
                 is_later(name, length) ? "known, but not in this version" : "no transport",
                 accepted);
    return false;
}

bool cinch_transport_list_parse(const char *text, cinch_transport_list *list, char *why,
                                size_t room) {
    bool named[CINCH_TRANSPORTS] = {false}, all = strcmp(text, "auto") == 0;
    bool exclude = text[0] == '^';
    list->count = 0;
    for (const char *at = all ? "" : text + exclude; !all;) {
        size_t length = strcspn(at, ",");
        int index = find(at, length);
        /* Not to use what is not there is no wrong wish. */
        if (index < 0 && !(exclude && is_later(at, length))) return refuse(at, length, why, room);
        if (index >= 0 && !exclude && !named[index]) list->index[list->count++] = index;
        if (index >= 0) named[index] = true;
        if (at[length] == '\0') break;
        at += length + 1;
    }
    for (int i = 0; i < CINCH_TRANSPORTS && (all || exclude); i++)
        if (!named[i]) list->index[list->count++] = i;
    if (list->count > 0) return true;
    snprintf(why, room, "\"%.80s\" leaves no transport; accepted: %s", text, accepted);
    return false;
}

bool cinch_transport_parse(const char *list, char *why, size_t room) {
    cinch_transport_list parsed;
    return cinch_transport_list_parse(list, &parsed, why, room);
}
