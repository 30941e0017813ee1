/* SPDX-License-Identifier: Apache-2.0 */
/* Finds and loads the real libnccl.so.2. */
#include "coll/nccl/find.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/settings.h"

#define SONAME "libnccl.so.2"
#define MARK "cinchNcclDropin"

/* What a search has come by. */
typedef struct search {
    cinch_nccl_library *out;
    dev_t own_device; /* the file that this code is in */
    ino_t own_file;
    const void *own_base; /* where that lies in memory */
    char loaded[4096];    /* a library of that name which the process has already */
    int needed_by;        /* loaded objects that want the library */
    char *folders;        /* of those, each with its NUL */
    size_t used;
    char not_taken[160], reason[192]; /* the first candidate that is no good, and why */
} search;

/* Keeps why a candidate is not taken; the first says most. */
static bool refuse(search *s, const char *path, const char *reason) {
    if (!s->reason[0]) {
        snprintf(s->not_taken, sizeof s->not_taken, "%s", path);
        snprintf(s->reason, sizeof s->reason, "%s", reason);
    }
    return false;
}

/* Whether the file is a library that this process could load. */
static bool fits(search *s, const char *path) {
    unsigned char ours[EI_NIDENT + 4], theirs[EI_NIDENT + 4];
    Dl_info self;
    if (!dladdr((void *)(uintptr_t)cinch_nccl_load, &self) || !self.dli_fbase) return true;
    memcpy(ours, self.dli_fbase, sizeof ours); /* an ELF image begins with its header */
    FILE *f = fopen(path, "re");
    if (!f) return refuse(s, path, strerror(errno));
    bool whole = fread(theirs, sizeof theirs, 1, f) == 1;
    fclose(f);
    /* Up to the byte order, and e_machine; the ABI byte differs without meaning. */
    if (!whole || memcmp(ours, theirs, EI_VERSION) != 0 ||
        memcmp(ours + EI_NIDENT + 2, theirs + EI_NIDENT + 2, 2) != 0)
        return refuse(s, path, "no library for this processor");
    return true;
}

/* Whether somebody has put a malloc before libc's: an allocator, or a sanitizer. */
static bool malloc_is_replaced(void) {
    void *libc = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
    if (!libc) return true;
    bool replaced = dlsym(RTLD_DEFAULT, "malloc") != dlsym(libc, "malloc");
    dlclose(libc);
    return replaced;
}

/* Loads the library so that it sees its own names first, and nobody else sees them: then its calls
 * of itself do not come back to the drop-in. It would see libc's free before another one, too, and
 * hand it what libc's strdup has from the other malloc: there its calls may come back, which costs
 * a jump. */
static void *load(const char *path) {
    int flags = RTLD_NOW | RTLD_LOCAL;
#ifdef RTLD_DEEPBIND
    if (!malloc_is_replaced()) flags |= RTLD_DEEPBIND;
#endif
    return dlopen(path, flags);
}

static bool take(search *s, const char *path) {
    struct stat file;
    cinch_nccl_library *out = s->out;
    cinchResult_t (*get_version)(int *);
    if (stat(path, &file) != 0) {
        if (errno != ENOENT && errno != ENOTDIR) refuse(s, path, strerror(errno));
        return false;
    }
    if (file.st_dev == s->own_device && file.st_ino == s->own_file)
        return refuse(s, path, "the drop-in itself");
    if (!S_ISREG(file.st_mode)) return refuse(s, path, "no file");
    if (!fits(s, path)) return false;
    void *handle = load(path);
    if (!handle) {
        const char *reason = dlerror();
        return refuse(s, path, reason ? reason : "cannot be loaded");
    }
    if (dlsym(handle, MARK)) {
        dlclose(handle);
        return refuse(s, path, "another drop-in of cinch");
    }
    *(void **)&get_version = dlsym(handle, "ncclGetVersion");
    if (!get_version) {
        dlclose(handle);
        return refuse(s, path, "it has no ncclGetVersion");
    }
    if (get_version(&out->version) != cinchSuccess) out->version = 0;
    snprintf(out->path, sizeof out->path, "%s", path);
    out->handle = handle;
    return true;
}

static bool take_in(search *s, const char *folder) {
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/" SONAME, folder[0] ? folder : ".");
    return length > 0 && (size_t)length < sizeof path && take(s, path);
}

