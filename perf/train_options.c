/* SPDX-License-Identifier: Apache-2.0 */
/* cinch train: the command line. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "base/settings.h"
#include "compress/codec.h"
#include "perf/train_job.h"
#include "transports/transport.h"

enum {
    OPT_RANKS,
    OPT_TEXT,
    OPT_CODECS,
    OPT_STEPS,
    OPT_SEED,
    OPT_TRANSPORT,
    OPT_JSON,
    OPT_PLOT,
    OPT_CHECKPOINT,
    OPT_EVERY,
    OPT_RESUME,
    OPT_ELASTIC,
};

#define DEFAULT_CODECS "none,int8,topk:ratio=0.01"
enum { DEFAULT_STEPS = 1600, DEFAULT_EVERY = 100, MOST_STEPS = 10000000 };

static const cinch_option table[] = {
    [OPT_RANKS] = {'n', NULL, "N", "start N ranks here (else a launcher's ranks, else 4)"},
    [OPT_TEXT] = {0, "text", "FILE", "what to learn (the licence texts of this system)"},
    [OPT_CODECS] = {0, "codecs", "SPEC,...", "one run each, as CINCH_CODEC (" DEFAULT_CODECS ")"},
    [OPT_STEPS] = {0, "steps", "N", "steps of each run (1600)"},
    [OPT_SEED] = {0, "seed", "S", "of parameters and batches (1)"},
    [OPT_TRANSPORT] = {0, "transport", "LIST", "as CINCH_TRANSPORT"},
    [OPT_JSON] = {0, "json", "FILE", "a line of JSON per run; - is stdout, the table is on stderr"},
    [OPT_PLOT] = {0, "plot", "FILE.svg", "the loss curves"},
    [OPT_CHECKPOINT] = {0, "checkpoint", "DIR",
                        "keep the state of model, optimizer and error feedback there"},
    [OPT_EVERY] = {0, "checkpoint-every", "N", "steps between two checkpoints (100)"},
    [OPT_RESUME] = {0, "resume", NULL, "go on from the newest checkpoint, where there is one"},
    [OPT_ELASTIC] = {0, "elastic", NULL, "go on without ranks that are killed"},
    {0},
};

const cinch_command cinch_train_command = {
    "cinch train", "[OPTION]...",
    "Trains a small character-level language model, data-parallel over the ranks: one run per\n"
    "codec, each from the same parameters, batches and learning rate. Loss is the mean\n"
    "cross-entropy in nats over a held-out tenth of the text. Wire bytes are the most that any\n"
    "rank handed over. Seconds in communication are those inside the all-reduces once all ranks\n"
    "are there, as the mean over the ranks. The gradient's error compares the last step's\n"
    "all-reduce with an exact one of the same gradients, which no counter sees; with error\n"
    "feedback it holds what was kept back before, and may be above 1.\n"
    "Exit status: 0 fine; 1 the communication failed; 2 bad usage or setting.\n",
    table, false};
static const cinch_command *const me = &cinch_train_command;

/* "topk:ratio=0.01,ef=1,int8": parameters are separated by commas too, so a comma ends a codec only
 * where no key=value follows. */
static bool belongs_to_codec(const char *word) {
    const size_t plain = strcspn(word, ":,=");
    return word[plain] == '=';
}

static bool read_codecs(const char *list, cinch_train_options *o) {
    const char *begin = list;
    for (int i = 0; i < o->codecs; i++) free(o->codec[i]);
    o->codecs = 0;
    for (;;) {
        const char *end = begin + strcspn(begin, ",");
        while (*end && belongs_to_codec(end + 1)) end += 1 + strcspn(end + 1, ",");
        if (o->codecs == CINCH_TRAIN_CODECS || end == begin) {
            cinch_usage(me, "--codecs \"%s\": accepted are 1 to %d codecs, separated by commas",
                        list, CINCH_TRAIN_CODECS);
            return false;
        }
        o->codec[o->codecs] = strndup(begin, (size_t)(end - begin));
        if (!o->codec[o->codecs]) {
            cinch_usage(me, "out of memory");
            return false;
        }
        o->codecs++;
        if (!*end) return true;
        begin = end + 1;
    }
}

