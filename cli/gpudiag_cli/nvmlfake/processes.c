/* Processes of a GPU: `processes.compute=<pid>:<bytes>[:<gi>:<ci>],…`, an empty text for none at the moment; bytes may
 * be `-` where the driver does not know. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "device.h"
#include "state.h"

enum { WHOLE_GPU = -1 };

static unsigned int count_of(const char *text) {
    unsigned int count = *text != '\0';
    for (; *text; text++)
        count += *text == ',';
    return count;
}

static const char *parse(const char *text, struct process *process) {
    char *end;
    *process = (struct process){.memory = UINT64_MAX, .gpu_instance = WHOLE_GPU, .compute_instance = WHOLE_GPU};
    process->pid = (unsigned int)strtoul(text, &end, 10);
    if (*end == ':' && end[1] == '-')
        end += 2;
    else if (*end == ':')
        process->memory = strtoull(end + 1, &end, 10);
    if (*end == ':')
        process->gpu_instance = (unsigned int)strtoul(end + 1, &end, 10);
    if (*end == ':')
        process->compute_instance = (unsigned int)strtoul(end + 1, &end, 10);
    return *end ? end + 1 : end;
}

static int list(const char *function, const struct handle *handle, const char *kind, unsigned int *count,
                struct process *processes) {
    char key[32];
    int refused = gate_handle(function, handle);
    unsigned int room = *count;
    const char *text;
    if (refused)
        return refused;
    snprintf(key, sizeof key, "processes.%s", kind);
    text = state_text(handle->gpu, key);
    if (!text)
        return NOT_SUPPORTED;
    *count = count_of(text);
    if (*count > room)
        return INSUFFICIENT_SIZE;
    for (unsigned int i = 0; i < *count; i++)
        text = parse(text, &processes[i]);
    return OK;
}

EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(const struct handle *handle, unsigned int *count,
                                                   struct process *processes) {
    return list(__func__, handle, "compute", count, processes);
}

EXPORT int nvmlDeviceGetGraphicsRunningProcesses_v3(const struct handle *handle, unsigned int *count,
                                                    struct process *processes) {
    return list(__func__, handle, "graphics", count, processes);
}
