/* SPDX-License-Identifier: Apache-2.0 */
/* The CRC-32C of bytes, which guards messages where CINCH_CHECKSUM asks for it. */
#ifndef CINCH_TRANSPORTS_CRC32C_H_
#define CINCH_TRANSPORTS_CRC32C_H_

#include <stddef.h>
#include <stdint.h>

/* Goes on from crc, 0 at the start: the CRC of a and b one after the other is
 * cinch_crc32c(cinch_crc32c(0, a, ...), b, ...). */
uint32_t cinch_crc32c(uint32_t crc, const void *data, size_t bytes);

/* The same without the CPU's instruction; here for the tests. */
uint32_t cinch_crc32c_table(uint32_t crc, const void *data, size_t bytes);

#endif
