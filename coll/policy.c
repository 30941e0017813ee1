/* SPDX-License-Identifier: Apache-2.0 */
/* Settings to policy. */
#include "coll/policy.h"

#include <stdio.h>
#include <string.h>

#include "coll/budget.h"
#include "compress/dtype.h"
#include "transports/address.h"
#include "transports/transport.h"

/* Calls use(word, ...) for each word between separators; stops where it returns false. */
static bool each_word(const char *list, char separator,
                      bool (*use)(const char *word, cinch_policy *policy, char *why),
                      cinch_policy *policy, char *why) {
    while (*list) {
        char word[128];
        const char *end = strchr(list, separator);
        size_t length = end ? (size_t)(end - list) : strlen(list);
        if (length >= sizeof word) length = sizeof word - 1;
        memcpy(word, list, length);
        word[length] = '\0';
        if (length && !use(word, policy, why)) return false;
        list = end ? end + 1 : list + strlen(list);
    }
    return true;
}

static bool refuse(char *why, const char *variable, const char *value, const char *clause) {
    snprintf(why, CINCH_ERROR_TEXT, "%s=%s: %s", variable, value, clause);
    return false;
}

static bool use_dtype(const char *word, cinch_policy *policy, char *why) {
    cinchDataType_t dtype;
    if (!cinch_dtype_parse(word, &dtype) ||
        (dtype != cinchFloat32 && dtype != cinchFloat16 && dtype != cinchBfloat16))
        return refuse(why, "CINCH_CODEC_DTYPES", word, "float, half and bfloat16 are accepted");
    policy->dtypes |= 1u << dtype;
    return true;
}

static bool use_op(const char *word, cinch_policy *policy, char *why) {
    cinch_collective c = cinch_collective_find(word, strlen(word));
    if (c != CINCH_ALLREDUCE && c != CINCH_REDUCESCATTER && c != CINCH_ALLGATHER)
        return refuse(why, "CINCH_CODEC_OPS", word,
                      "allreduce, reducescatter and allgather are accepted");
    policy->ops |= 1u << c;
    return true;
}

static bool parse_range(const char *text, bool calls, cinch_exclusion *out) {
    char from[32];
    const char *dash = strchr(text, '-');
    size_t length = dash ? (size_t)(dash - text) : sizeof from;
    if (length >= sizeof from) return false;
    memcpy(from, text, length);
    from[length] = '\0';
    out->calls = calls;
    out->to = UINT64_MAX;
    return cinch_parse_size(from, &out->from) &&
           (dash[1] == '\0' || cinch_parse_size(dash + 1, &out->to)) && out->from <= out->to;
}

/* The communicator's name while its rules are read; rules by name depend on nothing else. */
static _Thread_local const char *comm_name;

static bool use_exclusion(const char *word, cinch_policy *policy, char *why) {
    static const char accepted[] =
        "size=FROM-TO, call=FROM-TO and comm=NAME are accepted, at most 16, separated by ;";
    if (strncmp(word, "comm=", 5) == 0) {
        policy->excluded |= comm_name && strcmp(word + 5, comm_name) == 0;
        return true;
    }
    bool calls = strncmp(word, "call=", 5) == 0;
    cinch_exclusion *next = &policy->exclusion[policy->nexclusions];
    if ((!calls && strncmp(word, "size=", 5) != 0) ||
        policy->nexclusions == CINCH_MOST_EXCLUSIONS || !parse_range(word + 5, calls, next))
        return refuse(why, "CINCH_CODEC_EXCLUDE", word, accepted);
    policy->nexclusions++;
    return true;
}

bool cinch_policy_codec(const cinch_settings *settings, const char *spec, cinch_codec *codec,
                        bool *automatic, char *why, size_t room) {
    *automatic = strcmp(spec, "auto") == 0;
    if (*automatic) spec = cinch_budget_codec(settings->max_rel_error);
    if (strncmp(spec, "auto:", 5) != 0) return cinch_codec_parse(spec, codec, why, room);
    snprintf(why, room, "'%.100s': auto takes no parameters", spec);
    return false;
}

static bool read_codec(const cinch_settings *s, const char *variable, const char *spec,
                       cinch_codec *codec, bool *automatic, char *why) {
    char clause[CINCH_ERROR_TEXT / 2];
    return cinch_policy_codec(s, spec, codec, automatic, clause, sizeof clause) ||
           refuse(why, variable, spec, clause);
}

/* "auto, NAME, ..." of one collective's algorithms, or of all. */
static void list_algos(cinch_collective only, char *text, size_t room) {
    snprintf(text, room, "auto");
    for (int i = 0; cinch_algo_at(i); i++) {
        const cinch_algo *algo = cinch_algo_at(i);
        bool before = false;
        for (int k = 0; k < i && only == CINCH_COLLECTIVES; k++)
            before |= strcmp(cinch_algo_at(k)->name, algo->name) == 0;
        if (before || (only != CINCH_COLLECTIVES && algo->collective != only)) continue;
        size_t used = strlen(text);
        snprintf(text + used, room - used, ", %s", algo->name);
    }
}

/* NAME for every collective that has one of that name (the others then refuse their calls), or
 * OP:NAME. */
