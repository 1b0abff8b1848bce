/* What the C programs of the tests share. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Says what does not hold, with what the library knows about it, and ends the program. */
#define CHECK(holds)                                                                                                   \
    do {                                                                                                               \
        if (!(holds)) {                                                                                                \
            const char *last = stillpoint_last_error();                                                                \
            fprintf(stderr, "%s:%d: %s does not hold; last error: %s\n", __FILE__, __LINE__, #holds,                   \
                    last ? last : "none");                                                                             \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* The text of the last call, which failed, has that in it. */
#define CHECK_SAYS(part)                                                                                               \
    do {                                                                                                               \
        CHECK(stillpoint_last_error() != NULL);                                                                        \
        CHECK(strstr(stillpoint_last_error(), part) != NULL);                                                          \
    } while (0)

/* The Error object is there and has that in its text; frees it. */
#define CHECK_ERROR(error, part)                                                                                       \
    do {                                                                                                               \
        CHECK((error) != NULL);                                                                                        \
        if (strstr(error_get_pretty(error), part) == NULL) {                                                           \
            fprintf(stderr, "%s:%d: not %s: %s\n", __FILE__, __LINE__, part, error_get_pretty(error));                 \
            exit(1);                                                                                                   \
        }                                                                                                              \
        error_free(error);                                                                                             \
        (error) = NULL;                                                                                                \
    } while (0)

#endif
