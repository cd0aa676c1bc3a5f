/* Firmware and place of a GPU: what lasts as long as the board and the driver. */
#include <string.h>

#include "abi.h"
#include "device.h"
#include "state.h"

enum { GSP_VERSION_SIZE = 64, NUMA_WORD_BITS = 64 };

/* The InfoROM's checksum: `inforom` is the return code, 0 for a valid one, 14 for a corrupted one. */
EXPORT int nvmlDeviceValidateInforom(const struct handle *handle) {
    int64_t code;
    int refused = read_number(__func__, handle, "inforom", &code);
    return refused ? refused : (int)code;
}

EXPORT int nvmlDeviceGetVbiosVersion(const struct handle *handle, char *buffer, unsigned int size) {
    return read_text(__func__, handle, "vbios", buffer, size);
}

EXPORT int nvmlDeviceGetGspFirmwareMode(const struct handle *handle, unsigned int *enabled, unsigned int *standard) {
    int64_t number;
    int refused = read_unsigned(__func__, handle, "gsp", enabled);
    if (!refused)
        *standard = state_number(handle->gpu, "gsp.default", &number) ? (unsigned int)number : *enabled;
    return refused;
}

EXPORT int nvmlDeviceGetGspFirmwareVersion(const struct handle *handle, char *buffer) {
    return read_text(__func__, handle, "gsp.version", buffer, GSP_VERSION_SIZE);
}

EXPORT int nvmlDeviceGetArchitecture(const struct handle *handle, unsigned int *architecture) {
    return read_unsigned(__func__, handle, "architecture", architecture);
}

/* `numa` is the number of the one node that is near. */
EXPORT int nvmlDeviceGetMemoryAffinity(const struct handle *handle, unsigned int size, unsigned long *nodes,
                                       unsigned int scope) {
    unsigned int node;
    int refused = scope > 1 ? INVALID_ARGUMENT : read_unsigned(__func__, handle, "numa", &node);
    if (refused)
        return refused;
    if (node / NUMA_WORD_BITS >= size)
        return INSUFFICIENT_SIZE;
    memset(nodes, 0, size * sizeof *nodes);
    nodes[node / NUMA_WORD_BITS] = 1UL << node % NUMA_WORD_BITS;
    return OK;
}