/* The folder of a loaded object, which its paths call $ORIGIN. */
static bool origin_of(const char *object, char *folder, size_t room) {
    if (object[0]) {
        snprintf(folder, room, "%s", object);
    } else { /* the program */
        ssize_t length = readlink("/proc/self/exe", folder, room - 1);
        if (length <= 0) return false;
        folder[length] = '\0';
    }
    char *slash = strrchr(folder, '/');
    if (slash) *slash = '\0';
    return slash != NULL;
}

static void keep_folder(search *s, const char *folder, size_t length) {
    char *more = realloc(s->folders, s->used + length + 1);
    if (!more) return;
    s->folders = more;
    memcpy(more + s->used, folder, length);
    more[s->used + length] = '\0';
    s->used += length + 1;
}

/* Keeps the folders of a list as in RPATH; those with other words than $ORIGIN are left out. */
static void keep_list(search *s, const char *list, const char *separators, const char *object) {
    char origin[4096], folder[4096];
    bool known = origin_of(object, origin, sizeof origin);
    for (; list && *list; list += strcspn(list, separators), list += *list != '\0') {
        size_t length = strcspn(list, separators);
        const char *dollar = memchr(list, '$', length);
        size_t word = 0;
        if (!dollar) {
            keep_folder(s, list, length);
            continue;
        }
        if (strncmp(dollar, "$ORIGIN", 7) == 0) word = 7;
        if (strncmp(dollar, "${ORIGIN}", 9) == 0) word = 9;
        const char *rest = dollar + word, *end = list + length;
        if (!word || !known || memchr(rest, '$', (size_t)(end - rest))) continue;
        int wrote = snprintf(folder, sizeof folder, "%.*s%s%.*s", (int)(dollar - list), list,
                             origin, (int)(end - rest), rest);
        if (wrote > 0 && (size_t)wrote < sizeof folder) keep_folder(s, folder, (size_t)wrote);
    }
}

/* What an object's dynamic section says. */
typedef struct dynamic {
    const char *rpath, *runpath;
    bool needs, is;
} dynamic;

static dynamic read_dynamic(const struct dl_phdr_info *info) {
    dynamic found = {NULL, NULL, false, false};
    const ElfW(Dyn) *first = NULL;
    uintptr_t strings = 0;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            first = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    for (const ElfW(Dyn) *d = first; d && d->d_tag != DT_NULL; d++)
        if (d->d_tag == DT_STRTAB) strings = (uintptr_t)d->d_un.d_ptr;
    if (!strings) return found;
    /* The loader has made an address of it, but not in objects that the kernel maps. */
    if (strings < info->dlpi_addr) strings += info->dlpi_addr;
    for (const ElfW(Dyn) *d = first; d->d_tag != DT_NULL; d++) {
        const char *text = (const char *)strings + d->d_un.d_val;
        if (d->d_tag == DT_NEEDED && strcmp(text, SONAME) == 0) found.needs = true;
        if (d->d_tag == DT_SONAME && strcmp(text, SONAME) == 0) found.is = true;
        if (d->d_tag == DT_RPATH) found.rpath = text;
        if (d->d_tag == DT_RUNPATH) found.runpath = text;
    }
    return found;
}

/* Libraries must not be loaded in here: only notes where to look. */
static int note_object(struct dl_phdr_info *info, size_t size, void *arg) {
    (void)size;
    search *s = arg;
    dynamic found = read_dynamic(info);
    bool own = (const void *)(uintptr_t)info->dlpi_addr == s->own_base;
    if (found.is && !own && !s->loaded[0])
        snprintf(s->loaded, sizeof s->loaded, "%s", info->dlpi_name);
    if (!found.needs) return 0;
    const char *library_path = cinch_environment("LD_LIBRARY_PATH");
    s->needed_by++;
    if (!found.runpath) keep_list(s, found.rpath, ":", info->dlpi_name);
    keep_list(s, library_path, ":;", info->dlpi_name);
    keep_list(s, found.runpath, ":", info->dlpi_name);
    return 0;
}

/* The program's RPATH serves what it loads, too, where that has no RUNPATH. */
static int note_program(struct dl_phdr_info *info, size_t size, void *arg) {
    (void)size;
    dynamic found = read_dynamic(info);
    if (!found.runpath) keep_list(arg, found.rpath, ":", info->dlpi_name);
    return 1; /* it is the first */
}

