/* SPDX-License-Identifier: Apache-2.0 */
/* What `cinch tune` prints of what it has measured. */
#ifndef CINCH_PERF_TUNE_REPORT_H_
#define CINCH_PERF_TUNE_REPORT_H_

#include <stdio.h>

#include "coll/tune.h"

void cinch_tune_print(FILE *to, const cinch_tune_net *net, const cinch_tuned *tuned);

#endif
