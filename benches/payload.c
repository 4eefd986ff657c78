/* What the measured containers run where the machine has no static busybox:
 * called as "sleep" it waits for a signal, under any other name it ends at once. */
#include <string.h>
#include <unistd.h>
int main(int c, char **v) {
  const char *n = c ? strrchr(v[0], '/') : 0;
  if (n && !strcmp(n, "/sleep")) for (;;) pause();
  return 0;
}
