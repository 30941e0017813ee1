/* SPDX-License-Identifier: Apache-2.0 */
/* A libucp.so.0 that has the version in FAKE_UCP_VERSION, and nothing else. */
#include <stdio.h>
#include <stdlib.h>

__attribute__((visibility("default"))) void ucp_get_version(unsigned *major, unsigned *minor,
                                                            unsigned *release);

void ucp_get_version(unsigned *major, unsigned *minor, unsigned *release) {
    const char *text = getenv("FAKE_UCP_VERSION");
    *major = *minor = *release = 0;
    if (text) sscanf(text, "%u.%u", major, minor);
}
