/* SPDX-License-Identifier: Apache-2.0 */
/* The subcommands of `cinch`. Each gets its own name as argv[0] and returns the exit status:
 * 0 fine; 1 a check or the communication failed; 2 bad usage or a bad setting. */
#ifndef CINCH_PERF_COMMANDS_H_
#define CINCH_PERF_COMMANDS_H_

int cinch_run_main(int argc, char **argv);
int cinch_perf_main(int argc, char **argv);
int cinch_info_main(int argc, char **argv);
int cinch_topo_main(int argc, char **argv);
int cinch_tune_main(int argc, char **argv);

#endif
