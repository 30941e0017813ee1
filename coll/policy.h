/* SPDX-License-Identifier: Apache-2.0 */
/* What the settings mean for collectives: which algorithm was asked for, which codec, and when. */
#ifndef CINCH_COLL_POLICY_H_
#define CINCH_COLL_POLICY_H_

#include "base/settings.h"
#include "coll/algo.h"
#include "compress/codec.h"

typedef struct cinch_exclusion {
    uint64_t from, to;
    bool calls; /* counts calls, else bytes */
} cinch_exclusion;

enum { CINCH_MOST_EXCLUSIONS = 16 };

typedef struct cinch_policy {
    char algo[CINCH_COLLECTIVES][16]; /* names, of a row for one collective at least; "": auto */
    cinch_codec intra, inter;         /* the environment's, per level */
    bool auto_intra, auto_inter;      /* these are what `auto` compresses with where it pays */
    cinch_codec codec;                /* in force: of the level that the communicator spans */
    bool automatic;                   /* and used only where it pays */
    cinch_codec inside;               /* in force inside hosts, where it spans several */
    unsigned dtypes;                  /* bit per cinchDataType_t that may be compressed */
    unsigned ops;                     /* bit per cinch_collective in CINCH_CODEC_OPS */
    bool excluded;                    /* the whole communicator, by name */
    int nexclusions;
    cinch_exclusion exclusion[CINCH_MOST_EXCLUSIONS];
} cinch_policy;

/* Reads the settings, and loads the plug-ins that they name. name: the communicator's. False with
 * a sentence in why that names the variable. */
bool cinch_policy_load(const cinch_settings *settings, const char *name, cinch_policy *policy,
                       char why[CINCH_ERROR_TEXT]);

/* Reads a codec as CINCH_CODEC has it: for auto *automatic, and the codec that goes with the
 * budget. False with a clause in why. */
bool cinch_policy_codec(const cinch_settings *settings, const char *spec, cinch_codec *codec,
                        bool *automatic, char *why, size_t room);

/* The unit at whose multiples pieces for both codecs begin; vt NULL is none. */
size_t cinch_policy_granule(const cinch_codec *a, const cinch_codec *b);

/* What decides whether a call is compressed. */
typedef struct cinch_candidate {
    cinch_collective collective;
    size_t bytes; /* all blocks */
    cinchDataType_t dtype;
    cinchRedOp_t redop; /* where the collective reduces */
    bool in_place;
} cinch_candidate;

/* index: the communicator's count of collectives. */
bool cinch_policy_compresses(const cinch_policy *policy, const cinch_settings *settings,
                             uint64_t index, const cinch_candidate *call);

#endif
