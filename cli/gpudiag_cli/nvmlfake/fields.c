/* Field values of a GPU and of its links. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "device.h"
#include "state.h"

enum { MAX_KEY = 64 };

/* `field.<id>.<scope>=`, else `field.<id>=`, then `<type>:<number>`, the type in the words of nvmlValueType_t;
 * `error:<code>` fails this field alone. */
static void read_field(const struct handle *handle, struct field *field) {
    static const char *const types[] = {"double", "uint", "ulong", "ullong", "sllong", "sint", "ushort"};
    char key[MAX_KEY];
    const char *text, *number;
    snprintf(key, sizeof key, "field.%u.%u", field->id, field->scope);
    text = state_text(handle->gpu, key);
    if (!text) {
        snprintf(key, sizeof key, "field.%u", field->id);
        text = state_text(handle->gpu, key);
    }
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