static bool use_algo(const char *word, cinch_policy *policy, char *why) {
    const char *colon = strchr(word, ':'), *name = colon ? colon + 1 : word;
    cinch_collective only =
        colon ? cinch_collective_find(word, (size_t)(colon - word)) : CINCH_COLLECTIVES;
    char clause[384];
    if (colon && only == CINCH_COLLECTIVES)
        return refuse(why, "CINCH_ALGO", word, "before the colon goes a collective's name");
    bool automatic = strcmp(name, "auto") == 0, known = automatic;
    for (int c = 0; c < CINCH_COLLECTIVES; c++)
        known |= (!colon || (int)only == c) && cinch_algo_find((cinch_collective)c, name);
    if (known) {
        for (int c = 0; c < CINCH_COLLECTIVES; c++)
            if (!colon || (int)only == c)
                snprintf(policy->algo[c], sizeof policy->algo[c], "%s", automatic ? "" : name);
        return true;
    }
    list_algos(only, clause, sizeof clause - 64);
    strcat(clause, colon ? " are accepted" : " are accepted, also as OP:NAME");
    return refuse(why, "CINCH_ALGO", word, clause);
}

size_t cinch_policy_granule(const cinch_codec *a, const cinch_codec *b) {
    size_t of_a = cinch_codec_granule(a), of_b = cinch_codec_granule(b), large = of_a, small = of_b;
    while (small) { /* Euclid's algorithm */
        size_t rest = large % small;
        large = small;
        small = rest;
    }
    return of_a / large * of_b;
}

/* Pieces of a message are whole segments of both codecs; built-in ones have powers of two. */
static bool have_common_pieces(const cinch_settings *s, const char *inter, const cinch_policy *p,
                               char *why) {
    enum { MOST = 1 << 22 }; /* elements */
    size_t granule = cinch_policy_granule(&p->inter, &p->intra);
    if (granule <= MOST || granule == cinch_codec_granule(&p->inter) ||
        granule == cinch_codec_granule(&p->intra))
        return true;
    snprintf(why, CINCH_ERROR_TEXT,
             "CINCH_CODEC_INTRA=%.100s beside %.100s between hosts: segments of %zu and of %zu "
             "elements; a common multiple up to %d is accepted",
             s->codec_intra, inter, cinch_codec_granule(&p->intra), cinch_codec_granule(&p->inter),
             (int)MOST);
    return false;
}

bool cinch_policy_load(const cinch_settings *s, const char *name, cinch_policy *policy,
                       char why[CINCH_ERROR_TEXT]) {
    memset(policy, 0, sizeof *policy);
    if (s->codec_plugin[0] && cinch_codec_load_plugins(s->codec_plugin) != cinchSuccess) {
        snprintf(why, CINCH_ERROR_TEXT, "CINCH_CODEC_PLUGIN=%.200s: %.200s", s->codec_plugin,
                 cinch_last_error());
        return false;
    }
    char clause[CINCH_ERROR_TEXT / 2];
    if (!cinch_transport_parse(s->transport, clause, sizeof clause))
        return refuse(why, "CINCH_TRANSPORT", s->transport, clause);
    cinch_address any[8];
    int count;
    if (s->socket_ifname[0] && cinch_addresses_local(s, any, 8, &count) != cinchSuccess) {
        snprintf(why, CINCH_ERROR_TEXT, "%s", cinch_last_error());
        return false;
    }
    comm_name = name;
    const char *inter = s->codec_inter[0] ? s->codec_inter : s->codec;
    bool *automatic = &policy->auto_inter;
    return read_codec(s, "CINCH_CODEC", s->codec, &policy->inter, automatic, why) &&
           read_codec(s, "CINCH_CODEC_INTER", inter, &policy->inter, automatic, why) &&
           read_codec(s, "CINCH_CODEC_INTRA", s->codec_intra, &policy->intra, &policy->auto_intra,
                      why) &&
           have_common_pieces(s, inter, policy, why) &&
           each_word(s->codec_dtypes, ',', use_dtype, policy, why) &&
           each_word(s->codec_ops, ',', use_op, policy, why) &&
           each_word(s->codec_exclude, ';', use_exclusion, policy, why) &&
           each_word(s->algo, ',', use_algo, policy, why);
}

/* Whether an all-gather in place may be compressed. */
static bool may_change(const cinch_policy *p) {
    return (!p->codec.vt || p->codec.inplace) && (!p->inside.vt || p->inside.inplace);
}

bool cinch_policy_compresses(const cinch_policy *policy, const cinch_settings *settings,
                             uint64_t index, const cinch_candidate *call) {
    const cinch_shape *shape = cinch_shape_of(call->collective);
    if ((!policy->codec.vt && !policy->inside.vt) || !(policy->ops >> call->collective & 1) ||
        policy->excluded)
        return false;
    /* Trainers' barriers are all-reduces of one to four elements. */
    if (call->bytes <= 4 * cinch_dtype_size(call->dtype)) return false;
    if (call->bytes < settings->codec_min_bytes || index < (uint64_t)settings->codec_warmup)
        return false;
    if (shape->reduces && call->redop != cinchSum && call->redop != cinchAvg) return false;
    /* An owner decodes what it sends, so in place its own elements would change. */
    if (!shape->reduces && call->in_place && !may_change(policy)) return false;
    if (!(policy->dtypes >> call->dtype & 1)) return false;
    for (int i = 0; i < policy->nexclusions; i++) {
        const cinch_exclusion *e = &policy->exclusion[i];
        uint64_t value = e->calls ? index : call->bytes;
        if (value >= e->from && value <= e->to) return false;
    }
    return true;
}
