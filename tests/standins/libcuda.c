/* A stand-in of the CUDA driver's few calls that look for a GPU. STUB_FAILS names a call and its error: cuInit=100. */
#include <stdlib.h>
#include <string.h>

static int fails(const char *call) {
    const char *said = getenv("STUB_FAILS");
    size_t length = strlen(call);
    return said && !strncmp(said, call, length) && said[length] == '=' ? atoi(said + length + 1) : 0;
}

int cuInit(unsigned flags) { return flags ? 1 : fails("cuInit"); }

int cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return fails("cuDeviceGet");
}

int cuDeviceGetName(char *name, int length, int device) {
    (void)device;
    const char *said = getenv("STUB_NAME");
    strncpy(name, said ? said : "NVIDIA Stand-in", length);
    return fails("cuDeviceGetName");
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : attribute == 18 ? 1 : -1;
    return fails("cuDeviceGetAttribute");
}
