/* Stands in the arm64 userland where its Python stands, and runs that in qemu: so a Python that starts another one finds it, also
   where the kernel does not know qemu (binfmt_misc). A static x86-64 program. QEMU_CPU, which qemu reads itself, names the processor. */
#include <stdlib.h>
#include <unistd.h>

int main(int count, char **words) {
    char **all = calloc(count + 4, sizeof *all);
    if (!all) return 127;
    all[0] = "qemu-aarch64-static";
    all[1] = "-0";
    all[2] = words[0];
    all[3] = PYTHON;
    for (int i = 1; i < count; i++) all[i + 3] = words[i];
    execv("/usr/bin/qemu-aarch64-static", all);
    return 127;
}
