/* SPDX-License-Identifier: Apache-2.0 */
/* Where some of a communicator's ranks meet again, whatever has become of the others. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "transports/io.h"
#include "transports/rendezvous.h"
#include "transports/rendezvous_wire.h"

enum { BACKLOG = 1024 };

cinchResult_t cinch_rendezvous_stand_by(cinch_rendezvous *seat, const cinch_settings *settings,
                                        uint8_t bytes[CINCH_ADDRESS_BYTES]) {
    cinch_standby *standby = cinch_rendezvous_standby(seat);
    cinch_address address;
    char text[CINCH_ADDRESS_TEXT];
    int count;
    memset(bytes, 0, CINCH_ADDRESS_BYTES);
    if (!cinch_handshake_available() || !cinch_rendezvous_may_listen(seat)) return cinchSuccess;
    CINCH_TRY(cinch_addresses_local(settings, &address, 1, &count));
    int err = cinch_listen(&address, BACKLOG, &standby->listener);
    if (err) {
        standby->listener = -1;
        return cinch_fail_errno(err, "no socket at %s for the ranks to meet again",
                                cinch_address_format(&address, text));
    }
    cinch_address_pack(&address, bytes);
    return cinchSuccess;
}

cinchResult_t cinch_rendezvous_met_at(cinch_rendezvous *seat, int rank,
                                      const uint8_t bytes[CINCH_ADDRESS_BYTES]) {
    cinch_standby *standby = cinch_rendezvous_standby(seat);
    int mine, nranks;
    uint64_t timeout_ms;
    cinch_rendezvous_place(seat, &mine, &nranks, &timeout_ms);
    if (!standby->address) standby->address = calloc((size_t)nranks, sizeof *standby->address);
    if (!standby->address) return cinch_fail_errno(ENOMEM, "no memory for the ranks' addresses");
    memcpy(standby->address[rank], bytes, CINCH_ADDRESS_BYTES);
    return cinchSuccess;
}

/* "1,4-6", on the heap; NULL: no memory. */
static char *write_list(const uint8_t *left_out, int nranks) {
    size_t room = 1, used = 0;
    for (int r = 0; r < nranks; r++) room += left_out[r] ? 12 : 0;
    char *text = malloc(room);
    if (!text) return NULL;
    text[0] = '\0';
    for (int r = 0; r < nranks; r++) {
        if (!left_out[r]) continue;
        int last = r;
        while (last + 1 < nranks && left_out[last + 1]) last++;
        used += (size_t)snprintf(text + used, room - used, used ? ",%d" : "%d", r);
        if (last > r) used += (size_t)snprintf(text + used, room - used, "-%d", last);
        r = last;
    }
    return text;
}

cinchResult_t cinch_rendezvous_reunite(const cinch_rendezvous *seat, const uint8_t *left_out,
                                       cinch_reunion *reunion) {
    const cinch_standby *standby = cinch_rendezvous_standby(seat);
    int mine, nranks, first = 0, err = 0;
    uint64_t timeout_ms;
    cinch_rendezvous_place(seat, &mine, &nranks, &timeout_ms);
    while (first < nranks - 1 && left_out[first]) first++;
    memset(reunion, 0, sizeof *reunion);
    reunion->member = (uint32_t)mine;
    reunion->listener = -1;
    reunion->left_out = write_list(left_out, nranks);
    if (!reunion->left_out) return cinch_fail_errno(ENOMEM, "no memory for a list of ranks");

    cinch_meeting meeting = {.kind = CINCH_MEET_REUNION,
                             .has_secret = cinch_rendezvous_may_listen(seat)};
    const uint8_t *secret = cinch_rendezvous_secret(seat);
    uint8_t host[4] = {(uint8_t)first, (uint8_t)(first >> 8), (uint8_t)(first >> 16),
                       (uint8_t)(first >> 24)};
    cinch_meeting_hash(meeting.token, sizeof meeting.token, "cinch reunion", secret,
                       CINCH_SECRET_BYTES, host, sizeof host);
    cinch_meeting_hash(meeting.secret, sizeof meeting.secret, "cinch reunion's secret", secret,
                       CINCH_SECRET_BYTES, host, sizeof host);
    meeting.addresses =
        standby->address && cinch_address_unpack(standby->address[first], &meeting.address[0]);
    if (first == mine && standby->listener >= 0)
        err = cinch_duplicate(standby->listener, &reunion->listener);
    cinch_meeting_write(&meeting, &reunion->id);
    explicit_bzero(&meeting, sizeof meeting);
    if (err) cinch_info("the ranks can meet again on this host only: %s", strerror(err));
    return cinchSuccess;
}

void cinch_reunion_free(cinch_reunion *reunion) {
    cinch_close(reunion->listener);
    free(reunion->left_out);
    explicit_bzero(reunion, sizeof *reunion);
    reunion->listener = -1;
}
