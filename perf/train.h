/* SPDX-License-Identifier: Apache-2.0 */
/* The subcommand `cinch train`. */
#ifndef CINCH_PERF_TRAIN_H_
#define CINCH_PERF_TRAIN_H_

int cinch_train_main(int argc, char **argv);

#endif
