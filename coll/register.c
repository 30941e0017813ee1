/* SPDX-License-Identifier: Apache-2.0 */
/* Registered memory: names for error feedback, and what transports may place messages in directly;
 * windows, which on the host are handles only. */
#include <stdlib.h>

#include "coll/comm.h"
#include "transports/steady.h"

static cinchResult_t check_memory(const void *buff, size_t size) {
    if (!buff) return cinch_fail(cinchInvalidArgument, "buff is NULL");
    if (!size) return cinch_fail(cinchInvalidArgument, "size is 0: one byte or more is accepted");
    return cinchSuccess;
}

cinchResult_t cinchCommRegister(const cinchComm_t comm, void *buff, size_t size, void **handle) {
    CINCH_TRY(cinch_comm_check(comm));
    if (!handle) return cinch_fail(cinchInvalidArgument, "handle is NULL");
    CINCH_TRY(check_memory(buff, size));
    CINCH_TRY(cinch_comm_drain(comm));
    cinch_tag *tag = calloc(1, sizeof *tag);
    if (!tag) return cinch_fail(cinchSystemError, "out of memory for a registration");
    cinchResult_t result = comm->net ? cinch_net_keep(comm->net, buff, size) : cinchSuccess;
    if (result != cinchSuccess) {
        free(tag);
        return result;
    }
    *tag =
        (cinch_tag){.data = buff, .bytes = size, .id = comm->registrations++, .registered = true};
    cinch_tag **at = &comm->tags; /* behind the tags, which say more */
    while (*at) at = &(*at)->next;
    *at = tag;
    *handle = tag;
    return cinchSuccess;
}

cinchResult_t cinchCommDeregister(const cinchComm_t comm, void *handle) {
    CINCH_TRY(cinch_comm_check(comm));
    CINCH_TRY(cinch_comm_drain(comm));
    for (cinch_tag **at = &comm->tags; *at; at = &(*at)->next) {
        cinch_tag *tag = *at;
        if (tag != handle || !tag->registered) continue;
        *at = tag->next;
        if (comm->net) cinch_net_release(comm->net, tag->data, tag->bytes);
        free(tag);
        return cinchSuccess;
    }
    return cinch_fail(cinchInvalidArgument,
                      "handle %p is none that cinchCommRegister has given for this communicator",
                      handle);
}

cinchResult_t cinchCommWindowRegister(cinchComm_t comm, void *buff, size_t size, cinchWindow_t *win,
                                      int winFlags) {
    CINCH_TRY(cinch_comm_check(comm));
    if (!win) return cinch_fail(cinchInvalidArgument, "win is NULL");
    CINCH_TRY(check_memory(buff, size));
    if (winFlags != CINCH_WIN_DEFAULT && winFlags != CINCH_WIN_COLL_SYMMETRIC)
        return cinch_fail(
            cinchInvalidArgument,
            "winFlags %d: CINCH_WIN_DEFAULT and CINCH_WIN_COLL_SYMMETRIC are accepted", winFlags);
    if ((uintptr_t)buff % CINCH_WIN_REQUIRED_ALIGNMENT)
        return cinch_fail(cinchInvalidArgument,
                          "buff %p is not aligned to CINCH_WIN_REQUIRED_ALIGNMENT, %d bytes", buff,
                          CINCH_WIN_REQUIRED_ALIGNMENT);
    struct cinchWindow_vidmem *window = calloc(1, sizeof *window);
    if (!window) return cinch_fail(cinchSystemError, "out of memory for a window");
    *window = (struct cinchWindow_vidmem){comm->windows, buff, size};
    comm->windows = window;
    *win = window;
    return cinchSuccess;
}

cinchResult_t cinchCommWindowDeregister(cinchComm_t comm, cinchWindow_t win) {
    CINCH_TRY(cinch_comm_check(comm));
    for (struct cinchWindow_vidmem **at = &comm->windows; *at; at = &(*at)->next) {
        if (*at != win) continue;
        *at = win->next;
        free(win);
        return cinchSuccess;
    }
    return cinch_fail(cinchInvalidArgument,
                      "window %p is none that cinchCommWindowRegister has given for this "
                      "communicator",
                      (void *)win);
}
