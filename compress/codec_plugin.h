/* SPDX-License-Identifier: Apache-2.0 */
/* Codecs from shared objects, as codec.c sees them. */
#ifndef CINCH_COMPRESS_CODEC_PLUGIN_H_
#define CINCH_COMPRESS_CODEC_PLUGIN_H_

#include "cinch/codec.h"

/* The i-th loaded plug-in's codec; NULL past the end. Plug-ins are never unloaded. */
const cinchCodec_t *cinch_codec_plugin_at(int i);

#endif
