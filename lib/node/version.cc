#include "litefs/litefs.h"

// The build knows the version once, in the top meson.build; the header repeats it for programs.
static_assert(__builtin_strcmp(LITEFS_VERSION_STRING, LITEFS_BUILD_VERSION) == 0,
              "litefs.h and meson.build name different versions");

extern "C" const char* litefs_version(void) { return LITEFS_VERSION_STRING; }
