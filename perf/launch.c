/* SPDX-License-Identifier: Apache-2.0 */
/* Starting ranks as processes on this host.
 *
 * Every rank leads a process group of its own, so that what it starts in turn is reached too. Three
 * things end the ranks: this launcher, the kernel (PR_SET_PDEATHSIG) where the launcher is killed,
 * and then the keeper, a small process that knows the groups and outlives the launcher just long
 * enough to kill them. */
#include "perf/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

#define GRACE_NS 500000000u    /* for ranks to see that another has failed, say so, and end */
#define REFUSAL_NS 3000000000u /* where one may be about to end with a status that wins */
#define KILL_NS 2000000000u    /* from TERM, or the signal that was passed on, to KILL */

enum { RUNNING, ENDED };

typedef struct crew {
    const cinch_launch *launch;
    pid_t *pid;           /* [ranks]; 0: not started */
    char *state;          /* [ranks] */
    unsigned char *board; /* [ranks] for the ranks: 1: it has ended; NULL: not asked for */
    int board_fd;         /* or -1 */
    int well;             /* ranks that ended with 0 */
    int running;
    int status; /* of the first that failed */
    int signalled;
    uint64_t term_ns; /* when survivors get TERM; 0: not yet decided */
    uint64_t kill_ns;
    pid_t keeper;
    int keeper_fd; /* where it hears of the ranks' pids, then a 0 when all is over */
    sigset_t waited, before;
} crew;

/* Reads pids until the launcher is gone, then kills the groups, unless the last word was 0. */
static void keeper_main(int fd, int ranks) {
    pid_t *group = calloc((size_t)ranks, sizeof *group), pid;
    int n = 0, null = open("/dev/null", O_RDWR);
    for (int i = 0; i < 3; i++) dup2(null, i); /* whoever reads our pipes need not wait for this */
    while (group && read(fd, &pid, sizeof pid) == (ssize_t)sizeof pid) {
        if (pid == 0) _exit(0);
        if (n < ranks) group[n++] = pid;
    }
    for (int i = 0; i < n; i++) kill(-group[i], SIGKILL);
    _exit(0);
}

static bool keeper_start(crew *c) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return false;
    c->keeper = fork();
    if (c->keeper == 0) {
        setpgid(0, 0); /* away from the terminal's signals */
        close(ends[1]);
        keeper_main(ends[0], c->launch->ranks);
    }
    close(ends[0]);
    if (c->keeper < 0) close(ends[1]);
    c->keeper_fd = ends[1];
    return c->keeper > 0;
}

/* Should somebody have killed the keeper, we do without: no SIGPIPE. */
static void tell_keeper(const crew *c, pid_t pid) {
    send(c->keeper_fd, &pid, sizeof pid, MSG_NOSIGNAL);
}

static void keeper_dismiss(crew *c) {
    if (c->keeper <= 0) return;
    tell_keeper(c, 0);
    close(c->keeper_fd);
    while (waitpid(c->keeper, NULL, 0) < 0 && errno == EINTR) continue;
}

/* The rank-th of the CPUs that this process may use. */
static void bind_to_cpu(int rank, int ranks) {
    cpu_set_t all, one;
    if (sched_getaffinity(0, sizeof all, &all) != 0 || CPU_COUNT(&all) < ranks) return;
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && rank-- == 0) CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
}

