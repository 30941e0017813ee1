/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoint files of `cinch train`: what is written is read, what is damaged or foreign is refused
 * in one sentence, and a writer that is killed at any moment leaves whole files only. */
#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "perf/train_checkpoint.h"

enum { STATE = 4096, FEEDBACK = 1000 };
static char folder[64];
static unsigned char state[STATE], feedback[FEEDBACK];

static void make_folder(void) {
    snprintf(folder, sizeof folder, "/tmp/cinch-checkpoint-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    cinch_log_setup(CINCH_LOG_NONE, NULL);
}

static void remove_folder(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

static cinch_checkpoint_head head_at(uint64_t position) {
    cinch_checkpoint_head head = {.state_bytes = STATE,
                                  .feedback_bytes = FEEDBACK,
                                  .position = position,
                                  .history = 77,
                                  .ranks = 4,
                                  .rank = 2,
                                  .seed = 5,
                                  .steps = 100,
                                  .text_bytes = 20000,
                                  .text_hash = 0xfeed};
    strcpy(head.model, "width 128");
    strcpy(head.codecs, "none,int8");
    return head;
}

static void fill(uint64_t position) {
    for (size_t i = 0; i < STATE; i++) state[i] = (unsigned char)(i * 7 + position);
    for (size_t i = 0; i < FEEDBACK; i++) feedback[i] = (unsigned char)(i * 3 + position);
}

static void write_at(uint64_t position) {
    cinch_checkpoint_head head = head_at(position);
    fill(position);
    ck_assert_int_eq(cinch_checkpoint_write(folder, &head, state, feedback), cinchSuccess);
}

static void path_of(uint64_t position, char path[160]) {
    snprintf(path, 160, "%s/step-%010llu.rank-2-of-4.checkpoint", folder,
             (unsigned long long)position);
}

static cinchResult_t read_at(uint64_t position, cinch_checkpoint *checkpoint) {
    const cinch_checkpoint_head want = head_at(0);
    return cinch_checkpoint_read(folder, &want, position, checkpoint);
}

static void expect_whole(uint64_t position) {
    cinch_checkpoint c;
    ck_assert_msg(read_at(position, &c) == cinchSuccess, "%s", cinch_last_error());
    fill(position);
    ck_assert_uint_eq(c.head.history, 77);
    ck_assert_uint_eq(c.head.feedback_bytes, FEEDBACK);
    ck_assert_mem_eq(c.state, state, STATE);
    ck_assert_mem_eq(c.feedback, feedback, FEEDBACK);
    cinch_checkpoint_free(&c);
}

static void expect_refused(uint64_t position, const char *words) {
    cinch_checkpoint c;
    ck_assert_int_eq(read_at(position, &c), cinchInvalidUsage);
    ck_assert_ptr_null(c.memory);
    ck_assert_msg(strstr(cinch_last_error(), words) && strstr(cinch_last_error(), folder),
                  "\"%s\" is not in: %s", words, cinch_last_error());
}

static int files_there(void) {
    int count = 0;
    const struct dirent *entry;
    DIR *dir = opendir(folder);
    ck_assert_ptr_nonnull(dir);
    while ((entry = readdir(dir))) count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

/* ---- good ones ---- */

START_TEST(what_is_written_is_read) {
    cinch_checkpoint_list list;
    make_folder();
    for (uint64_t position = 10; position <= 60; position += 10) write_at(position);
    ck_assert_int_eq(cinch_checkpoint_find(folder, 2, 4, &list), cinchSuccess);
    ck_assert_int_eq(list.count, CINCH_CHECKPOINT_KEPT);
    for (int i = 0; i < list.count; i++) ck_assert_uint_eq(list.position[i], 60 - 10 * (uint64_t)i);
    ck_assert_uint_eq(list.others, 0);
    expect_whole(60);
    expect_whole(10);
    ck_assert_int_eq(cinch_checkpoint_find(folder, 2, 3, &list), cinchSuccess);
    ck_assert_int_eq(list.count, 0);
    ck_assert_uint_eq(list.others, 4);
    cinch_checkpoint_sweep(folder, 1, 4, 60); /* another rank's */
    ck_assert_int_eq(files_there(), 6);
    cinch_checkpoint_sweep(folder, 2, 4, 60);
    ck_assert_int_eq(files_there(), 1);
    cinch_checkpoint_sweep(folder, 2, 3, 59); /* of four ranks, and newer */
    ck_assert_int_eq(files_there(), 1);
    expect_whole(60);
    cinch_checkpoint_sweep(folder, 2, 3, 60);
    ck_assert_int_eq(files_there(), 0);
    remove_folder();
    ck_assert_int_eq(cinch_checkpoint_find(folder, 2, 4, &list), cinchSuccess);
    ck_assert_int_eq(list.count, 0);
}
END_TEST

/* ---- bad ones ---- */

static unsigned char *slurp(const char *path, size_t *bytes) {
    struct stat about;
    const int fd = open(path, O_RDONLY);
    ck_assert(fd >= 0 && fstat(fd, &about) == 0);
    unsigned char *data = malloc((size_t)about.st_size + 1);
    ck_assert_ptr_nonnull(data);
    *bytes = (size_t)about.st_size;
    ck_assert_int_eq(read(fd, data, *bytes), about.st_size);
    close(fd);
    return data;
}

static void spill(const char *path, const void *data, size_t bytes) {
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ck_assert(fd >= 0);
    ck_assert_int_eq(write(fd, data, bytes), (ssize_t)bytes);
    close(fd);
}

/* Each bit of the head, some behind it; each length up to the head, some behind it; bytes more. */
START_TEST(damage_is_refused) {
    char path[160];
    size_t bytes;
    make_folder();
    write_at(10);
    path_of(10, path);
    unsigned char *data = slurp(path, &bytes);
    const size_t head_bits = 8 * sizeof(cinch_checkpoint_head);
    for (size_t bit = 0; bit < 8 * bytes; bit += bit < head_bits ? 1 : 61) {
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        spill(path, data, bytes);
        expect_refused(10, "damaged");
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    for (size_t length = 0; length < bytes; length += length < 800 ? 1 : 97) {
        spill(path, data, length);
        expect_refused(10, "damaged");
    }
    unsigned char *longer = calloc(bytes + 100, 1);
    ck_assert_ptr_nonnull(longer);
    memcpy(longer, data, bytes);
    spill(path, longer, bytes + 100);
    expect_refused(10, "damaged");
    spill(path, data, bytes);
    expect_whole(10);
    free(longer);
    free(data);
    remove_folder();
}
END_TEST

/* Every field of another job, with both values. */
START_TEST(another_job_is_refused) {
    static const struct {
        size_t offset;
        const char *words;
    } number[] = {
        {offsetof(cinch_checkpoint_head, seed), "has 5 as its seed, and this run has 9"},
        {offsetof(cinch_checkpoint_head, steps), "has 100 steps a run, and this run has 9"},
        {offsetof(cinch_checkpoint_head, text_bytes), "has 20000 bytes of text"},
        {offsetof(cinch_checkpoint_head, text_hash), "text's hash"},
        {offsetof(cinch_checkpoint_head, state_bytes), "has 4096 bytes of model"}};
    char path[160], other[160];
    cinch_checkpoint c;
    make_folder();
    write_at(10);
    for (size_t i = 0; i < sizeof number / sizeof *number; i++) {
        cinch_checkpoint_head want = head_at(0);
        memcpy((char *)&want + number[i].offset, &(uint64_t){9}, 8);
        ck_assert_int_eq(cinch_checkpoint_read(folder, &want, 10, &c), cinchInvalidUsage);
        ck_assert_msg(strstr(cinch_last_error(), number[i].words) != NULL, "%s",
                      cinch_last_error());
    }
    cinch_checkpoint_head want = head_at(0);
    strcpy(want.codecs, "topk");
    ck_assert_int_eq(cinch_checkpoint_read(folder, &want, 10, &c), cinchInvalidUsage);
    ck_assert(strstr(cinch_last_error(), "\"none,int8\"") &&
              strstr(cinch_last_error(), "\"topk\""));
    want = head_at(0);
    strcpy(want.model, "width 64");
    ck_assert_int_eq(cinch_checkpoint_read(folder, &want, 10, &c), cinchInvalidUsage);
    ck_assert(strstr(cinch_last_error(), "\"width 128\"") != NULL);
    /* Under another position's or rank's name. */
    path_of(10, path);
    path_of(20, other);
    ck_assert_int_eq(rename(path, other), 0);
    expect_refused(20, "has 10 as its position, and this run has 20");
    snprintf(path, sizeof path, "%s/step-0000000020.rank-3-of-4.checkpoint", folder);
    ck_assert_int_eq(rename(other, path), 0);
    want = head_at(0);
    want.rank = 3;
    ck_assert_int_eq(cinch_checkpoint_read(folder, &want, 20, &c), cinchInvalidUsage);
    ck_assert_msg(strstr(cinch_last_error(), "has 2 as its rank") != NULL, "%s",
                  cinch_last_error());
    remove_folder();
}
END_TEST

/* No file, and things that are no files, at once; names of others are no checkpoints. */
START_TEST(what_is_no_file_is_refused) {
    char path[160], target[160];
    cinch_checkpoint_list list;
    make_folder();
    expect_refused(10, "cannot be read: No such file");
    path_of(10, path);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    expect_refused(10, "cannot be read");
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    expect_refused(10, "cannot be read");
    ck_assert_int_eq(rmdir(path), 0);
    write_at(20);
    path_of(20, target);
    ck_assert_int_eq(symlink(target, path), 0);
    expect_refused(10, "cannot be read");
    ck_assert_int_eq(unlink(path), 0);
    static const char *const names[] = {"step-20.rank-2-of-4.checkpoint",
                                        "step-0000000030.rank-4-of-4.checkpoint",
                                        "step-0000000030.rank-2-of-0.checkpoint",
                                        "step-0000000030.rank-2-of-4.checkpoint.old",
                                        "step-99999999999999999999999.rank-2-of-4.checkpoint",
                                        "rank-2-of-4.unfinished"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        spill(path, "x", 1);
    }
    ck_assert_int_eq(cinch_checkpoint_find(folder, 2, 4, &list), cinchSuccess);
    ck_assert_int_eq(list.count, 1);
    ck_assert_uint_eq(list.position[0], 20);
    /* A working file that is a link of somebody else's is not written through. */
    snprintf(path, sizeof path, "%s/rank-2-of-4.unfinished", folder);
    snprintf(target, sizeof target, "%s/victim", folder);
    spill(target, "precious", 8);
    unlink(path);
    ck_assert_int_eq(symlink(target, path), 0);
    write_at(30);
    size_t bytes;
    unsigned char *data = slurp(target, &bytes);
    ck_assert_uint_eq(bytes, 8);
    free(data);
    remove_folder();
}
END_TEST

START_TEST(a_folder_that_takes_nothing_is_an_error) {
    cinch_checkpoint_head head = head_at(10);
    make_folder();
    remove_folder();
    spill(folder, "x", 1);
    ck_assert_int_eq(cinch_checkpoint_write(folder, &head, state, feedback), cinchSystemError);
    ck_assert(strstr(cinch_last_error(), folder) != NULL);
    unlink(folder);
    ck_assert_int_eq(cinch_checkpoint_write("/proc/none", &head, state, feedback),
                     cinchSystemError);
}
END_TEST

/* ---- a writer that is killed ---- */

START_TEST(a_killed_writer_leaves_whole_files) {
    volatile uint64_t *reported =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(reported != MAP_FAILED);
    make_folder();
    for (int round = 0; round < 60; round++) {
        const uint64_t first = *reported + 1;
        const pid_t pid = fork();
        ck_assert(pid >= 0);
        if (pid == 0) {
            for (uint64_t position = first;; position++) {
                cinch_checkpoint_head head = head_at(position);
                fill(position);
                if (cinch_checkpoint_write(folder, &head, state, feedback)) _exit(1);
                *reported = position;
                cinch_checkpoint_sweep(folder, 2, 4, position);
            }
        }
        const uint64_t until = cinch_now_ns() + (uint64_t)(200 + 173 * round) * 1000;
        while (cinch_now_ns() < until || *reported < first) usleep(50);
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
        cinch_checkpoint_list list;
        ck_assert_int_eq(cinch_checkpoint_find(folder, 2, 4, &list), cinchSuccess);
        ck_assert_int_ge(list.count, 1);
        ck_assert_uint_ge(list.position[0], *reported); /* what was reported is there */
        for (int i = 0; i < list.count; i++) expect_whole(list.position[i]);
        *reported = list.position[0];
    }
    remove_folder();
    munmap((void *)(uintptr_t)reported, 4096);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("checkpoint");
    TCase *one = tcase_create("files");
    tcase_set_timeout(one, 60);
    tcase_add_test(one, what_is_written_is_read);
    tcase_add_test(one, damage_is_refused);
    tcase_add_test(one, another_job_is_refused);
    tcase_add_test(one, what_is_no_file_is_refused);
    tcase_add_test(one, a_folder_that_takes_nothing_is_an_error);
    tcase_add_test(one, a_killed_writer_leaves_whole_files);
    suite_add_tcase(suite, one);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