static bool take_noted(search *s) {
    bool done = false;
    for (size_t at = 0; at < s->used && !done; at += strlen(s->folders + at) + 1)
        done = take_in(s, s->folders + at);
    return done;
}

static bool take_cached(search *s) {
    bool done = false;
    struct stat file;
    FILE *f = fopen("/etc/ld.so.cache", "re");
    if (!f) return false;
    char *cache = NULL;
    if (fstat(fileno(f), &file) == 0 && file.st_size > 0) cache = malloc((size_t)file.st_size);
    size_t length = cache ? fread(cache, 1, (size_t)file.st_size, f) : 0, at = 0;
    fclose(f);
    for (const char *path; !done && (path = cinch_nccl_cached(cache, length, SONAME, &at));)
        done = take(s, path);
    free(cache);
    return done;
}

static bool take_default(search *s) {
    static const char *const folders[] = {
#if defined(__x86_64__)
        "/lib/x86_64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu",
#elif defined(__aarch64__)
        "/lib/aarch64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
#endif
        "/lib64",
        "/usr/lib64",
        "/lib",
        "/usr/lib",
    };
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        if (take_in(s, folders[i])) return true;
    return false;
}

static bool take_chosen(search *s, const char *chosen, char why[CINCH_ERROR_TEXT]) {
    struct stat file;
    bool folder = stat(chosen, &file) == 0 && S_ISDIR(file.st_mode);
    if (folder ? take_in(s, chosen) : take(s, chosen)) return true;
    const char *reason = s->reason[0] ? s->reason : folder ? "no " SONAME " in it" : "no such file";
    snprintf(why, CINCH_ERROR_TEXT,
             "CINCH_NCCL_PATH=%.200s: %s; the real library or its folder is accepted", chosen,
             reason);
    return false;
}

/* The places in a sentence. */
static void say_where(const search *s, char why[CINCH_ERROR_TEXT]) {
    char folders[160] = "";
    for (size_t at = 0, used = 0; at < s->used && used + 8 < sizeof folders;) {
        used += (size_t)snprintf(folders + used, sizeof folders - used, "%s%s", used ? ":" : "",
                                 s->folders + at);
        at += strlen(s->folders + at) + 1;
        if (used >= sizeof folders) memcpy(folders + sizeof folders - 4, "...", 4);
    }
    int length = snprintf(why, CINCH_ERROR_TEXT,
                          "no real " SONAME ": not in the folders of the %d loaded objects that "
                          "need it and of LD_LIBRARY_PATH (%s), the loader's cache or the system's "
                          "folders; CINCH_NCCL_PATH says where it is",
                          s->needed_by, folders);
    if (s->reason[0] && length > 0 && length < CINCH_ERROR_TEXT)
        snprintf(why + length, CINCH_ERROR_TEXT - (size_t)length, "; %.80s: %.60s", s->not_taken,
                 s->reason);
}

bool cinch_nccl_load(const char *chosen, cinch_nccl_library *out, char why[CINCH_ERROR_TEXT]) {
    search s = {.out = out};
    Dl_info self;
    struct stat file;
    memset(out, 0, sizeof *out);
    if (dladdr((void *)(uintptr_t)cinch_nccl_load, &self) && stat(self.dli_fname, &file) == 0) {
        s.own_device = file.st_dev;
        s.own_file = file.st_ino;
        s.own_base = self.dli_fbase;
    }
    if (chosen[0]) return take_chosen(&s, chosen, why);
    dl_iterate_phdr(note_object, &s);
    dl_iterate_phdr(note_program, &s);
    keep_list(&s, cinch_environment("LD_LIBRARY_PATH"), ":;", "");
    bool done = (s.loaded[0] && take(&s, s.loaded)) || take_noted(&s) || take_cached(&s) ||
                take_default(&s);
    if (!done) say_where(&s, why);
    free(s.folders);
    return done;
}

void cinch_nccl_version_text(int version, char *text, size_t room) {
    int major = version < 10000 ? 1000 : 10000; /* 2.8 and older have one digit less */
    snprintf(text, room, "%d.%d.%d", version / major, version % major / 100, version % 100);
}