/* In the child: becomes the rank's program, or reports errno and ends. */
static void rank_main(const crew *c, int rank, pid_t launcher, int report) {
    const cinch_launch *l = c->launch;
    char number[16];
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != launcher) _exit(1); /* it died before the line above */
    tell_keeper(c, getpid());
    /* A process outside the terminal's own group would be stopped for reading from it. */
    if (rank != 0 || isatty(STDIN_FILENO)) {
        int null = open("/dev/null", O_RDONLY);
        if (null >= 0) dup2(null, STDIN_FILENO);
        if (null > STDIN_FILENO) close(null);
    }
    if (l->bind) bind_to_cpu(rank, l->ranks);
    for (int i = 0; i < l->nset; i++) putenv(l->set[i]);
    snprintf(number, sizeof number, "%d", rank);
    setenv("CINCH_RANK", number, 1);
    snprintf(number, sizeof number, "%d", l->ranks);
    setenv("CINCH_SIZE", number, 1);
    snprintf(number, sizeof number, "%d", c->board_fd);
    if (c->board) setenv(CINCH_LAUNCH_BOARD, number, 1);
    sigprocmask(SIG_SETMASK, &c->before, NULL);
    if (l->file)
        execv(l->file, l->argv);
    else
        execvp(l->argv[0], l->argv);
    int err = errno;
    if (write(report, &err, sizeof err) < 0) _exit(126);
    _exit(err == ENOENT ? 127 : 126);
}

/* Starts one rank; 0, or an exit status after a sentence. The pipe closes by itself at exec, and
 * carries errno where that fails. */
static int rank_start(crew *c, int rank) {
    const cinch_launch *l = c->launch;
    int ends[2], err = 0;
    pid_t launcher = getpid(), pid = -1;
    if (pipe2(ends, O_CLOEXEC) == 0) {
        pid = fork();
        if (pid == 0) rank_main(c, rank, launcher, ends[1]);
        err = errno;
        close(ends[1]);
        if (pid > 0) {
            setpgid(pid, pid); /* here too: whoever of the two comes first */
            c->pid[rank] = pid;
            c->running++;
            ssize_t got;
            while ((got = read(ends[0], &err, sizeof err)) < 0 && errno == EINTR) continue;
            if (got != (ssize_t)sizeof err) err = 0;
        }
        close(ends[0]);
    } else {
        err = errno;
    }
    if (pid < 0) {
        fprintf(stderr, "%s: cannot start rank %d: %s\n", l->name, rank, strerror(err));
        return 1;
    }
    if (err == 0) return 0;
    fprintf(stderr, "%s: cannot execute \"%s\": %s\n", l->name, l->argv[0], strerror(err));
    return err == ENOENT ? 127 : 126;
}

static void signal_all(crew *c, int sig) {
    for (int r = 0; r < c->launch->ranks; r++)
        if (c->pid[r] > 0) kill(-c->pid[r], sig);
}

/* Notes who has ended. The dead stay zombies until the end: that keeps their group's number from
 * being given to somebody else while we may still signal it. */
