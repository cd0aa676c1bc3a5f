/* Temperatures, power, clocks and load of a GPU. */
#include <stdio.h>

#include "abi.h"
#include "device.h"
#include "state.h"

enum { MAX_KEY = 64, SAMPLING_MICROSECONDS = 167000 };

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

EXPORT int nvmlDeviceGetPowerManagementDefaultLimit(const struct handle *handle, unsigned int *milliwatts) {
    return read_unsigned(__func__, handle, "power.default", milliwatts);
}

EXPORT int nvmlDeviceGetUtilizationRates(const struct handle *handle, struct utilization *utilization) {
    int64_t number;
    int refused = read_unsigned(__func__, handle, "utilization", &utilization->gpu);
    if (!refused)
        utilization->memory = state_number(handle->gpu, "utilization.memory", &number) ? (unsigned int)number : 0;
    return refused;
}

EXPORT int nvmlDeviceGetEncoderUtilization(const struct handle *handle, unsigned int *percent, unsigned int *period) {
    *period = SAMPLING_MICROSECONDS;
    return read_unsigned(__func__, handle, "utilization.encoder", percent);
}

EXPORT int nvmlDeviceGetDecoderUtilization(const struct handle *handle, unsigned int *percent, unsigned int *period) {
    *period = SAMPLING_MICROSECONDS;
    return read_unsigned(__func__, handle, "utilization.decoder", percent);
}

EXPORT int nvmlDeviceGetTotalEnergyConsumption(const struct handle *handle, unsigned long long *millijoules) {
    int64_t number = 0;
    int refused = read_number(__func__, handle, "energy", &number);
    *millijoules = (unsigned long long)number;
    return refused;
}

static int clock_of(const char *function, const struct handle *handle, const char *what, unsigned int kind,
                    unsigned int *mhz) {
    char key[MAX_KEY];
    snprintf(key, sizeof key, "clock.%u%s", kind, what);
    return read_unsigned(function, handle, key, mhz);
}

EXPORT int nvmlDeviceGetClockInfo(const struct handle *handle, unsigned int kind, unsigned int *mhz) {
    return clock_of(__func__, handle, "", kind, mhz);
}

EXPORT int nvmlDeviceGetMaxClockInfo(const struct handle *handle, unsigned int kind, unsigned int *mhz) {
    return clock_of(__func__, handle, ".max", kind, mhz);
}

EXPORT int nvmlDeviceGetApplicationsClock(const struct handle *handle, unsigned int kind, unsigned int *mhz) {
    return clock_of(__func__, handle, ".application", kind, mhz);
}

EXPORT int nvmlDeviceGetDefaultApplicationsClock(const struct handle *handle, unsigned int kind, unsigned int *mhz) {
    return clock_of(__func__, handle, ".default", kind, mhz);
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

EXPORT int nvmlDeviceGetPersistenceMode(const struct handle *handle, unsigned int *mode) {
    return read_unsigned(__func__, handle, "persistence", mode);
}
