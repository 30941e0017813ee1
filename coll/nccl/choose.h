/* SPDX-License-Identifier: Apache-2.0 */
/* What the drop-in does in this process: hand calls to the real NCCL, or serve them itself. */
#ifndef CINCH_COLL_NCCL_CHOOSE_H_
#define CINCH_COLL_NCCL_CHOOSE_H_

#include "base/settings.h"
#include "coll/nccl/find.h"

typedef enum { /* auto, forward, native are in the order of CINCH_NCCL_MODE's choices */
               CINCH_NCCL_AUTO,
               CINCH_NCCL_FORWARD,
               CINCH_NCCL_NATIVE,
               CINCH_NCCL_NEITHER /* what was asked for cannot be: `why` is the reason */
} cinch_nccl_mode;

typedef struct cinch_nccl_choice {
    cinch_nccl_mode mode; /* never auto */
    char why[CINCH_ERROR_TEXT];
    cinch_nccl_library real; /* loaded in forward mode */
} cinch_nccl_choice;

/* Auto asks the CUDA driver, and where that has a device, loads the real library. */
void cinch_nccl_choose(const cinch_settings *settings, cinch_nccl_choice *choice);

/* NULL where a CUDA device can be used, else why not. Starts the driver, which stays loaded. */
const char *cinch_nccl_no_gpu(void);

/* forward, native, none */
const char *cinch_nccl_mode_name(cinch_nccl_mode mode);

/* The setting and its value that asks for a codec, "" if none does. */
void cinch_nccl_asked_codec(const cinch_settings *settings, char *text, size_t room);

#endif
