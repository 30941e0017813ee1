/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the built cinch program as a user would, for tests: arguments in, status and text out. */
#ifndef CINCH_TESTS_RUN_PROGRAM_H_
#define CINCH_TESTS_RUN_PROGRAM_H_

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

enum { TEXT_ROOM = 1 << 20, OUT = 0, ERR = 1 };

typedef struct program {
    pid_t pid;
    int fd[2];               /* our ends of its stdout and stderr; -1: at its end */
    char text[2][TEXT_ROOM]; /* what came */
    size_t length[2];
    int status;     /* as a shell says it; -1: it did not end in time */
    double seconds; /* until it had ended and nobody held its stdout and stderr */
    uint64_t start_ns;
} program;

/* Starts a shell script. */
static inline void program_start_script(program *p, const char *script) {
    int pipes[2][2];
    memset(p, 0, sizeof *p);
    p->start_ns = cinch_now_ns();
    if (pipe(pipes[0]) || pipe(pipes[1]) || (p->pid = fork()) < 0) {
        perror("pipe or fork");
        exit(1);
    }
    if (p->pid == 0) {
        for (int i = 0; i < 2; i++) {
            dup2(pipes[i][1], 1 + i);
            close(pipes[i][0]);
            close(pipes[i][1]);
        }
        execl("/bin/sh", "sh", "-c", script, (char *)NULL);
        _exit(125);
    }
    for (int i = 0; i < 2; i++) {
        close(pipes[i][1]);
        p->fd[i] = pipes[i][0];
    }
}

/* Starts the program with `line` behind its name, in a shell's syntax, so that tests read like
 * command lines. environment: "VAR=VALUE VAR=VALUE" or "". p->pid is the program itself. */
static inline void program_start(program *p, const char *environment, const char *line) {
    char script[4096];
    snprintf(script, sizeof script, "exec env %s %s %s", environment, CINCH_PROGRAM, line);
    program_start_script(p, script);
}

/* Reads until both are at their end, or stdout holds `until` (NULL: the end), at most so long.
 * The end comes when the last process that has them is gone, however it was started. */
static inline int program_read(program *p, const char *until, double seconds) {
    uint64_t deadline = cinch_now_ns() + (uint64_t)(seconds * 1e9);
    while (p->fd[OUT] >= 0 || p->fd[ERR] >= 0) {
        struct pollfd fds[2] = {{p->fd[OUT], POLLIN, 0}, {p->fd[ERR], POLLIN, 0}};
        uint64_t now = cinch_now_ns();
        if (until && strstr(p->text[OUT], until)) return 0;
        if (now >= deadline) return -1;
        if (poll(fds, 2, (int)((deadline - now) / 1000000) + 1) < 0) return -1;
        for (int i = 0; i < 2; i++) {
            if (!fds[i].revents) continue;
            ssize_t got = read(p->fd[i], p->text[i] + p->length[i], TEXT_ROOM - 1 - p->length[i]);
            if (got <= 0) {
                close(p->fd[i]);
                p->fd[i] = -1;
            } else {
                p->length[i] += (size_t)got;
            }
        }
    }
    return until && !strstr(p->text[OUT], until) ? -1 : 0;
}

/* Waits for the program and everything that it has started. */
static inline void program_end(program *p, double seconds) {
    int status;
    if (program_read(p, NULL, seconds) != 0) {
        fprintf(stderr, "still running after %.1f s; stdout: %s\nstderr: %s\n", seconds,
                p->text[OUT], p->text[ERR]);
        kill(p->pid, SIGKILL);
        p->status = -1;
    }
    for (int i = 0; i < 2; i++)
        if (p->fd[i] >= 0) close(p->fd[i]);
    waitpid(p->pid, &status, 0);
    if (p->status != -1)
        p->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    p->seconds = (double)(cinch_now_ns() - p->start_ns) / 1e9;
}

static inline void program_run(program *p, const char *environment, const char *line) {
    program_start(p, environment, line);
    program_end(p, 60);
}

static inline void program_run_script(program *p, const char *script) {
    program_start_script(p, script);
    program_end(p, 60);
}

static inline int lines_in(const char *text) {
    int n = 0;
    for (; *text; text++) n += *text == '\n';
    return n;
}

#endif
