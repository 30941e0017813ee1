/* SPDX-License-Identifier: Apache-2.0 */
/* How links compare what arrives with what was posted, and how they fail. */
#include "transports/link.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "transports/crc32c.h"

uint32_t cinch_msg_check(uint64_t tag, const void *data, size_t bytes) {
    uint64_t head[2] = {tag, bytes};
    return cinch_crc32c(cinch_crc32c(0, head, sizeof head), data, bytes);
}

cinchResult_t cinch_link_fail(cinch_link_core *core, cinchResult_t code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(core->why, sizeof core->why, format, args);
    va_end(args);
    core->failed = code;
    return cinch_fail(code, "%s", core->why);
}

cinchResult_t cinch_link_failure(const cinch_link_core *core) {
    return cinch_fail_quiet(core->failed, "%s", core->why);
}

/* Said by those who know what the tags mean. */
static cinchResult_t odd(cinch_link_core *core, const cinch_msg *msg, uint64_t tag,
                         uint64_t bytes) {
    int rank = core->rank, peer = core->link.peer;
    core->link.odd.seen = true;
    core->link.odd.expected = msg->tag;
    core->link.odd.tag = tag;
    core->link.odd.room = msg->bytes;
    core->link.odd.bytes = bytes;
    core->failed = cinchInvalidUsage;
    if (tag != msg->tag)
        snprintf(core->why, sizeof core->why,
                 "rank %d expected message %#" PRIx64 ", rank %d sent %#" PRIx64
                 ": the ranks called different collectives",
                 rank, msg->tag, peer, tag);
    else
        snprintf(core->why, sizeof core->why,
                 "rank %d sent %" PRIu64 " bytes as message %#" PRIx64
                 ", rank %d has room for %zu: the ranks called with different sizes",
                 peer, bytes, tag, rank, msg->bytes);
    return cinch_link_failure(core);
}

cinchResult_t cinch_link_match(cinch_link_core *core, cinch_msg *msg, uint64_t tag,
                               uint64_t bytes) {
    if (tag != msg->tag || bytes > msg->bytes || (msg->exact && bytes < msg->bytes))
        return odd(core, msg, tag, bytes);
    msg->bytes = (size_t)bytes;
    return cinchSuccess;
}

cinchResult_t cinch_link_verify(cinch_link_core *core, const cinch_msg *msg, uint32_t check) {
    if (!core->checksum) return cinchSuccess;
    uint32_t ours = cinch_msg_check(msg->tag, msg->data, msg->bytes);
    if (ours == check) return cinchSuccess;
    return cinch_link_fail(core, cinchSystemError,
                           "message %#" PRIx64 " of %zu bytes from rank %d reached rank %d damaged:"
                           " its checksum is %08" PRIx32 ", it was sent with %08" PRIx32,
                           msg->tag, msg->bytes, core->link.peer, core->rank, ours, check);
}

cinchResult_t cinch_link_lost(cinch_link_core *core) {
    return cinch_link_fail(core, cinchRemoteError,
                           "rank %d closed its connection to rank %d in the middle of an operation",
                           core->link.peer, core->rank);
}
