/* Events of GPUs: `event=<number>:<gpu>:<type>:<data>[:<gi>:<ci>]`, told once to every set that waits for that GPU and
 * type, whenever the number is another one. Instances are those of the whole GPU where they are left out. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "abi.h"
#include "device.h"
#include "gate.h"
#include "state.h"

enum { MAX_GPUS = 64 };

struct event_set {
    uint64_t types[MAX_GPUS];
    int64_t told;
};

struct event_data {
    struct handle *gpu;
    uint64_t type, data;
    unsigned int gpu_instance, compute_instance;
};

static int64_t parse(struct event_data *event) {
    const char *text = state_text(NODE, "event");
    long long number, gpu;
    unsigned long long type, data;
    unsigned int gpu_instance = UINT32_MAX, compute_instance = UINT32_MAX;
    if (!text || sscanf(text, "%lld:%lld:%llu:%llu:%u:%u", &number, &gpu, &type, &data, &gpu_instance,
                        &compute_instance) < 4)
        return 0;
    *event = (struct event_data){handle_of((int)gpu, -1), type, data, gpu_instance, compute_instance};
    return number;
}

EXPORT int nvmlEventSetCreate(struct event_set **set) {
    struct event_data now;
    int refused = gate(__func__, NODE);
    if (refused)
        return refused;
    *set = calloc(1, sizeof **set);
    (*set)->told = parse(&now);
    return OK;
}

EXPORT int nvmlDeviceRegisterEvents(const struct handle *handle, uint64_t types, struct event_set *set) {
    int64_t supported = -1;
    int refused = gate_handle(__func__, handle);
    if (refused)
        return refused;
    state_number(handle->gpu, "events", &supported);
    if (types & ~(uint64_t)supported)
        return NOT_SUPPORTED;
    set->types[handle->gpu] |= types;
    return OK;
}

EXPORT int nvmlEventSetWait_v2(struct event_set *set, struct event_data *event, unsigned int milliseconds) {
    const struct timespec pause = {.tv_nsec = 5 * 1000 * 1000};
    for (unsigned int waited = 0;; waited += 5) {
        int refused = gate(__func__, NODE);
        if (refused)
            return refused;
        int64_t number = parse(event);
        if (number && number != set->told) {
            set->told = number;
            if (event->gpu && set->types[event->gpu->gpu] & event->type)
                return OK;
        }
        if (waited >= milliseconds)
            return TIMEOUT;
        nanosleep(&pause, NULL);
    }
}

EXPORT int nvmlEventSetFree(struct event_set *set) {
    free(set);
    return gate(__func__, NODE);
}
