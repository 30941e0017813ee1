/* SPDX-License-Identifier: Apache-2.0 */
/* C and C++: two ranks in one process add their numbers with an installed cinch. */
#ifdef FLAT
#include <cinch.h>
#else
#include <cinch/cinch.h>
#endif

#include <cinch/codec.h>
#include <stdio.h>

#define TRY(call)                                                                                  \
    do {                                                                                           \
        if ((call) != cinchSuccess) {                                                              \
            fprintf(stderr, "%s: %s\n", #call, cinchGetLastError(NULL));                           \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

int main(void) {
    enum { COUNT = 1000 };
    static float in[2][COUNT], out[2][COUNT];
    cinchComm_t comm[2];
    int version;
    for (int i = 0; i < COUNT; i++) {
        in[0][i] = (float)i;
        in[1][i] = 0.5f;
    }
    TRY(cinchGetVersion(&version));
    TRY(cinchCommInitAll(comm, 2, NULL));
    TRY(cinchGroupStart());
    for (int rank = 0; rank < 2; rank++)
        TRY(cinchAllReduce(in[rank], out[rank], COUNT, cinchFloat, cinchSum, comm[rank], NULL));
    TRY(cinchGroupEnd());
    for (int rank = 0; rank < 2; rank++) {
        TRY(cinchCommDestroy(comm[rank]));
        for (int i = 0; i < COUNT; i++)
            if (out[rank][i] != (float)i + 0.5f) {
                fprintf(stderr, "rank %d has %g at %d\n", rank, (double)out[rank][i], i);
                return 1;
            }
    }
    printf("two ranks agree, interface %d, codec interface %d\n", version, CINCH_CODEC_ABI);
    return version == CINCH_VERSION_CODE ? 0 : 1;
}
