/** @file litefs.h
 * @brief liblitefs: replicated SQLite, the C interface.
 *
 * It is C89 and C++, and includes nothing.
 *
 * CAVEATS
 *
 * - The interface is young: until version 1.0 a new minor version may change it. The shared library's name
 *   carries the minor version until then, so that a program never runs with a library it was not built for.
 * - What is not declared here is not exported by the shared library, and is nobody's to use.
 *
 * CONVENTIONS
 *
 * - Functions are named litefs_verb_noun or litefs_noun, types litefs_noun, constants LITEFS_NOUN.
 * - No function lets a C++ exception out. Each says from which threads it may be called.
 * - Text is UTF-8 and ends with a zero byte. Who frees it is said at each function.
 *
 * LICENCE: Apache-2.0, see the file LICENSE.
 */
#ifndef LITEFS_LITEFS_H
#define LITEFS_LITEFS_H

/** Version of this header. The build checks that it is the library's. */
#define LITEFS_VERSION_MAJOR 0
#define LITEFS_VERSION_MINOR 1
#define LITEFS_VERSION_PATCH 0
#define LITEFS_VERSION_STRING "0.1.0"

/** One number that grows with the version, for comparisons by the preprocessor. */
#define LITEFS_VERSION_NUMBER \
  (LITEFS_VERSION_MAJOR * 1000000 + LITEFS_VERSION_MINOR * 1000 + LITEFS_VERSION_PATCH)

#if defined(__GNUC__)
#define LITEFS_API __attribute__((visibility("default")))
#else
#define LITEFS_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/** @brief The version of the library that is running.
 *
 * It may differ from LITEFS_VERSION_STRING, the version that the caller was compiled with.
 *
 * @return "MAJOR.MINOR.PATCH"; lives as long as the process, not to be freed.
 * Errors: none. Threads: any, at any time.
 */
LITEFS_API const char *litefs_version(void);

#ifdef __cplusplus
}
#endif

#endif /* LITEFS_LITEFS_H */
