/* SPDX-License-Identifier: Apache-2.0 */
/* Namespaces, children, leftovers. */
#include "tests/chaos/stage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/harness.h"

static bool isolated;

/* ---- a place of its own ---- */

static bool write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0) close(fd);
    return done;
}

static bool loopback_up(void) {
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool done = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &lo) == 0;
    if (fd >= 0) close(fd);
    return done;
}

static bool make_path(char *path) {
    for (char *at = strchr(path + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = '\0';
        bool there = mkdir(path, 0700) == 0 || errno == EEXIST;
        *at = '/';
        if (!there) return false;
    }
    return mkdir(path, 0700) == 0 || errno == EEXIST;
}

/* An empty /tmp, in which the folder of this program stays where it is: sanitizers read it. */
static bool empty_tmp(void) {
    char self[4096], from[64];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0) return false;
    self[length] = '\0';
    *strrchr(self, '/') = '\0';
    int folder = open(self, O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool done = folder >= 0 && mount("none", "/tmp", "tmpfs", 0, "size=512m") == 0;
    if (done && strncmp(self, "/tmp/", 5) == 0) {
        snprintf(from, sizeof from, "/proc/self/fd/%d", folder);
        done = make_path(self) && mount(from, self, NULL, MS_BIND, NULL) == 0;
    }
    if (folder >= 0) close(folder);
    return done;
}

bool stage_isolate(void) {
    char map[64];
    unsigned uid = (unsigned)getuid(), gid = (unsigned)getgid();
    if (unshare(CLONE_NEWNS | CLONE_NEWNET) != 0) {
        if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET) != 0) return false;
        snprintf(map, sizeof map, "%u %u 1", uid, uid);
        if (!write_file("/proc/self/uid_map", map)) return false;
        write_file("/proc/self/setgroups", "deny");
        snprintf(map, sizeof map, "%u %u 1", gid, gid);
        write_file("/proc/self/gid_map", map);
    }
    if (!loopback_up() || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return false;
    isolated = mount("none", "/dev/shm", "tmpfs", 0, "size=512m") == 0 && empty_tmp();
    return isolated;
}

/* ---- leftovers ---- */

static int look(const char *folder, const char *passes, char *names, size_t room) {
    int count = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *one; dir && (one = readdir(dir));) {
        if (one->d_name[0] == '.' && (!one->d_name[1] || one->d_name[1] == '.')) continue;
        if (!isolated && !strstr(one->d_name, "cinch")) continue;
        if (strncmp(one->d_name, "cinch-test-", 11) == 0) continue; /* logs of tests */
        if (passes && strcmp(one->d_name, passes) == 0) continue;
        size_t used = strlen(names);
        snprintf(names + used, room - used, " %s/%s", folder, one->d_name);
        count++;
    }
    if (dir) closedir(dir);
    return count;
}

/* Abstract names of this machine's meeting points; only in a network of our own are they ours. */
static int look_at_sockets(char *names, size_t room) {
    char line[512];
    int count = 0;
    FILE *file = isolated ? fopen("/proc/net/unix", "re") : NULL;
    while (file && fgets(line, sizeof line, file)) {
        const char *name = strstr(line, "@cinch-");
        if (!name) continue;
        size_t used = strlen(names);
        snprintf(names + used, room - used, " %.*s", (int)strcspn(name, "\n"), name);
        count++;
    }
    if (file) fclose(file);
    return count;
}

int stage_leftovers(char *names, size_t room) {
    char self[4096] = "", *first = NULL;
    names[0] = '\0';
    if (isolated && readlink("/proc/self/exe", self, sizeof self - 1) > 5 &&
        strncmp(self, "/tmp/", 5) == 0) {
        first = self + 5;
        first[strcspn(first, "/")] = '\0';
    }
    return look("/dev/shm", NULL, names, room) + look("/tmp", first, names, room) +
           look_at_sockets(names, room);
}

/* ---- options and children ---- */

const char *stage_option(int argc, char **argv, const char *name, const char *otherwise) {
    for (int i = 1; i + 1 < argc; i++)
        if (strncmp(argv[i], "--", 2) == 0 && strcmp(argv[i] + 2, name) == 0) return argv[i + 1];
    return otherwise;
}

uint64_t stage_number(int argc, char **argv, const char *name, uint64_t otherwise) {
    const char *text = stage_option(argc, argv, name, NULL);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

pid_t stage_fork(void) {
    pid_t parent = getpid();
    fflush(NULL);
    pid_t pid = fork();
    if (pid != 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    return 0;
}

bool stage_await(pid_t pid, uint64_t deadline_ms, int *status) {
    for (;;) {
        pid_t ended = waitpid(pid, status, WNOHANG);
        if (ended == pid) return true;
        if (ended < 0 && errno != EINTR) return false;
        if (now_ms() >= deadline_ms) return false;
        sleep_ms(1);
    }
}

void *stage_memory(size_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at != MAP_FAILED) return at;
    perror("mmap");
    exit(1);
}

/* Of the sanitizers' allocators; absent where there is none. */
size_t allocated_bytes(void) __asm__("__sanitizer_get_current_allocated_bytes")
    __attribute__((weak));

stage_bytes stage_bytes_now(void) {
    char line[512];
    unsigned long from, to;
    stage_bytes now = {.sanitized = allocated_bytes != NULL};
    struct mallinfo2 info = mallinfo2();
    now.heap = now.sanitized ? allocated_bytes() : info.uordblks + info.hblkhd;
    FILE *file = fopen("/proc/self/maps", "re");
    while (file && fgets(line, sizeof line, file))
        if (strstr(line, "/memfd:cinch-") && sscanf(line, "%lx-%lx", &from, &to) == 2)
            now.mapped += to - from;
    if (file) fclose(file);
    return now;
}

bool stage_names(const char *sentence, int rank) {
    char word[20];
    int length = snprintf(word, sizeof word, "rank %d", rank);
    for (const char *at = strstr(sentence, word); at; at = strstr(at + 1, word))
        if (at[length] < '0' || at[length] > '9') return true;
    return false;
}

void stage_tell_threads(pid_t pid) {
    char path[300], text[200];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    for (struct dirent *one; dir && (one = readdir(dir));) {
        if (one->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/%d/task/%s/syscall", (int)pid, one->d_name);
        FILE *file = fopen(path, "re");
        if (file && fgets(text, sizeof text, file))
            printf("    process %d, thread %s: system call %s", (int)pid, one->d_name, text);
        if (file) fclose(file);
    }
    if (dir) closedir(dir);
}
