/* SPDX-License-Identifier: Apache-2.0 */
/* Codecs by name: the registry, a specification's parser, and which kernels run. */
#include "compress/codec.h"

#include <stdatomic.h>
#include <stdio.h>

#include "base/cpu.h"
#include "compress/codec_kernels.h"
#include "compress/codec_params.h"
#include "compress/codec_plugin.h"

static const cinchCodec_t *const builtin[] = {&cinch_codec_bf16, &cinch_codec_int8,
                                              &cinch_codec_topk};
#define BUILTINS (int)(sizeof builtin / sizeof *builtin)

const cinchCodec_t *cinch_codec_at(int i) {
    if (i < 0) return NULL;
    return i < BUILTINS ? builtin[i] : cinch_codec_plugin_at(i - BUILTINS);
}

static const cinchCodec_t *find(const char *name, size_t len) {
    const cinchCodec_t *vt;
    for (int i = 0; (vt = cinch_codec_at(i)); i++)
        if (strlen(vt->name) == len && !memcmp(vt->name, name, len)) return vt;
    return NULL;
}

/* "none, bf16, int8, ..." */
static void list_names(char *out, size_t room) {
    size_t used = (size_t)snprintf(out, room, "none");
    const cinchCodec_t *vt;
    for (int i = 0; (vt = cinch_codec_at(i)) && used < room; i++)
        used += (size_t)snprintf(out + used, room - used, ", %s", vt->name);
}

/* Checks the items' form, and moves all but those of every codec into rest. NULL: fine; else what
 * is wrong. */
static const char *split_params(const char *text, char *rest, cinch_codec *codec) {
    static const char *const flags[] = {"0", "1"};
    cinch_param item;
    size_t used = 0, len = strlen(text);
    if (len && text[len - 1] == ',') return "ends with a comma";
    for (const char *at = text; cinch_param_next(&at, &item);) {
        cinch_param other;
        if (!item.value || !item.key_len) return "has an item that is no key=value";
        for (const char *more = at; cinch_param_next(&more, &other);)
            if (other.key_len == item.key_len && !memcmp(other.key, item.key, item.key_len))
                return "gives a key twice";
        bool ef = cinch_param_is(&item, "ef");
        if (ef || cinch_param_is(&item, "inplace")) {
            int choice = cinch_param_choice(&item, flags, 2);
            if (choice < 0) return ef ? "has a wrong value of ef" : "has a wrong value of inplace";
            *(ef ? &codec->ef : &codec->inplace) = choice == 1;
            continue;
        }
        size_t size = item.key_len + 1 + item.value_len;
        if (used) rest[used++] = ',';
        memcpy(rest + used, item.key, size);
        used += size;
    }
    rest[used] = 0;
    return NULL;
}

bool cinch_codec_parse(const char *spec, cinch_codec *out, char *why, size_t room) {
    cinch_codec codec = {0};
    char names[256], rest[512];
    size_t len = strcspn(spec, ":");
    const char *params = spec[len] ? spec + len + 1 : "";
    if (!strcmp(spec, "none")) {
        *out = codec;
        return true;
    }
    codec.vt = find(spec, len);
    if (!codec.vt) {
        list_names(names, sizeof names);
        snprintf(why, room, "'%s' names no codec: accepted are auto, %s, then :key=value,...", spec,
                 names);
        return false;
    }
    if (strlen(params) >= sizeof rest) {
        snprintf(why, room, "the parameters of %s are longer than %zu characters", codec.vt->name,
                 sizeof rest - 1);
        return false;
    }
    codec.ef = codec.vt->flags & CINCH_CODEC_EF_DEFAULT;
    const char *wrong = split_params(params, rest, &codec);
    const char *accepted = codec.vt->parse(wrong ? "=" : rest, codec.params);
    if (wrong || accepted) {
        snprintf(why, room, "'%s' %s: %s accepts ef=0|1, inplace=0|1 and %s", spec,
                 wrong ? wrong : "has a wrong parameter", codec.vt->name,
                 accepted ? accepted : "parameters of its own");
        return false;
    }
    if (codec.vt->granule(codec.params) == 0) {
        snprintf(why, room, "'%s': the plug-in wants segments of 0 elements", spec);
        return false;
    }
    *out = codec;
    return true;
}

size_t cinch_codec_granule(const cinch_codec *codec) {
    return codec->vt ? codec->vt->granule(codec->params) : 1;
}

size_t cinch_codec_bound(const cinch_codec *codec, size_t count) {
    return codec->vt ? codec->vt->bound(codec->params, count) : 0;
}

bool cinch_codec_fixed_size(const cinch_codec *codec) {
    if (!codec->vt) return true;
    if (codec->vt->fixed_size) return codec->vt->fixed_size(codec->params) != 0;
    return codec->vt->flags & CINCH_CODEC_FIXED_SIZE;
}

size_t cinch_codec_block(const cinch_codec *codec) {
    return codec->vt && codec->vt->block ? codec->vt->block(codec->params) : 0;
}

float cinch_codec_step_bound(const cinch_codec *codec, float block_abs_max) {
    if (!codec->vt) return 0;
    if (!codec->vt->step_bound) return cinch_bits_float(CINCH_NAN_BITS);
    return codec->vt->step_bound(codec->params, block_abs_max);
}

size_t cinch_codec_prepare_bytes(const cinch_codec *codec, size_t count) {
    if (!codec->vt || !codec->vt->prepare_bytes) return 0;
    return codec->vt->prepare_bytes(codec->params, count);
}

const cinch_codec_kernels cinch_codec_kernels_reference = {
    .isa = "reference",
    .int8_encode = cinch_int8_encode_reference,
    .int8_decode_add = cinch_int8_decode_add_reference,
    .bf16_encode = cinch_bf16_encode_reference,
    .bf16_decode_add = cinch_bf16_decode_add_reference,
    .topk_select = cinch_topk_select_reference,
};

#if defined(__x86_64__)
static bool has_avx512(void) {
    return cinch_cpu_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq");
}
#endif

const cinch_codec_kernels *cinch_codec_kernels_at(int i) {
    const cinch_codec_kernels *usable[4] = {&cinch_codec_kernels_reference};
#if defined(__x86_64__)
    int count = 1;
    if (cinch_cpu_avx2()) usable[count++] = &cinch_codec_kernels_avx2;
    if (has_avx512()) usable[count++] = &cinch_codec_kernels_avx512;
#endif
    return i >= 0 && i < 4 ? usable[i] : NULL;
}

static _Atomic(const cinch_codec_kernels *) chosen;

const cinch_codec_kernels *cinch_codec_kernels_get(void) {
    const cinch_codec_kernels *kernels = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (__builtin_expect(kernels != NULL, 1)) return kernels;
    for (int i = 0; cinch_codec_kernels_at(i); i++) kernels = cinch_codec_kernels_at(i);
    atomic_store_explicit(&chosen, kernels, memory_order_relaxed);
    return kernels;
}

void cinch_codec_kernels_force(const cinch_codec_kernels *kernels) {
    atomic_store_explicit(&chosen, kernels, memory_order_relaxed);
}

const char *cinch_codec_isa(void) {
    return cinch_codec_kernels_get()->isa;
}
