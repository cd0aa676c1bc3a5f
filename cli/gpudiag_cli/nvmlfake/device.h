/* Shared by the functions about one GPU. */
#ifndef GPUDIAG_NVMLFAKE_DEVICE_H
#define GPUDIAG_NVMLFAKE_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#include "gate.h"

/* Pass the gate, then the number after `gpu.<index>.<key>=`; NOT_SUPPORTED without such a line. For a handle of a
 * MIG device the key is `mig.<slot>.<key>`. */
int read_number(const char *function, const struct handle *handle, const char *key, int64_t *value);

/* The same as text; \xHH stands for a byte that a text file should not hold. */
int read_text(const char *function, const struct handle *handle, const char *key, char *buffer, unsigned int size);

/* The same as an unsigned int, which is what most functions give. */
int read_unsigned(const char *function, const struct handle *handle, const char *key, unsigned int *value);

#endif
