/*
 * Error objects, where code of QEMU's looks for them and under QEMU's names, in every release. Texts are as of printf.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef STILLPOINT_QAPI_ERROR_H
#define STILLPOINT_QAPI_ERROR_H

#include "../../block-snapshot.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __GNUC__
#define STILLPOINT_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define STILLPOINT_PRINTF(text, first)
#endif

/* As errp: an error that is put there aborts the program, or ends it with exit code 1. */
#define error_abort stillpoint_error_abort
#define error_fatal stillpoint_error_fatal

/* A text, which the caller frees; NULL without memory for it. */
STILLPOINT_PRINTF(1, 0)
static inline char *stillpoint_text(const char *text, va_list values)
{
    va_list again;
    va_copy(again, values);
    const int length = vsnprintf(NULL, 0, text, again);
    va_end(again);
    char *made = length < 0 ? NULL : (char *)malloc((size_t)length + 1);
    if (made != NULL) {
        vsnprintf(made, (size_t)length + 1, text, values);
    }
    return made;
}

/* Takes the object to *errp, which keeps the first that came; for a NULL errp it is freed. */
static inline void error_propagate(Error **errp, Error *error)
{
    stillpoint_error_propagate(errp, error);
}

/* A new object in *errp. */
STILLPOINT_PRINTF(2, 3)
static inline void error_setg(Error **errp, const char *text, ...)
{
    va_list values;
    va_start(values, text);
    char *made = stillpoint_text(text, values);
    va_end(values);
    stillpoint_error_propagate(errp, stillpoint_error_new(0, made));
    free(made);
}

/* The same, with what the number means behind the text. */
STILLPOINT_PRINTF(3, 4)
static inline void error_setg_errno(Error **errp, int os_errno, const char *text, ...)
{
    va_list values;
    va_start(values, text);
    char *made = stillpoint_text(text, values);
    va_end(values);
    Error *error = stillpoint_error_new(0, os_errno == 0 ? "" : strerror(os_errno < 0 ? -os_errno : os_errno));
    stillpoint_error_prepend(error, os_errno == 0 ? "" : ": ");
    stillpoint_error_prepend(error, made);
    stillpoint_error_propagate(errp, error);
    free(made);
}

/* A text before that of the object in *errp, if there is one. */
STILLPOINT_PRINTF(2, 3)
static inline void error_prepend(Error **errp, const char *text, ...)
{
    va_list values;
    va_start(values, text);
    char *made = stillpoint_text(text, values);
    va_end(values);
    if (errp != NULL) {
        stillpoint_error_prepend(*errp, made);
    }
    free(made);
}

/* More about what can be done. */
STILLPOINT_PRINTF(2, 3)
static inline void error_append_hint(Error **errp, const char *text, ...)
{
    va_list values;
    va_start(values, text);
    char *made = stillpoint_text(text, values);
    va_end(values);
    if (errp != NULL) {
        stillpoint_error_append_hint(*errp, made);
    }
    free(made);
}

/* A copy, which the caller frees. */
static inline Error *error_copy(const Error *error)
{
    return stillpoint_error_copy(error);
}

/* Writes the object's text, and what can be done, to standard error, and frees it. */
static inline void error_report_err(Error *error)
{
    stillpoint_error_report(error);
}

/* There must be an object in *errp: it is freed. Else the program is aborted. */
static inline void error_free_or_abort(Error **errp)
{
    if (errp == NULL || *errp == NULL) {
        abort();
    }
    stillpoint_error_free(*errp);
    *errp = NULL;
}

#endif
