/* SPDX-License-Identifier: Apache-2.0 */
/* cinch info: what this build and this machine offer, and every setting with its source. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cpu.h"
#include "base/device.h"
#include "base/settings.h"
#include "coll/algo.h"
#include "coll/nccl/choose.h"
#include "coll/nccl/inner.h"
#include "compress/codec.h"
#include "perf/commands.h"
#include "perf/info_reports.h"
#include "perf/json.h"
#include "perf/options.h"
#include "transports/transport.h"

#ifndef CINCH_BUILD_TYPE
#define CINCH_BUILD_TYPE "unknown"
#endif
#ifdef __clang__
#define COMPILER __VERSION__
#else
#define COMPILER "gcc " __VERSION__
#endif

enum { OPT_ENV, OPT_JSON, OPT_REPORT };
static const cinch_option table[] = {
    [OPT_ENV] = {0, "env", NULL, "every setting: its value, where that came from, its meaning"},
    [OPT_JSON] = {0, "json", NULL, "all of it as one line of JSON"},
    [OPT_REPORT] = {0, "report", "DIR",
                    "write it, and facts of this machine, into files for a report; merge the "
                    "reports of ranks there"},
    {0},
};
static const cinch_command command = {
    "cinch info", "[--env] [--json] [--report DIR]",
    "Shows the version, what it was built with, CPU features, transports, codecs, algorithms,\n"
    "and what the NCCL drop-in would do here.\n"
    "Where DIR has reports of ranks, as CINCH_REPORT_DIR makes them, they are merged into a page\n"
    "in place of all that: who waits for whom, and which rank is to blame.\n"
    "Secrets are never shown.\n",
    table, false};

/* What libnccl.so.2, the drop-in, would do in this process. */
typedef struct dropin {
    cinch_nccl_choice choice;
    cinch_nccl_library real; /* what would be found, whatever the mode */
    char none[CINCH_ERROR_TEXT];
    const char *lack; /* why libcinch's own communicators would not go by it; NULL: they could */
    char room[CINCH_ERROR_TEXT];
} dropin;

static void ask_dropin(dropin *d, const cinch_settings *settings) {
    memset(d, 0, sizeof *d);
    cinch_nccl_choose(settings, &d->choice);
    d->real = d->choice.real;
    if (!d->real.handle) cinch_nccl_load(settings->nccl_path, &d->real, d->none);
    d->lack = cinch_inner_unusable(settings, d->room);
}

static void dropin_text(FILE *f, const dropin *d) {
    char version[32];
    fprintf(f, "NCCL drop-in  %s: %s\n", cinch_nccl_mode_name(d->choice.mode), d->choice.why);
    cinch_nccl_version_text(d->real.version, version, sizeof version);
    if (d->real.handle)
        fprintf(f, "real NCCL     %s, %s\n", version, d->real.path);
    else
        fprintf(f, "real NCCL     none: %s\n", d->none);
}

static void dropin_json(cinch_json *j, const dropin *d) {
    cinch_json_open(j, "dropin", '{');
    cinch_json_text(j, "mode", cinch_nccl_mode_name(d->choice.mode));
    cinch_json_text(j, "why", d->choice.why);
    cinch_json_text(j, "real_path", d->real.handle ? d->real.path : NULL);
    if (d->real.handle)
        cinch_json_count(j, "real_version", (uint64_t)d->real.version);
    else
        cinch_json_null(j, "real_version");
    cinch_json_text(j, "real_why", d->real.handle ? NULL : d->none);
    cinch_json_close(j, '}');
}

/* The setting's value; of a meeting point, what stands before its secret. */
static const char *shown_value(const cinch_settings *settings, int index, char *room, size_t size) {
    const char *value = settings->value[index] ? settings->value[index] : "";
    const char *secret = index == CINCH_SET_comm_id ? strchr(value, '#') : NULL;
    if (!secret) return value;
    snprintf(room, size, "%.*s#(secret)", (int)(secret - value), value);
    return room;
}

