/* Memory errors of a GPU, and what was repaired. */
#include <stdio.h>
#include <string.h>

#include "abi.h"
#include "device.h"
#include "state.h"

enum { MAX_KEY = 64 };

/* A number that is 0 where there is no line for it: the details of a call that the GPU does have. */
static uint64_t detail(const struct handle *handle, const char *key) {
    int64_t number;
    return state_number(handle->gpu, key, &number) ? (uint64_t)number : 0;
}

EXPORT int nvmlDeviceGetEccMode(const struct handle *handle, unsigned int *current, unsigned int *pending) {
    int64_t number;
    int refused = read_unsigned(__func__, handle, "ecc.current", current);
    if (!refused)
        *pending = state_number(handle->gpu, "ecc.pending", &number) ? (unsigned int)number : *current;
    return refused;
}

EXPORT int nvmlDeviceGetTotalEccErrors(const struct handle *handle, unsigned int kind, unsigned int since,
                                       uint64_t *count) {
    char key[MAX_KEY];
    int64_t number;
    int refused;
    snprintf(key, sizeof key, "ecc.%s.%s", kind ? "uncorrected" : "corrected", since ? "aggregate" : "volatile");
    refused = read_number(__func__, handle, key, &number);
    if (!refused)
        *count = (uint64_t)number;
    return refused;
}

EXPORT int nvmlDeviceGetRemappedRows(const struct handle *handle, unsigned int *corrected, unsigned int *uncorrected,
                                     unsigned int *pending, unsigned int *failure) {
    static const char *const keys[] = {"uncorrected", "pending", "failure"};
    unsigned int *const values[] = {uncorrected, pending, failure};
    int refused = read_unsigned(__func__, handle, "rows.corrected", corrected);
    for (int i = 0; !refused && i < 3; i++) {
        char key[MAX_KEY];
        int64_t number = 0;
        snprintf(key, sizeof key, "rows.%s", keys[i]);
        state_number(handle->gpu, key, &number);
        *values[i] = (unsigned int)number;
    }
    return refused;
}

EXPORT int nvmlDeviceGetRowRemapperHistogram(const struct handle *handle, struct row_histogram *rows) {
    int refused = read_unsigned(__func__, handle, "rows.max", &rows->max);
    rows->high = (unsigned int)detail(handle, "rows.high");
    rows->partial = (unsigned int)detail(handle, "rows.partial");
    rows->low = (unsigned int)detail(handle, "rows.low");
    rows->none = (unsigned int)detail(handle, "rows.none");
    return refused;
}

EXPORT int nvmlDeviceGetSramEccErrorStatus(const struct handle *handle, struct sram_status *status) {
    unsigned int exceeded = 0;
    int refused = status->version == VERSIONED(struct sram_status, 1) ? OK : VERSION_MISMATCH;
    if (!refused)
        refused = read_unsigned(__func__, handle, "sram.exceeded", &exceeded);
    if (refused)
        return refused;
    *status = (struct sram_status){
        .version = status->version,
        .l2 = detail(handle, "sram.l2"),
        .sm = detail(handle, "sram.sm"),
        .pcie = detail(handle, "sram.pcie"),
        .mcu = detail(handle, "sram.mcu"),
        .other = detail(handle, "sram.other"),
        .exceeded = exceeded,
    };
    return OK;
}

EXPORT int nvmlDeviceGetRepairStatus(const struct handle *handle, struct repair_status *status) {
    int refused = status->version == VERSIONED(struct repair_status, 1) ? OK : VERSION_MISMATCH;
    if (!refused)
        refused = read_unsigned(__func__, handle, "repair.channel", &status->channel);
    if (!refused)
        status->tpc = (unsigned int)detail(handle, "repair.tpc");
    return refused;
}

EXPORT int nvmlDeviceGetUnrepairableMemoryFlag_v1(const struct handle *handle, struct unrepairable_memory *memory) {
    if (memory->version != VERSIONED(struct unrepairable_memory, 1))
        return VERSION_MISMATCH;
    return read_unsigned(__func__, handle, "unrepairable", &memory->unrepairable);
}
