/* Who a GPU is, its memory and its MIG devices. */
#include "device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "state.h"

enum { MAX_KEY = 96 };

static const char *key_for(const struct handle *handle, const char *key, char *buffer) {
    if (handle->mig < 0)
        return key;
    snprintf(buffer, MAX_KEY, "mig.%d.%s", handle->mig, key);
    return buffer;
}

int read_number(const char *function, const struct handle *handle, const char *key, int64_t *value) {
    char buffer[MAX_KEY];
    int refused = gate_handle(function, handle);
    if (refused)
        return refused;
    return state_number(handle->gpu, key_for(handle, key, buffer), value) ? OK : NOT_SUPPORTED;
}

int read_unsigned(const char *function, const struct handle *handle, const char *key, unsigned int *value) {
    int64_t number;
    int refused = read_number(function, handle, key, &number);
    if (!refused)
        *value = (unsigned int)number;
    return refused;
}

int read_text(const char *function, const struct handle *handle, const char *key, char *buffer, unsigned int size) {
    char full[MAX_KEY];
    unsigned int length = 0;
    int refused = gate_handle(function, handle);
    const char *text = refused ? NULL : state_text(handle->gpu, key_for(handle, key, full));
    if (refused || !text)
        return refused ? refused : NOT_SUPPORTED;
    while (*text) {
        char digits[3] = "";
        if (length + 1 >= size)
            return INSUFFICIENT_SIZE;
        if (text[0] == '\\' && text[1] == 'x' && text[2] && text[3]) {
            memcpy(digits, text + 2, 2);
            buffer[length++] = (char)strtol(digits, NULL, 16);
            text += 4;
        } else {
            buffer[length++] = *text++;
        }
    }
    buffer[length] = '\0';
    return OK;
}

EXPORT int nvmlDeviceGetName(const struct handle *handle, char *buffer, unsigned int size) {
    return read_text(__func__, handle, "name", buffer, size);
}

EXPORT int nvmlDeviceGetUUID(const struct handle *handle, char *buffer, unsigned int size) {
    return read_text(__func__, handle, "uuid", buffer, size);
}

EXPORT int nvmlDeviceGetSerial(const struct handle *handle, char *buffer, unsigned int size) {
    return read_text(__func__, handle, "serial", buffer, size);
}

EXPORT int nvmlDeviceGetPciInfo_v3(const struct handle *handle, struct pci_info *info) {
    int refused;
    memset(info, 0, sizeof *info);
    refused = read_text(__func__, handle, "pci", info->address, sizeof info->address);
    if (refused)
        return refused;
    if (sscanf(info->address, "%x:%x:%x", &info->domain, &info->bus, &info->device) == 3)
        snprintf(info->short_address, sizeof info->short_address, "%04x:%02x:%02x.0", info->domain & 0xFFFF,
                 info->bus & 0xFF, info->device & 0xFF);
    return OK;
}

static int read_memory(const char *function, const struct handle *handle, uint64_t *total, uint64_t *used) {
    int64_t number;
    int refused = read_number(function, handle, "memory.total", &number);
    char buffer[MAX_KEY];
    if (refused)
        return refused;
    *total = (uint64_t)number;
    *used = 0;
    if (state_number(handle->gpu, key_for(handle, "memory.used", buffer), &number))
        *used = (uint64_t)number;
    return OK;
}

EXPORT int nvmlDeviceGetMemoryInfo(const struct handle *handle, struct memory *memory) {
    int refused = read_memory(__func__, handle, &memory->total, &memory->used);
    memory->free = refused ? 0 : memory->total - memory->used;
    return refused;
}

EXPORT int nvmlDeviceGetMemoryInfo_v2(const struct handle *handle, struct memory_v2 *memory) {
    int refused = memory->version == VERSIONED(struct memory_v2, 2) ? OK : VERSION_MISMATCH;
    if (!refused)
        refused = read_memory(__func__, handle, &memory->total, &memory->used);
    if (!refused) {
        int64_t number;
        memory->reserved = state_number(handle->gpu, "memory.reserved", &number) ? (uint64_t)number : 0;
        memory->free = memory->total - memory->used - memory->reserved;
    }
    return refused;
}

EXPORT int nvmlDeviceGetMigMode(const struct handle *handle, unsigned int *current, unsigned int *pending) {
    int64_t number;
    int refused = read_unsigned(__func__, handle, "mig.current", current);
    if (!refused)
        *pending = state_number(handle->gpu, "mig.pending", &number) ? (unsigned int)number : *current;
    return refused;
}

EXPORT int nvmlDeviceGetMaxMigDeviceCount(const struct handle *handle, unsigned int *count) {
    return read_unsigned(__func__, handle, "mig.max", count);
}

EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(const struct handle *handle, unsigned int slot, struct handle **mig) {
    char key[MAX_KEY];
    int refused = gate_handle(__func__, handle);
    if (refused)
        return refused;
    snprintf(key, sizeof key, "mig.%u.uuid", slot);
    if (!state_text(handle->gpu, key))
        return NOT_FOUND;
    *mig = handle_of(handle->gpu, (int)slot);
    return *mig ? OK : INVALID_ARGUMENT;
}

EXPORT int nvmlDeviceGetGpuInstanceId(const struct handle *handle, unsigned int *id) {
    return read_unsigned(__func__, handle, "gi", id);
}

EXPORT int nvmlDeviceGetComputeInstanceId(const struct handle *handle, unsigned int *id) {
    return read_unsigned(__func__, handle, "ci", id);
}