static void look(crew *c) {
    for (int r = 0; r < c->launch->ranks; r++) {
        siginfo_t info = {0};
        if (c->state[r] != RUNNING || c->pid[r] <= 0) continue;
        if (waitid(P_PID, (id_t)c->pid[r], &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
            info.si_pid == 0)
            continue;
        c->state[r] = ENDED;
        c->running--;
        if (c->board) __atomic_store_n(&c->board[r], 1, __ATOMIC_RELEASE);
        int status = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
        const bool killed = info.si_code != CLD_EXITED;
        /* Where the others go on without who was killed, it is what they say that counts. */
        if (c->board && !killed && status && c->status > 128) c->status = status;
        if (status && !c->status) {
            c->status = status;
            if (killed && !c->signalled && !c->kill_ns)
                fprintf(stderr, "%s: rank %d was killed by signal %d (%s)\n", c->launch->name, r,
                        info.si_status, strsignal(info.si_status));
        }
        if (c->launch->refused && !killed && status == 2 && c->status == 1) c->status = 2;
        if (!status) c->well++;
        if (c->board && killed) continue;
        if (status && !c->term_ns && !c->kill_ns)
            c->term_ns = cinch_now_ns() + (c->launch->refused ? REFUSAL_NS : GRACE_NS);
    }
}

static void act_on_deadlines(crew *c) {
    uint64_t now = cinch_now_ns();
    if (c->term_ns && now >= c->term_ns && !c->kill_ns) {
        signal_all(c, SIGTERM);
        c->kill_ns = now + KILL_NS;
    }
    if (c->kill_ns && now >= c->kill_ns) {
        signal_all(c, SIGKILL);
        c->kill_ns = now + KILL_NS; /* once more, should something have been started meanwhile */
    }
}

static void wait_all(crew *c) {
    for (look(c); c->running; look(c)) {
        act_on_deadlines(c);
        uint64_t until = c->kill_ns ? c->kill_ns : c->term_ns, now = cinch_now_ns();
        uint64_t ns = !until ? 3600000000000u : until > now ? until - now : 0;
        struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
        int sig = sigtimedwait(&c->waited, NULL, &t);
        if (sig <= 0 || sig == SIGCHLD) continue;
        c->signalled = sig;
        signal_all(c, sig);
        if (!c->kill_ns) c->kill_ns = cinch_now_ns() + KILL_NS;
    }
    if (c->status || c->signalled) signal_all(c, SIGKILL); /* what the ranks have left behind */
    for (int r = 0; r < c->launch->ranks; r++)
        if (c->pid[r] > 0)
            while (waitpid(c->pid[r], NULL, 0) < 0 && errno == EINTR) continue;
}

/* Signals are taken by sigtimedwait, one by one. Those that were ignored (nohup) stay so. */
static void signals_block(crew *c) {
    static const int passed_on[] = {SIGINT, SIGTERM, SIGHUP};
    sigemptyset(&c->waited);
    sigaddset(&c->waited, SIGCHLD);
    for (int i = 0; i < 3; i++) {
        struct sigaction old;
        if (sigaction(passed_on[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaddset(&c->waited, passed_on[i]);
    }
    signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_BLOCK, &c->waited, &c->before);
}

/* Port 0 says: this host only; the ranks find each other by the secret. */
static bool set_comm_id(void) {
    unsigned char secret[32];
    char text[96], *t = text;
    if (getrandom(secret, sizeof secret, 0) != (ssize_t)sizeof secret) return false;
    t += sprintf(t, "127.0.0.1:0#");
    for (size_t i = 0; i < sizeof secret; i++) t += sprintf(t, "%02x", secret[i]);
    return setenv("CINCH_COMM_ID", text, 1) == 0;
}

/* Where ranks see who has ended; they inherit the descriptor. */
static bool board_make(crew *c) {
    const size_t bytes = (size_t)c->launch->ranks;
    if (!c->launch->survive) return true;
    c->board_fd = memfd_create("cinch-ranks", 0);
    if (c->board_fd < 0 || ftruncate(c->board_fd, (off_t)bytes) != 0) return false;
    void *board = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, c->board_fd, 0);
    if (board != MAP_FAILED) c->board = board;
    return c->board != NULL;
}

static void board_free(crew *c) {
    if (c->board) munmap(c->board, (size_t)c->launch->ranks);
    if (c->board_fd >= 0) close(c->board_fd);
    /* Those that a signal killed were not needed. */
    if (c->board && c->well && c->status > 128) c->status = 0;
}

int cinch_launch_run(const cinch_launch *launch, int *signalled) {
    crew c = {.launch = launch, .board_fd = -1};
    *signalled = 0;
    c.pid = calloc((size_t)launch->ranks, sizeof *c.pid);
    c.state = calloc((size_t)launch->ranks, sizeof *c.state);
    fflush(NULL); /* what stands in buffers would be written by every child */
    signals_block(&c);
    if (!c.pid || !c.state || !set_comm_id() || !board_make(&c) || !keeper_start(&c)) {
        fprintf(stderr, "%s: cannot start ranks: %s\n", launch->name, strerror(errno));
        c.status = 1;
    }
    int failed = c.status;
    for (int r = 0; r < launch->ranks && !failed; r++) failed = rank_start(&c, r);
    if (failed) {
        c.status = failed;
        c.kill_ns = 1; /* at once: the job cannot be */
    }
    if (c.pid && c.state) wait_all(&c);
    keeper_dismiss(&c);
    board_free(&c);
    sigprocmask(SIG_SETMASK, &c.before, NULL);
    free(c.pid);
    free(c.state);
    *signalled = c.signalled;
    if (!c.status && c.signalled) return 128 + c.signalled;
    return c.status;
}
