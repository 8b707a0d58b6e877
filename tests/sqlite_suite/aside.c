/* Preloaded into a test program that runs on a mount: what is no database's file lies aside, in an ordinary directory,
** as a mount takes databases only. ASIDE_MOUNT is the test's directory on the mount, ASIDE_PLAIN the ordinary one.
**
** A name tells what a file is. Directories are made in both places, and a listing shows what is in either.
*/
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utime.h>

#define ROOM (2 * PATH_MAX)

static const char *mount_dir, *plain_dir;
static size_t mount_length;

__attribute__((constructor)) static void begin(void) {
  mount_dir = getenv("ASIDE_MOUNT");
  plain_dir = getenv("ASIDE_PLAIN");
  mount_length = mount_dir && plain_dir ? strlen(mount_dir) : 0;
}

static int ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && strcmp(text + n - m, end) == 0;
}

static int is_databases(const char *name) {
  static const char *const kOthers[] = {".tcl", ".txt", ".log", ".csv", ".bin", ".out", ".sql", ".so", ".dump"};
  static const char *const kDatabases[] = {".db", ".DB", "-wal", "-journal", "-shm", "-mj"};
  size_t i;
  if (name[0] == '.') return 1;
  if (strncmp(name, "sv_", 3) == 0) return 0; /* copies that the tests keep */
  for (i = 0; i < sizeof kOthers / sizeof *kOthers; i++) {
    if (ends_with(name, kOthers[i])) return 0;
  }
  for (i = 0; i < sizeof kDatabases / sizeof *kDatabases; i++) {
    if (strstr(name, kDatabases[i])) return 1;
  }
  return 0;
}

/* The absolute path where it is on the mount; else 0. */
static const char *on_mount(const char *path, char *room) {
  char here[PATH_MAX];
  if (!mount_length || !path || !*path) return 0;
  if (*path == '/') {
    snprintf(room, ROOM, "%s", path);
  } else {
    if (!getcwd(here, sizeof here)) return 0;
    while (strncmp(path, "./", 2) == 0) path += 2;
    if (!*path || strcmp(path, ".") == 0 || strcmp(path, "..") == 0) return 0;
    snprintf(room, ROOM, "%s/%s", here, path);
  }
  if (strncmp(room, mount_dir, mount_length) != 0 || room[mount_length] != '/' || !room[mount_length + 1]) return 0;
  return room;
}

/* Where a file really is. */
static const char *place(const char *path, char *room) {
  static int (*real_lstat)(const char *, struct stat *);
  char full[ROOM];
  const char *name;
  struct stat info;
  if (!on_mount(path, full)) return path;
  name = strrchr(full, '/') + 1;
  if (!*name || is_databases(name)) return path;
  if (!real_lstat) real_lstat = dlsym(RTLD_NEXT, "lstat");
  if (real_lstat(full, &info) == 0 && S_ISDIR(info.st_mode)) return path;
  snprintf(room, ROOM, "%s%s", plain_dir, full + mount_length);
  return room;
}

#define REAL(result, name, ...)                \
  static result (*real)(__VA_ARGS__);          \
  char room[ROOM];                             \
  if (!real) real = dlsym(RTLD_NEXT, name)

#define OPEN(name)                             \
  int name(const char *path, int flags, ...) { \
    va_list rest;                              \
    mode_t mode;                               \
    REAL(int, #name, const char *, int, ...);  \
    va_start(rest, flags);                     \
    mode = va_arg(rest, mode_t);               \
    va_end(rest);                              \
    return real(place(path, room), flags, mode); \
  }
OPEN(open)
OPEN(open64)

#define WITH(result, name, type)                     \
  result name(const char *path, type argument) {     \
    REAL(result, #name, const char *, type);         \
    return real(place(path, room), argument);        \
  }
WITH(FILE *, fopen, const char *)
WITH(FILE *, fopen64, const char *)
WITH(int, stat, struct stat *)
WITH(int, lstat, struct stat *)
WITH(int, stat64, struct stat64 *)
WITH(int, lstat64, struct stat64 *)
WITH(int, access, int)
WITH(int, chmod, mode_t)
WITH(int, truncate, off_t)
WITH(int, truncate64, off64_t)
WITH(int, utime, const struct utimbuf *)

int unlink(const char *path) {
  REAL(int, "unlink", const char *);
  return real(place(path, room));
}

ssize_t readlink(const char *path, char *text, size_t size) {
  REAL(ssize_t, "readlink", const char *, char *, size_t);
  return real(place(path, room), text, size);
}

int symlink(const char *to, const char *path) {
  REAL(int, "symlink", const char *, const char *);
  return real(to, place(path, room));
}

#define TWO(name)                                        \
  int name(const char *from, const char *to) {           \
    char other[ROOM];                                    \
    REAL(int, #name, const char *, const char *);        \
    return real(place(from, room), place(to, other));    \
  }
TWO(rename)
TWO(link)

int mkdir(const char *path, mode_t mode) {
  char full[ROOM];
  int result, saved;
  REAL(int, "mkdir", const char *, mode_t);
  result = real(path, mode);
  saved = errno;
  if (on_mount(path, full)) {
    snprintf(room, ROOM, "%s%s", plain_dir, full + mount_length);
    real(room, mode);
  }
  errno = saved;
  return result;
}

/* What lies aside is listed after what is on the mount. */
static struct Listing {
  DIR *on_mount;
  DIR *aside;
} listings[64];
static const size_t kListings = sizeof listings / sizeof *listings;

DIR *opendir(const char *path) {
  char full[PATH_MAX];
  DIR *opened;
  size_t i;
  REAL(DIR *, "opendir", const char *);
  opened = real(path);
  if (!opened || !mount_length || !realpath(path, full)) return opened;
  if (strncmp(full, mount_dir, mount_length) != 0 || (full[mount_length] && full[mount_length] != '/')) return opened;
  snprintf(room, ROOM, "%s%s", plain_dir, full + mount_length);
  for (i = 0; i < kListings && listings[i].on_mount; i++) {
  }
  if (i < kListings && (listings[i].aside = real(room)) != 0) listings[i].on_mount = opened;
  return opened;
}

#define READ(name, type)                                                        \
  struct type *name(DIR *dir) {                                                 \
    static struct type *(*real)(DIR *);                                         \
    struct type *entry;                                                         \
    size_t i;                                                                   \
    if (!real) real = dlsym(RTLD_NEXT, #name);                                  \
    if ((entry = real(dir)) != 0) return entry;                                 \
    for (i = 0; i < kListings && listings[i].on_mount != dir; i++) {            \
    }                                                                           \
    if (i == kListings) return 0;                                               \
    while ((entry = real(listings[i].aside)) != 0 && entry->d_name[0] == '.') { \
    }                                                                           \
    return entry;                                                               \
  }
READ(readdir, dirent)
READ(readdir64, dirent64)

int closedir(DIR *dir) {
  static int (*real)(DIR *);
  size_t i;
  if (!real) real = dlsym(RTLD_NEXT, "closedir");
  for (i = 0; i < kListings; i++) {
    if (listings[i].on_mount != dir) continue;
    real(listings[i].aside);
    listings[i].on_mount = 0;
  }
  return real(dir);
}
