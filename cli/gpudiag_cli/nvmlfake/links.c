/* PCIe, NVLink and the NVSwitch fabric. A GPU has links 0 to `nvlink.count` - 1; what is said of one is after
 * `nvlink.<link>.`, what is said of all of them after `nvlink.*.`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "device.h"
#include "state.h"

enum { MAX_KEY = 64 };

EXPORT int nvmlDeviceGetCurrPcieLinkGeneration(const struct handle *handle, unsigned int *generation) {
    return read_unsigned(__func__, handle, "pcie.generation", generation);
}

EXPORT int nvmlDeviceGetCurrPcieLinkWidth(const struct handle *handle, unsigned int *width) {
    return read_unsigned(__func__, handle, "pcie.width", width);
}

EXPORT int nvmlDeviceGetMaxPcieLinkGeneration(const struct handle *handle, unsigned int *generation) {
    return read_unsigned(__func__, handle, "pcie.generation.max", generation);
}

EXPORT int nvmlDeviceGetMaxPcieLinkWidth(const struct handle *handle, unsigned int *width) {
    return read_unsigned(__func__, handle, "pcie.width.max", width);
}

/* The text of `nvlink.<link>.<what>`, the line of that GPU before that of all GPUs; NULL and a code without one. */
static const char *link_text(const char *function, const struct handle *handle, unsigned int link, const char *what,
                             int *refused) {
    char key[MAX_KEY];
    int64_t count = 0;
    const char *text = NULL;
    *refused = gate_handle(function, handle);
    if (*refused)
        return NULL;
    state_number(handle->gpu, "nvlink.count", &count);
    if (link < count) {
        snprintf(key, sizeof key, "nvlink.%u.%s", link, what);
        text = state_text(handle->gpu, key);
    }
    if (link < count && !text) {
        snprintf(key, sizeof key, "nvlink.*.%s", what);
        text = state_text(handle->gpu, key);
    }
    *refused = text && *text ? OK : NOT_SUPPORTED;
    return text;
}

static int link_number(const char *function, const struct handle *handle, unsigned int link, const char *what,
                       uint64_t *number) {
    int refused;
    const char *text = link_text(function, handle, link, what, &refused);
    if (!refused)
        *number = strtoull(text, NULL, 0);
    return refused;
}

static int link_unsigned(const char *function, const struct handle *handle, unsigned int link, const char *what,
                         unsigned int *value) {
    uint64_t number;
    int refused = link_number(function, handle, link, what, &number);
    if (!refused)
        *value = (unsigned int)number;
    return refused;
}

EXPORT int nvmlDeviceGetNvLinkState(const struct handle *handle, unsigned int link, unsigned int *active) {
    return link_unsigned(__func__, handle, link, "state", active);
}

EXPORT int nvmlDeviceGetNvLinkVersion(const struct handle *handle, unsigned int link, unsigned int *version) {
    return link_unsigned(__func__, handle, link, "version", version);
}

EXPORT int nvmlDeviceGetNvLinkRemoteDeviceType(const struct handle *handle, unsigned int link, unsigned int *kind) {
    return link_unsigned(__func__, handle, link, "remote.kind", kind);
}

EXPORT int nvmlDeviceGetNvLinkRemotePciInfo_v2(const struct handle *handle, unsigned int link, struct pci_info *info) {
    int refused;
    const char *text = link_text(__func__, handle, link, "remote.pci", &refused);
    memset(info, 0, sizeof *info);
    if (!refused)
        snprintf(info->address, sizeof info->address, "%s", text);
    return refused;
}

EXPORT int nvmlDeviceGetNvLinkErrorCounter(const struct handle *handle, unsigned int link, unsigned int counter,
                                           uint64_t *count) {
    char what[MAX_KEY];
    snprintf(what, sizeof what, "error.%u", counter);
    return link_number(__func__, handle, link, what, count);
}

/* Everything there is to say of the fabric; the older structs hold its beginning. `fabric.cluster` is 32 hex digits. */
static int read_fabric(const char *function, const struct handle *handle, struct fabric_v3 *fabric) {
    static const char *const keys[] = {"fabric.status", "fabric.clique", "fabric.mask", "fabric.summary"};
    int64_t numbers[4] = {0};
    int refused = read_unsigned(function, handle, "fabric.state", &fabric->state);
    const char *cluster = refused ? NULL : state_text(handle->gpu, "fabric.cluster");
    for (int i = 0; !refused && i < 4; i++)
        state_number(handle->gpu, keys[i], &numbers[i]);
    fabric->status = (unsigned int)numbers[0];
    fabric->clique = (uint32_t)numbers[1];
    fabric->mask = (uint32_t)numbers[2];
    fabric->summary = (unsigned char)numbers[3];
    for (size_t i = 0; cluster && i < sizeof fabric->cluster && strlen(cluster) >= 2 * (i + 1); i++) {
        const char digits[] = {cluster[2 * i], cluster[2 * i + 1], '\0'};
        fabric->cluster[i] = (unsigned char)strtol(digits, NULL, 16);
    }
    return refused;
}

EXPORT int nvmlDeviceGetGpuFabricInfoV(const struct handle *handle, void *info) {
    unsigned int version;
    struct fabric_v3 fabric = {0};
    int64_t newest;
    int refused;
    memcpy(&version, info, sizeof version);
    if (version != VERSIONED(struct fabric_v3, 3) && version != VERSIONED(struct fabric_v2, 2))
        return VERSION_MISMATCH;
    refused = read_fabric(__func__, handle, &fabric);
    if (refused)
        return refused;
    /* Older drivers know version 2 only: `fabric.version`. */
    if (version >> 24 == 3 && state_number(NODE, "fabric.version", &newest) && newest < 3)
        return VERSION_MISMATCH;
    fabric.version = version;
    memcpy(info, &fabric, version >> 24 == 3 ? sizeof(struct fabric_v3) : sizeof(struct fabric_v2));
    return OK;
}

EXPORT int nvmlDeviceGetGpuFabricInfo(const struct handle *handle, struct fabric_v1 *info) {
    struct fabric_v3 fabric = {0};
    int refused = read_fabric(__func__, handle, &fabric);
    if (refused)
        return refused;
    memcpy(info->cluster, fabric.cluster, sizeof info->cluster);
    info->status = fabric.status;
    info->clique = fabric.clique;
    info->state = fabric.state;
    return OK;
}
