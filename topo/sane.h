/* SPDX-License-Identifier: Apache-2.0 */
/* What cannot be right about a machine as it was told: each finding a warning that names the part,
 * and the machine mended so that what is planned is sane. */
#ifndef CINCH_TOPO_SANE_H_
#define CINCH_TOPO_SANE_H_

#include "topo/read_machine.h"

void cinch_machine_mend(cinch_machine *m);

#endif
