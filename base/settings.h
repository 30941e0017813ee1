/* SPDX-License-Identifier: Apache-2.0 */
/* Every CINCH_* variable, in one table: it makes the struct, the parser, `cinch info --env` and the
 * README's list. Only base/settings.c calls getenv. */
#ifndef CINCH_BASE_SETTINGS_H_
#define CINCH_BASE_SETTINGS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* X(TYPE, field, NAME, default, agree, choices or NCCL twin, meaning)
 * TYPE: TEXT any text; SIZE bytes with K M G; COUNT a whole number; LIMIT off or a number above 0;
 * FLAG 0 or 1; CHOICE one of the names in the choices, as its index. agree: 1 where all ranks must
 * have the same value. A twin is read where the variable itself is not set. */
#define CINCH_SETTINGS(X)                                                                          \
    X(TEXT, codec, "CODEC", "none", 1, NULL,                                                       \
      "codec between hosts where CODEC_INTER does not say more: none, bf16, int8, topk or a "      \
      "plug-in's name, then :key=value,...; or auto: a codec where measured times say that it "    \
      "pays")                                                                                      \
    X(TEXT, codec_intra, "CODEC_INTRA", "none", 1, NULL,                                           \
      "codec between ranks of one host; beside one between hosts, or alone")                       \
    X(TEXT, codec_inter, "CODEC_INTER", "", 1, NULL,                                               \
      "codec between hosts and between sites; empty: as CINCH_CODEC")                              \
    X(SIZE, codec_min_bytes, "CODEC_MIN_BYTES", "1M", 1, NULL,                                     \
      "smaller messages are never compressed")                                                     \
    X(TEXT, codec_ops, "CODEC_OPS", "allreduce,reducescatter", 1, NULL,                            \
      "collectives that may be compressed, out of allreduce,reducescatter,allgather")              \
    X(TEXT, codec_dtypes, "CODEC_DTYPES", "float,half,bfloat16", 1, NULL,                          \
      "datatypes that may be compressed")                                                          \
    X(TEXT, codec_exclude, "CODEC_EXCLUDE", "", 1, NULL,                                           \
      "what stays exact: size=FROM-TO, call=FROM-TO, comm=NAME, separated by ;")                   \
    X(COUNT, codec_warmup, "CODEC_WARMUP", "0", 1, NULL,                                           \
      "so many calls of a communicator stay exact at first")                                       \
    X(TEXT, codec_plugin, "CODEC_PLUGIN", "", 0, NULL, "codec plug-ins to load, path.so,...")      \
    X(SIZE, ef_max_bytes, "EF_MAX_BYTES", "4G", 1, NULL,                                           \
      "cap on error-feedback residuals of a communicator")                                         \
    X(LIMIT, max_rel_error, "MAX_REL_ERROR", "off", 1, NULL,                                       \
      "the error that a codec may make, relative, in the 2-norm: auto stays inside it, and "       \
      "another codec that is seen to pass it is warned about; or off")                             \
    X(CHOICE, nonfinite, "NONFINITE", "propagate", 1, "propagate|error",                           \
      "what a compressed NaN or Inf does: reach every rank as NaN, or fail the call")              \
    X(TEXT, algo, "ALGO", "auto", 1, NULL, "auto, or an algorithm for every call, or op:name,...") \
    X(TEXT, transport, "TRANSPORT", "auto", 1, NULL,                                               \
      "auto, or a list out of shm,verbs,ucx,tcp,nccl; ^ before the list excludes")                 \
    X(SIZE, chunk, "CHUNK", "0", 1, NULL,                                                          \
      "bytes of a pipelined piece; 0: chosen by algorithm and size")                               \
    X(COUNT, trees, "TREES", "0", 1, NULL,                                                         \
      "the most trees that a forest plan may have; 0: as many as it takes to be near the best")    \
    X(TEXT, topo_file, "TOPO_FILE", "", 0, "NCCL_TOPO_FILE",                                       \
      "a file of the machine, read in place of detection; each rank may have its own")             \
    X(TEXT, topo_dump, "TOPO_DUMP", "", 0, NULL,                                                   \
      "where rank 0 writes the machine that plans are made for")                                   \
    X(TEXT, plan_file, "PLAN_FILE", "", 0, NULL,                                                   \
      "measured plans, as `cinch tune` writes them; rank 0's count, and where another rank has "   \
      "the file it must be the same")                                                              \
    X(TEXT, plan_dump, "PLAN_DUMP", "", 0, NULL, "where rank 0 writes the plans in force")         \
    X(FLAG, checksum, "CHECKSUM", "0", 1, NULL, "1 checks every message's payload")                \
    X(TEXT, comm_id, "COMM_ID", "", 0, "NCCL_COMM_ID",                                             \
      "where ranks meet: HOST:PORT[#HEXSECRET] or file:/PATH")                                     \
    X(TEXT, secret_file, "SECRET_FILE", "", 0, NULL,                                               \
      "a file with the secret of CINCH_COMM_ID, in hex")                                           \
    X(FLAG, allow_unauthenticated, "ALLOW_UNAUTHENTICATED", "0", 0, NULL,                          \
      "1 lets ranks meet beyond loopback without a secret")                                        \
    X(COUNT, rank, "RANK", "", 0, NULL, "this process's rank, for the cinch program")              \
    X(COUNT, size, "SIZE", "", 1, NULL, "how many ranks, for the cinch program")                   \
    X(TEXT, hostid, "HOSTID", "", 0, NULL,                                                         \
      "ranks with the same value share a host; empty: boot id, host name and network namespace")   \
    X(TEXT, siteid, "SITEID", "", 0, NULL,                                                         \
      "hosts with the same value are at one site: a level of its own for hierarchical "            \
      "collectives, with slower links beyond; the ranks of a host name the same")                  \
    X(TEXT, socket_ifname, "SOCKET_IFNAME", "", 0, "NCCL_SOCKET_IFNAME",                           \
      "network interfaces to use, by prefix; = before: exact; ^ before: not these")                \
    X(CHOICE, socket_family, "SOCKET_FAMILY", "any", 0, "any|AF_INET|AF_INET6",                    \
      "address family of sockets between hosts; NCCL_SOCKET_FAMILY is read too")                   \
    X(FLAG, ib_disable, "IB_DISABLE", "0", 0, "NCCL_IB_DISABLE", "1 leaves verbs aside")           \
    X(TEXT, ib_hca, "IB_HCA", "", 0, "NCCL_IB_HCA",                                                \
      "ports of InfiniBand and RoCE devices, NAME or NAME:PORT by prefix, in order; = before the " \
      "list: exact; ^ before it: not these")                                                       \
    X(TEXT, ib_gid_index, "IB_GID_INDEX", "-1", 0, "NCCL_IB_GID_INDEX",                            \
      "which address of the port's table; -1: the best one")                                       \
    X(COUNT, ib_roce_version_num, "IB_ROCE_VERSION_NUM", "2", 0, "NCCL_IB_ROCE_VERSION_NUM",       \
      "the version of RoCE whose addresses are the best")                                          \
    X(COUNT, ib_timeout, "IB_TIMEOUT", "17", 0, "NCCL_IB_TIMEOUT",                                 \
      "a message over verbs is sent again after 4.096 us times 2 to this power, at most 31")       \
    X(COUNT, ib_retry_cnt, "IB_RETRY_CNT", "6", 0, "NCCL_IB_RETRY_CNT",                            \
      "so often, at most 7, which some devices take for ever; then the peer is lost")              \
    X(COUNT, ib_pkey, "IB_PKEY", "0", 0, "NCCL_IB_PKEY", "the index of the partition key")         \
    X(COUNT, ib_sl, "IB_SL", "0", 0, "NCCL_IB_SL", "the service level of messages over verbs")     \
    X(COUNT, ib_tc, "IB_TC", "0", 0, "NCCL_IB_TC", "the traffic class of messages over RoCE")      \
    X(COUNT, init_timeout_ms, "INIT_TIMEOUT_MS", "600000", 0, NULL,                                \
      "a rendezvous that stays incomplete so long fails on every rank")                            \
    X(COUNT, timeout_ms, "TIMEOUT_MS", "1800000", 0, NULL,                                         \
      "a collective that makes no progress for so long fails; 0: never")                           \
    X(COUNT, warn_ms, "WARN_MS", "60000", 0, NULL,                                                 \
      "a collective without progress for so long is warned about")                                 \
    X(TEXT, nccl_path, "NCCL_PATH", "", 0, NULL,                                                   \
      "the real libnccl.so.2 for the drop-in, or its folder; empty: found as the loader would")    \
    X(CHOICE, nccl_mode, "NCCL_MODE", "auto", 0, "auto|forward|native",                            \
      "the drop-in hands calls to the real NCCL, or serves them itself; auto: forward where that " \
      "and a CUDA device are there")                                                               \
    X(CHOICE, debug, "DEBUG", "warn", 0, "none|error|warn|info|debug|trace",                       \
      "log level; NCCL_DEBUG is read too")                                                         \
    X(TEXT, debug_file, "DEBUG_FILE", "", 0, NULL,                                                 \
      "where log lines go, stderr where empty; %h host, %p pid")                                   \
    X(TEXT, stats_file, "STATS_FILE", "", 0, NULL,                                                 \
      "a file that gets a line of JSON per communicator at its end; %h host, %p pid")              \
    X(TEXT, report_dir, "REPORT_DIR", "", 0, NULL,                                                 \
      "a folder where every rank writes a report when a communicator fails, and on SIGUSR1 where " \
      "the program does not take that; `cinch info --report` merges them; %h host, %p pid")