static void env_text(FILE *f, const cinch_settings *settings) {
    char room[512];
    const cinch_setting_row *row;
    fputs("\nsettings:\n", f);
    for (int i = 0; (row = cinch_setting_at(i)); i++) {
        const char *value = shown_value(settings, i, room, sizeof room);
        fprintf(f, "  %s=%s  (%s)\n      %s", row->name, value, settings->source[i], row->meaning);
        if (row->choices) fprintf(f, "; %s", row->choices);
        if (row->fallback[0]) fprintf(f, "; default %s", row->fallback);
        fputs(row->agree ? "; the same on all ranks\n" : "\n", f);
    }
}

/* Algorithms have a row for each operation that they serve. */
static bool named_before(int index) {
    for (int i = 0; i < index; i++)
        if (!strcmp(cinch_algo_at(i)->name, cinch_algo_at(index)->name)) return true;
    return false;
}

/* What it was built with, and what is missing for lack of it. */
static const struct {
    const char *name, *lack;
    bool there;
} libraries[] = {
    {"libsodium", "no: ranks on other hosts cannot be met", CINCH_HAS_SODIUM},
    {"expat", "no: topology files in XML are refused", CINCH_HAS_EXPAT},
    {"jansson", "no: plan files are refused", CINCH_HAS_JANSSON},
    {"hwloc", "no: machines are seen by sysfs only", CINCH_HAS_HWLOC},
    {"libibverbs", "no: HCAs are seen by sysfs only", CINCH_HAS_IBVERBS},
};
enum { LIBRARIES = sizeof libraries / sizeof *libraries };

/* What CINCH_TRANSPORT=auto makes of a transport here: why it is of no use, or what it is used for.
 */
typedef struct transport_use {
    const char *why;    /* it cannot be used; NULL: it can */
    const char *asking; /* it is used only where it is asked for; or NULL */
    const char *what;   /* it is used for */
} transport_use;

static transport_use use_of(int index) {
    const cinch_transport *t = cinch_transport_at(index);
    transport_use use = {t->unusable(), NULL, index ? "between hosts" : "inside a host"};
    use.asking = use.why || !t->unwanted ? NULL : t->unwanted();
    if (use.asking) use.what = "where CINCH_TRANSPORT names it";
    for (int i = 1; i < index && !use.why && !use.asking; i++) {
        const cinch_transport *before = cinch_transport_at(i);
        if (!before->unusable() && !(before->unwanted && before->unwanted()))
            use.what = "between hosts where none of the above connects them";
    }
    return use;
}

static void info_text(FILE *f, const dropin *nccl) {
    const cinch_transport *transport;
    const cinchCodec_t *codec;
    const cinch_algo *algo;
    char cuda[CINCH_DEVICE_TEXT];
    fprintf(f, "cinch %s (interface of NCCL %d.%d.%d)\n", CINCH_RELEASE, CINCH_MAJOR, CINCH_MINOR,
            CINCH_PATCH);
    fprintf(f, "compiler      %s, %s\n", COMPILER, CINCH_BUILD_TYPE);
    for (int i = 0; i < LIBRARIES; i++)
        fprintf(f, "%-13s %s\n", libraries[i].name, libraries[i].there ? "yes" : libraries[i].lack);
    fprintf(f, "cuda          %s\n", cinch_device_cuda_text(cuda));
    fprintf(f, "CPUs          %d, caches: L2 %zu KiB, last level %zu KiB\n", cinch_cpu_count(),
            cinch_cpu_l2_bytes() >> 10, cinch_cpu_llc_bytes() >> 10);
    fprintf(f, "CPU features  %s\n", cinch_cpu_features());
    fprintf(f, "kernels       %s\n", cinch_codec_isa());
    fprintf(f, "devices       host%s\n", cinch_device_cuda.work ? " cuda" : "");
    for (int i = 0; (transport = cinch_transport_at(i)); i++) {
        transport_use use = use_of(i);
        if (use.why)
            fprintf(f, "transport     %s: %s\n", transport->name, use.why);
        else
            fprintf(f, "transport     %s: usable, %s%s%s\n", transport->name, use.what,
                    use.asking ? ": " : "", use.asking ? use.asking : "");
    }
    fprintf(f, "transport     nccl: %s\n",
            nccl->lack ? nccl->lack : "usable for device memory, where each rank has its own GPU");
    fputs("codecs        none", f);
    for (int i = 0; (codec = cinch_codec_at(i)); i++) fprintf(f, " %s", codec->name);
    fputs("\nalgorithms   ", f);
    for (int i = 0; (algo = cinch_algo_at(i)); i++)
        if (!named_before(i)) fprintf(f, " %s", algo->name);
    putc('\n', f);
    dropin_text(f, nccl);
}

