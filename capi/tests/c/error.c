/* Error objects under QEMU's names; with an argument, what ends the program. */
#include "qapi/error.h"

#include "check.h"

static void fail(Error **errp)
{
    Error *local = NULL;
    BlockDriverState *bs = stillpoint_find_node("disk");
    CHECK(bdrv_snapshot_goto(bs, "nix", &local) == -ENOENT && local != NULL);
    error_prepend(&local, "%s %d: ", "disk", 7);
    error_append_hint(&local, "Make '%s'", "nix");
    error_append_hint(&local, " first.");
    error_propagate(errp, local);
}

int main(int argc, char **argv)
{
    Error *error = NULL, *copy;
    CHECK(stillpoint_add_memory("disk", "", 0, &error) != NULL);
    if (argc > 1) {
        Error **end = strcmp(argv[1], "abort") == 0 ? &error_abort : &error_fatal;
        stillpoint_find_node("disk");
        stillpoint_add_memory("other", "", 0, end);
        fail(strcmp(argv[1], "direct") == 0 ? NULL : end);
        bdrv_snapshot_goto(stillpoint_find_node("disk"), "nix", end);
        puts("not ended");
        return 0;
    }
    fail(&error);
    CHECK(strcmp(error_get_pretty(error), "disk 7: Failed to load snapshot: No such file or directory") == 0);
    CHECK(strcmp(stillpoint_error_hint(error), "Make 'nix' first.") == 0);
    copy = error_copy(error);
    /* The first one stays. */
    error_setg(&error, "second");
    CHECK(strncmp(error_get_pretty(error), "disk 7: ", 8) == 0);
    error_free_or_abort(&error);
    CHECK(error == NULL && strcmp(stillpoint_error_hint(copy), "Make 'nix' first.") == 0);
    error_report_err(copy);
    error_setg_errno(&error, ENOENT, "opening %s", "x");
    CHECK_ERROR(error, "opening x: No such file or directory");
    error_setg_errno(&error, 0, "plain");
    CHECK(strcmp(error_get_pretty(error), "plain") == 0);
    error_free_or_abort(&error);
    /* Nobody wants it, and nobody is there. */
    error_setg(NULL, "lost");
    fail(NULL);
    error_propagate(&error, NULL);
    error_prepend(&error, "x");
    error_prepend(NULL, "x");
    error_append_hint(&error, "x");
    CHECK(error == NULL && error_copy(NULL) == NULL);
    error_report_err(NULL);
    stillpoint_detach_all();
    puts("done");
    return 0;
}