typedef enum {
#define X(type, field, ...) CINCH_SET_##field,
    CINCH_SETTINGS(X)
#undef X
        CINCH_SET_COUNT
} cinch_setting_index;

typedef struct cinch_settings {
#define CINCH_SETTING_TEXT char *
#define CINCH_SETTING_SIZE uint64_t
#define CINCH_SETTING_COUNT int64_t /* -1: not set and no default */
#define CINCH_SETTING_LIMIT double  /* 0: off */
#define CINCH_SETTING_FLAG bool
#define CINCH_SETTING_CHOICE int
#define X(type, field, ...) CINCH_SETTING_##type field;
    CINCH_SETTINGS(X)
#undef X
    char *value[CINCH_SET_COUNT];        /* the text that was read or the default */
    const char *source[CINCH_SET_COUNT]; /* "default", "environment", or the twin's name */
} cinch_settings;

/* One row of the table, for listings. */
typedef struct cinch_setting_row {
    const char *name; /* with CINCH_ */
    const char *type;
    const char *fallback;
    const char *choices;
    const char *meaning;
    bool agree;
} cinch_setting_row;
const cinch_setting_row *cinch_setting_at(int index); /* NULL past the end */

/* Reads the environment. *out is always filled and wants cinch_settings_free; a value that does not
 * parse leaves the default there, and the result is false with a sentence in why that names the
 * variable, the value and what is accepted. Unknown CINCH_* names are warned about, once. */
bool cinch_settings_load(cinch_settings *out, char why[CINCH_ERROR_TEXT]);
void cinch_settings_free(cinch_settings *settings);

/* The values on which ranks must agree, as lines NAME=value; returns the length with the NUL. */
size_t cinch_settings_agreed(const cinch_settings *settings, char *text, size_t room);

/* Compares two such texts, of ranks a and b: false with a sentence in why at the first difference.
 */
bool cinch_settings_compare(const char *text_a, int a, const char *text_b, int b,
                            char why[CINCH_ERROR_TEXT]);

/* "64K" -> 65536; K M G T are binary; false where it is no size. Used by the options too. */
bool cinch_parse_size(const char *text, uint64_t *bytes);
bool cinch_parse_count(const char *text, int64_t *value);

/* A variable of another program (a launcher's), or NULL. */
const char *cinch_environment(const char *name);

#endif
