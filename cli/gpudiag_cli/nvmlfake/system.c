/* Initialisation, versions, and the way from an index to a handle. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "abi.h"
#include "gate.h"
#include "state.h"

static int device = -1;

/* Like the real library, which keeps /dev/nvidia* open from initialisation to shutdown. */
static void open_device(void) {
    const char *path = state_text(NODE, "device");
    if (path && device < 0)
        device = open(path, O_RDONLY | O_CLOEXEC);
}

static int initialise(const char *function) {
    int64_t result;
    int refused = gate(function, NODE);
    if (refused)
        return refused;
    const char *words = state_text(NODE, "print");
    if (words) {
        puts(words);
        fflush(stdout);
    }
    if (state_number(NODE, "init.result", &result) && result)
        return (int)result;
    open_device();
    initialised++;
    return OK;
}

EXPORT int nvmlInit_v2(void) {
    return initialise(__func__);
}

EXPORT int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    return initialise(__func__);
}

EXPORT int nvmlShutdown(void) {
    int refused = initialised ? gate(__func__, NODE) : UNINITIALIZED;
    if (refused)
        return refused;
    if (--initialised == 0 && device >= 0) {
        close(device);
        device = -1;
    }
    return OK;
}

EXPORT const char *nvmlErrorString(int code) {
    static char words[32];
    snprintf(words, sizeof words, "stand-in error %d", code);
    return words;
}

static int version_text(const char *function, const char *key, char *buffer, unsigned int size) {
    int refused = initialised ? gate(function, NODE) : UNINITIALIZED;
    const char *text = refused ? NULL : state_text(NODE, key);
    if (refused || !text)
        return refused ? refused : NOT_SUPPORTED;
    if (strlen(text) >= size)
        return INSUFFICIENT_SIZE;
    strcpy(buffer, text);
    return OK;
}

EXPORT int nvmlSystemGetDriverVersion(char *buffer, unsigned int size) {
    return version_text(__func__, "driver", buffer, size);
}

EXPORT int nvmlSystemGetNVMLVersion(char *buffer, unsigned int size) {
    return version_text(__func__, "nvml", buffer, size);
}

static int cuda_version(const char *function, int *version) {
    int64_t number;
    /* The only two that answer without initialisation. */
    int refused = gate(function, NODE);
    if (refused || !state_number(NODE, "cuda", &number))
        return refused ? refused : NOT_SUPPORTED;
    *version = (int)number;
    return OK;
}

EXPORT int nvmlSystemGetCudaDriverVersion(int *version) {
    return cuda_version(__func__, version);
}

EXPORT int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    return cuda_version(__func__, version);
}

static int node_unsigned(const char *function, const char *key, unsigned int *value) {
    int64_t number;
    int refused = initialised ? gate(function, NODE) : UNINITIALIZED;
    if (refused || !state_number(NODE, key, &number))
        return refused ? refused : NOT_SUPPORTED;
    *value = (unsigned int)number;
    return OK;
}

EXPORT int nvmlGetExcludedDeviceCount(unsigned int *count) {
    return node_unsigned(__func__, "excluded", count);
}

EXPORT int nvmlSystemGetConfComputeState(struct conf_compute *state) {
    memset(state, 0, sizeof *state);
    return node_unsigned(__func__, "confidential", &state->feature);
}

EXPORT int nvmlSystemGetConfComputeGpusReadyState(unsigned int *ready) {
    return node_unsigned(__func__, "confidential.ready", ready);
}

EXPORT int nvmlDeviceGetCount_v2(unsigned int *count) {
    int64_t number = 0;
    int refused = initialised ? gate(__func__, NODE) : UNINITIALIZED;
    if (refused)
        return refused;
    state_number(NODE, "count", &number);
    *count = (unsigned int)number;
    return OK;
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned int index, struct handle **handle) {
    int64_t count = 0;
    int refused = initialised ? gate(__func__, (int)index) : UNINITIALIZED;
    if (refused)
        return refused;
    state_number(NODE, "count", &count);
    if (index >= count || !(*handle = handle_of((int)index, -1)))
        return INVALID_ARGUMENT;
    return OK;
}
