/* In this order: missing, hang, crash, fail; then what a real library checks by itself. A fault is asked for with
 * `<fault>.<function>=<number>` for every GPU, and with `gpu.<index>.<fault>.<function>=<number>` for one. The
 * function may be *. One thread at a time, as the agent's reader is. */
#include "gate.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "abi.h"
#include "state.h"

enum { MAX_GPUS = 64, MAX_MIG = 16, MAX_KEY = 128 };

int initialised;
static struct handle handles[MAX_GPUS][MAX_MIG + 1];

struct handle *handle_of(int gpu, int mig) {
    if (gpu < 0 || gpu >= MAX_GPUS || mig >= MAX_MIG)
        return NULL;
    struct handle *handle = &handles[gpu][mig < 0 ? 0 : mig + 1];
    handle->gpu = gpu;
    handle->mig = mig < 0 ? -1 : mig;
    return handle;
}

/* The number of a fault, 0 when it is not asked for. */
static int64_t fault(const char *kind, const char *function, int gpu) {
    const char *names[] = {function, "*"};
    const int scopes[] = {gpu, NODE};
    for (int scope = gpu == NODE; scope < 2; scope++)
        for (int name = 0; name < 2; name++) {
            char key[MAX_KEY];
            int64_t value;
            snprintf(key, sizeof key, "%s.%s", kind, names[name]);
            if (state_number(scopes[scope], key, &value))
                return value;
        }
    return 0;
}

/* Tests read which functions were called, and in which order. */
static void record(const char *function) {
    const char *path = getenv("GPUDIAG_NVMLFAKE_LOG");
    char line[MAX_KEY];
    int length = snprintf(line, sizeof line, "%s\n", function);
    int file = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (file < 0)
        return;
    if (write(file, line, (size_t)length) < 0)
        perror("nvmlfake");
    close(file);
}

int gate(const char *function, int gpu) {
    const struct timespec pause = {.tv_nsec = 5 * 1000 * 1000};
    int64_t number;
    record(function);
    if (!state_refresh())
        return DRIVER_NOT_LOADED;
    if (fault("missing", function, gpu))
        return FUNCTION_NOT_FOUND;
    while (fault("hang", function, gpu)) {
        nanosleep(&pause, NULL);
        state_refresh();
    }
    if ((number = fault("crash", function, gpu))) {
        signal((int)number, SIG_DFL);
        raise((int)number);
    }
    if ((number = fault("fail", function, gpu)))
        return (int)number;
    if (gpu != NODE && state_number(gpu, "lost", &number) && number)
        return GPU_IS_LOST;
    return OK;
}

int gate_handle(const char *function, const struct handle *handle) {
    uintptr_t start = (uintptr_t)handles, at = (uintptr_t)handle;
    if (!initialised)
        return UNINITIALIZED;
    if (at < start || at >= start + sizeof handles || (at - start) % sizeof(struct handle))
        return INVALID_ARGUMENT;
    return gate(function, handle->gpu);
}