static bool read_option(int option, const char *text, cinch_train_options *o) {
    int64_t number;
    switch (option) {
    case OPT_RANKS:
        if (!cinch_option_count(me, "-n", text, 1, CINCH_LAUNCH_MOST, &number)) return false;
        o->ranks = (int)number;
        return true;
    case OPT_TEXT:
        o->text = text;
        return true;
    case OPT_CODECS:
        return read_codecs(text, o);
    case OPT_STEPS:
        if (!cinch_option_count(me, "--steps", text, 1, MOST_STEPS, &number)) return false;
        o->steps = (int)number;
        return true;
    case OPT_SEED:
        if (!cinch_option_count(me, "--seed", text, 0, INT64_MAX, &number)) return false;
        o->seed = (uint64_t)number;
        return true;
    case OPT_TRANSPORT:
        o->transport = text;
        return true;
    case OPT_JSON:
        o->json = text;
        return true;
    case OPT_PLOT:
        o->plot = text;
        return true;
    case OPT_CHECKPOINT:
        o->checkpoint = text;
        return true;
    case OPT_EVERY:
        if (!cinch_option_count(me, "--checkpoint-every", text, 1, MOST_STEPS, &number))
            return false;
        o->checkpoint_every = (int)number;
        return true;
    case OPT_RESUME:
        o->resume = true;
        return true;
    default: /* OPT_ELASTIC */
        o->elastic = true;
        return true;
    }
}

int cinch_train_parse(int argc, char **argv, cinch_train_options *o) {
    const char *value;
    int option;
    *o =
        (cinch_train_options){.steps = DEFAULT_STEPS, .checkpoint_every = DEFAULT_EVERY, .seed = 1};
    if (!read_codecs(DEFAULT_CODECS, o)) return 2;
    optind = 0;
    while ((option = cinch_option_next(me, argc, argv, &value)) >= 0)
        if (!read_option(option, value, o)) return 2;
    if (option != CINCH_OPTION_END) return option == CINCH_OPTION_HELP ? 0 : 2;
    if (optind < argc) return cinch_usage(me, "unexpected argument \"%s\"", argv[optind]);
    if (o->resume && !o->checkpoint)
        return cinch_usage(me, "--resume: from where, --checkpoint DIR says");
    return -1;
}

void cinch_train_options_free(cinch_train_options *o) {
    for (int i = 0; i < o->codecs; i++) free(o->codec[i]);
    *o = (cinch_train_options){0};
}

/* Better now than after minutes of training. */
static int check_writable(const char *path) {
    if (!path || !strcmp(path, "-")) return 0;
    FILE *file = fopen(path, "ae");
    if (!file) return cinch_usage(me, "cannot write %s: %s", path, strerror(errno));
    fclose(file);
    return 0;
}

int cinch_train_ready(void *arg) {
    const cinch_train_options *o = arg;
    char why[CINCH_ERROR_TEXT];
    cinch_settings settings;
    cinch_text text;
    int status = 0;
    if (!cinch_settings_load(&settings, why)) status = cinch_usage(me, "%s", why);
    if (!status && cinch_codec_load_plugins(settings.codec_plugin) != cinchSuccess) status = 2;
    for (int i = 0; !status && i < o->codecs; i++) {
        cinch_codec codec;
        if (!cinch_codec_parse(o->codec[i], &codec, why, sizeof why))
            status = cinch_usage(me, "--codecs %s: %s", o->codec[i], why);
    }
    if (!status && !cinch_transport_parse(settings.transport, why, sizeof why))
        status = cinch_usage(me, "%s %s: %s", o->transport ? "--transport" : "CINCH_TRANSPORT",
                             settings.transport, why);
    cinch_settings_free(&settings);
    if (!status && !cinch_text_load(&text, o->text, why, sizeof why))
        status = cinch_usage(me, "%s", why);
    else if (!status)
        cinch_text_free(&text);
    if (!status) status = check_writable(o->json);
    if (!status) status = check_writable(o->plot);
    return status;
}
