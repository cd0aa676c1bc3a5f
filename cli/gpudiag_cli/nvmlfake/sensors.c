/* Temperatures, load, memory errors and field values of a GPU. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "device.h"
#include "state.h"

enum { MAX_KEY = 64 };

EXPORT int nvmlDeviceGetTemperature(const struct handle *handle, unsigned int sensor, unsigned int *celsius) {
    return sensor ? INVALID_ARGUMENT : read_unsigned(__func__, handle, "temperature", celsius);
}

EXPORT int nvmlDeviceGetTemperatureV(const struct handle *handle, struct temperature *temperature) {
    int64_t number = 0;
    int refused = temperature->version == VERSIONED(struct temperature, 1) ? OK : VERSION_MISMATCH;
    if (!refused)
        refused = read_number(__func__, handle, "temperature", &number);
    temperature->celsius = (int)number;
    return refused;
}

EXPORT int nvmlDeviceGetMarginTemperature(const struct handle *handle, struct margin *margin) {
    int64_t number = 0;
    int refused = margin->version == VERSIONED(struct margin, 1) ? OK : VERSION_MISMATCH;
    if (!refused)
        refused = read_number(__func__, handle, "margin", &number);
    margin->celsius = (int)number;
    return refused;
}

EXPORT int nvmlDeviceGetTemperatureThreshold(const struct handle *handle, unsigned int kind, unsigned int *celsius) {
    char key[MAX_KEY];
    snprintf(key, sizeof key, "threshold.%u", kind);
    return read_unsigned(__func__, handle, key, celsius);
}

EXPORT int nvmlDeviceGetPowerUsage(const struct handle *handle, unsigned int *milliwatts) {
    return read_unsigned(__func__, handle, "power", milliwatts);
}

EXPORT int nvmlDeviceGetEnforcedPowerLimit(const struct handle *handle, unsigned int *milliwatts) {
    return read_unsigned(__func__, handle, "power.limit", milliwatts);
}

EXPORT int nvmlDeviceGetUtilizationRates(const struct handle *handle, struct utilization *utilization) {
    utilization->memory = 0;
    return read_unsigned(__func__, handle, "utilization", &utilization->gpu);
}

EXPORT int nvmlDeviceGetClockInfo(const struct handle *handle, unsigned int kind, unsigned int *mhz) {
    char key[MAX_KEY];
    snprintf(key, sizeof key, "clock.%u", kind);
    return read_unsigned(__func__, handle, key, mhz);
}

EXPORT int nvmlDeviceGetPerformanceState(const struct handle *handle, unsigned int *state) {
    return read_unsigned(__func__, handle, "pstate", state);
}

static int event_reasons(const char *function, const struct handle *handle, uint64_t *reasons) {
    int64_t number;
    int refused = read_number(function, handle, "reasons", &number);
    if (!refused)
        *reasons = (uint64_t)number;
    return refused;
}

EXPORT int nvmlDeviceGetCurrentClocksEventReasons(const struct handle *handle, uint64_t *reasons) {
    return event_reasons(__func__, handle, reasons);
}

EXPORT int nvmlDeviceGetCurrentClocksThrottleReasons(const struct handle *handle, uint64_t *reasons) {
    return event_reasons(__func__, handle, reasons);
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

/* `<type>:<number>`, the type in the words of nvmlValueType_t; `error:<code>` fails this field alone. */
static void read_field(const struct handle *handle, struct field *field) {
    static const char *const types[] = {"double", "uint", "ulong", "ullong", "sllong", "sint", "ushort"};
    char key[MAX_KEY];
    const char *text, *number;
    snprintf(key, sizeof key, "field.%u", field->id);
    text = state_text(handle->gpu, key);
    number = text ? strchr(text, ':') : NULL;
    field->result = number ? INVALID_ARGUMENT : NOT_SUPPORTED;
    if (number && strncmp(text, "error:", 6) == 0)
        field->result = (unsigned int)atoi(number + 1);
    for (unsigned int type = 0; number && type < sizeof types / sizeof *types; type++) {
        if (strncmp(text, types[type], (size_t)(number - text)) != 0 || types[type][number - text])
            continue;
        field->type = type;
        field->result = OK;
        memset(&field->value, 0, sizeof field->value);
        if (type == 0)
            field->value.as_double = atof(number + 1);
        else if (type == 5)
            field->value.as_sint = atoi(number + 1);
        else
            field->value.as_sllong = strtoll(number + 1, NULL, 0);
    }
}

EXPORT int nvmlDeviceGetFieldValues(const struct handle *handle, int count, struct field *fields) {
    int refused = gate_handle(__func__, handle);
    for (int i = 0; !refused && i < count; i++)
        read_field(handle, &fields[i]);
    return refused;
}
