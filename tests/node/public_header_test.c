/* A C program that knows only the public header and the shared library. */
#include <litefs/litefs.h>
#include <stdio.h>
#include <string.h>

int main(void) {
  char text[64];
  int number = LITEFS_VERSION_MAJOR * 1000000 + LITEFS_VERSION_MINOR * 1000 + LITEFS_VERSION_PATCH;
  sprintf(text, "%d.%d.%d", LITEFS_VERSION_MAJOR, LITEFS_VERSION_MINOR, LITEFS_VERSION_PATCH);
  if (strcmp(text, LITEFS_VERSION_STRING) != 0 || number != LITEFS_VERSION_NUMBER) {
    printf("the header's versions differ: %s, %s\n", text, LITEFS_VERSION_STRING);
    return 1;
  }
  if (strcmp(litefs_version(), LITEFS_VERSION_STRING) != 0) {
    printf("the library is %s, the header %s\n", litefs_version(), LITEFS_VERSION_STRING);
    return 1;
  }
  return 0;
}