static void json_settings(cinch_json *j, const cinch_settings *settings) {
    char room[512];
    const cinch_setting_row *row;
    cinch_json_open(j, "settings", '[');
    for (int i = 0; (row = cinch_setting_at(i)); i++) {
        cinch_json_open(j, NULL, '{');
        cinch_json_text(j, "name", row->name);
        cinch_json_text(j, "value", shown_value(settings, i, room, sizeof room));
        cinch_json_text(j, "source", settings->source[i]);
        cinch_json_text(j, "default", row->fallback);
        cinch_json_text(j, "choices", row->choices);
        cinch_json_bool(j, "agree", row->agree);
        cinch_json_text(j, "meaning", row->meaning);
        cinch_json_close(j, '}');
    }
    cinch_json_close(j, ']');
}

static bool info_json(FILE *f, const cinch_settings *settings, const dropin *nccl) {
    const cinch_transport *transport;
    const cinchCodec_t *codec;
    const cinch_algo *algo;
    char cuda[CINCH_DEVICE_TEXT];
    cinch_json j;
    cinch_json_begin(&j, f);
    cinch_json_text(&j, "version", CINCH_RELEASE);
    cinch_json_count(&j, "nccl_version", CINCH_VERSION_CODE);
    cinch_json_text(&j, "compiler", COMPILER);
    cinch_json_text(&j, "build_type", CINCH_BUILD_TYPE);
    for (int i = 0; i < LIBRARIES; i++) cinch_json_bool(&j, libraries[i].name, libraries[i].there);
    cinch_json_text(&j, "cuda", cinch_device_cuda_text(cuda));
    cinch_json_count(&j, "cpus", (uint64_t)cinch_cpu_count());
    cinch_json_count(&j, "l2_bytes", cinch_cpu_l2_bytes());
    cinch_json_count(&j, "llc_bytes", cinch_cpu_llc_bytes());
    cinch_json_text(&j, "cpu_features", cinch_cpu_features());
    cinch_json_text(&j, "kernels", cinch_codec_isa());
    cinch_json_open(&j, "devices", '[');
    cinch_json_text(&j, NULL, "host");
    if (cinch_device_cuda.work) cinch_json_text(&j, NULL, cinch_device_cuda.name);
    cinch_json_close(&j, ']');
    cinch_json_open(&j, "transports", '[');
    for (int i = 0; (transport = cinch_transport_at(i)); i++) {
        transport_use use = use_of(i);
        cinch_json_open(&j, NULL, '{');
        cinch_json_text(&j, "name", transport->name);
        cinch_json_bool(&j, "usable", !use.why);
        cinch_json_text(&j, "why", use.why ? use.why : use.asking);
        cinch_json_text(&j, "use", use.why ? NULL : use.what);
        cinch_json_close(&j, '}');
    }
    cinch_json_open(&j, NULL, '{');
    cinch_json_text(&j, "name", "nccl");
    cinch_json_bool(&j, "usable", !nccl->lack);
    cinch_json_text(&j, "why", nccl->lack);
    cinch_json_close(&j, '}');
    cinch_json_close(&j, ']');
    cinch_json_open(&j, "codecs", '[');
    cinch_json_text(&j, NULL, "none");
    for (int i = 0; (codec = cinch_codec_at(i)); i++) cinch_json_text(&j, NULL, codec->name);
    cinch_json_close(&j, ']');
    cinch_json_open(&j, "algorithms", '[');
    for (int i = 0; (algo = cinch_algo_at(i)); i++)
        if (!named_before(i)) cinch_json_text(&j, NULL, algo->name);
    cinch_json_close(&j, ']');
    dropin_json(&j, nccl);
    json_settings(&j, settings);
    return cinch_json_end(&j);
}

/* Opens DIR/name for writing; says why not. */
static FILE *report_file(const char *dir, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "we");
    if (!f) cinch_usage(&command, "cannot write %s: %s", path, strerror(errno));
    return f;
}

