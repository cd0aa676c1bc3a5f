/* The part of NVML's binary interface that the stand-in offers: sizes and order of the fields, nothing more. */
#ifndef GPUDIAG_NVMLFAKE_ABI_H
#define GPUDIAG_NVMLFAKE_ABI_H

#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

enum {
    OK = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    TIMEOUT = 10,
    FUNCTION_NOT_FOUND = 13,
    GPU_IS_LOST = 15,
    VERSION_MISMATCH = 25
};

/* The struct's size and its version, as the caller fills them in. */
#define VERSIONED(type, number) ((unsigned int)sizeof(type) | ((unsigned int)(number) << 24))

struct memory {
    uint64_t total, free, used;
};

struct memory_v2 {
    unsigned int version;
    uint64_t total, reserved, free, used;
};

struct pci_info {
    char short_address[16];
    unsigned int domain, bus, device, device_id, subsystem_id;
    char address[32];
};

struct temperature {
    unsigned int version, sensor;
    int celsius;
};

struct margin {
    unsigned int version;
    int celsius;
};

struct utilization {
    unsigned int gpu, memory;
};

union field_number {
    double as_double;
    unsigned int as_uint;
    unsigned long as_ulong;
    uint64_t as_ullong;
    int64_t as_sllong;
    int as_sint;
    unsigned short as_ushort;
};

struct field {
    unsigned int id, scope;
    int64_t timestamp, latency;
    unsigned int type, result;
    union field_number value;
};

/* Structs that pynvml hands over with their size and version filled in, and two that have none. */
struct fabric_v1 {
    unsigned char cluster[16];
    unsigned int status;
    uint32_t clique;
    unsigned int state;
};

struct fabric_v2 {
    unsigned int version;
    unsigned char cluster[16];
    unsigned int status;
    uint32_t clique;
    unsigned int state;
    uint32_t mask;
};

struct fabric_v3 {
    unsigned int version;
    unsigned char cluster[16];
    unsigned int status;
    uint32_t clique;
    unsigned int state;
    uint32_t mask;
    unsigned char summary;
};

struct sram_status {
    unsigned int version;
    uint64_t parity, secded, corrected, volatile_parity, volatile_secded, volatile_corrected;
    uint64_t l2, sm, pcie, mcu, other;
    unsigned int exceeded;
};

struct repair_status {
    unsigned int version, channel, tpc;
};

struct unrepairable_memory {
    unsigned int version, unrepairable;
};

struct row_histogram {
    unsigned int max, high, partial, low, none;
};

struct process {
    unsigned int pid;
    uint64_t memory;
    unsigned int gpu_instance, compute_instance;
};

struct conf_compute {
    unsigned int environment, feature, devtools;
};

#endif
