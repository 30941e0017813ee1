/* SPDX-License-Identifier: Apache-2.0 */
/* How long a cache line takes from the first to the second of this process's CPUs, in nanoseconds;
 * 0: not known. Scripts that compare ask before and after a run how far apart CPUs are. */
#include <stdio.h>

#include "coll/tune_time.h"

int main(void) {
    return printf("%.1f\n", cinch_timing_handover()) < 0;
}