static bool report_close(FILE *f, const char *dir, const char *name) {
    bool bad = ferror(f);
    if (fclose(f) == 0 && !bad) return true;
    cinch_usage(&command, "cannot write %s/%s: %s", dir, name, strerror(errno));
    return false;
}

/* Copies a file of the system's; one that is missing or closed to us is left out. */
static bool report_copy(const char *dir, const char *from, const char *name) {
    char bytes[4096];
    size_t got;
    FILE *in = fopen(from, "re");
    if (!in) return true;
    FILE *out = report_file(dir, name);
    while (out && (got = fread(bytes, 1, sizeof bytes, in)) > 0) fwrite(bytes, 1, got, out);
    fclose(in);
    return out && report_close(out, dir, name);
}

static int write_report(const char *dir, const cinch_settings *settings, const dropin *nccl) {
    static const struct {
        const char *from, *name;
    } facts[] = {{"/etc/os-release", "os-release"},
                 {"/proc/version", "kernel"},
                 {"/proc/cpuinfo", "cpuinfo"},
                 {"/proc/meminfo", "meminfo"},
                 {"/proc/loadavg", "loadavg"},
                 {"/proc/self/limits", "limits"},
                 {"/proc/self/cgroup", "cgroup"},
                 {"/proc/net/dev", "net-dev"},
                 {"/proc/sys/net/ipv4/tcp_rmem", "tcp_rmem"},
                 {"/proc/sys/net/ipv4/tcp_wmem", "tcp_wmem"}};
    if (mkdir(dir, 0777) != 0 && errno != EEXIST)
        return cinch_usage(&command, "cannot make the folder %s: %s", dir, strerror(errno));
    FILE *f = report_file(dir, "info.txt");
    if (!f) return 2;
    info_text(f, nccl);
    env_text(f, settings);
    if (!report_close(f, dir, "info.txt") || !(f = report_file(dir, "info.json"))) return 2;
    info_json(f, settings, nccl);
    if (!report_close(f, dir, "info.json")) return 2;
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
        if (!report_copy(dir, facts[i].from, facts[i].name)) return 2;
    return 0;
}

int cinch_info_main(int argc, char **argv) {
    const char *value, *report = NULL;
    char why[CINCH_ERROR_TEXT];
    bool env = false, json = false;
    int option, status = 0;
    optind = 0;
    while ((option = cinch_option_next(&command, argc, argv, &value)) >= 0) {
        if (option == OPT_ENV) env = true;
        if (option == OPT_JSON) json = true;
        if (option == OPT_REPORT) report = value;
    }
    if (option != CINCH_OPTION_END) return option == CINCH_OPTION_HELP ? 0 : 2;
    if (optind < argc) return cinch_usage(&command, "unexpected argument \"%s\"", argv[optind]);
    /* Settings that are wrong are shown all the same: this is where one looks for them. */
    cinch_settings settings;
    bool good = cinch_settings_load(&settings, why);
    if (!good) status = cinch_usage(&command, "%s", why);
    if (good && cinch_codec_load_plugins(settings.codec_plugin) != cinchSuccess) status = 2;
    dropin nccl;
    ask_dropin(&nccl, &settings);
    cinch_reports ranks = {0};
    if (report && !cinch_reports_load(report, &ranks))
        status = cinch_usage(&command, "the reports in %s cannot be read", report);
    if (ranks.left_out && !ranks.count)
        status = cinch_usage(&command, "no file in %s is a report of a rank", report);
    if (ranks.count) {
        if (!cinch_reports_page(stdout, &ranks, json))
            status = cinch_usage(&command, "the reports cannot be merged");
    } else if (json) {
        info_json(stdout, &settings, &nccl);
    } else {
        info_text(stdout, &nccl);
        if (env) env_text(stdout, &settings);
    }
    if (report && write_report(report, &settings, &nccl) != 0) status = 2;
    cinch_reports_free(&ranks);
    cinch_settings_free(&settings);
    if (fflush(stdout) != 0)
        status = cinch_usage(&command, "cannot write to stdout: %s", strerror(errno)) - 1;
    return status;
}
