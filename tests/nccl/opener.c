/* SPDX-License-Identifier: Apache-2.0 */
/* Opens a library that holds a program and runs that, as an interpreter loads its modules:
 * opener LIBRARY ARGUMENTS... */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
    int (*run)(int, char **) = NULL;
    void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (library) *(void **)&run = dlsym(library, "main");
    if (run) return run(argc - 1, argv + 1);
    const char *why = dlerror();
    fprintf(stderr, "opener: %s\n", why ? why : "no library");
    return 1;
}
