#include "fuse/mount_point.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>

#include "env/file.h"

namespace litefs {

namespace {

constexpr std::chrono::milliseconds kProbeMax{2000};
constexpr int kDeadMountsMax = 16;  // stacked on one directory
constexpr int kLinksMax = 16;

// mountinfo writes blanks and backslashes of a path as three octal digits.
std::string unescape(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      out.push_back(static_cast<char>(std::stoi(text.substr(i + 1, 3), nullptr, 8)));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

Result<std::string> real_path(const std::string& path) {
  std::unique_ptr<char, decltype(&free)> resolved(realpath(path.c_str(), nullptr), &free);
  if (!resolved) return errno_error(errno, "resolving " + path);
  return std::string(resolved.get());
}

Status check_empty_directory(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) {
      return Error(ErrorCode::kNotFound, "the mount point " + path + " does not exist");
    }
    return errno_error(errno, "looking at the mount point " + path);
  }
  if (!S_ISDIR(info.st_mode)) {
    return Error(ErrorCode::kInvalid, "the mount point " + path + " is not a directory");
  }
  std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(path.c_str()), &closedir);
  if (!directory) return errno_error(errno, "reading the mount point " + path);
  while (const dirent* entry = readdir(directory.get())) {
    std::string name = entry->d_name;
    if (name != "." && name != "..") {
      return Error(ErrorCode::kInvalid,
                   "the mount point " + path + " is not empty: what it holds would be hidden");
    }
  }
  return {};
}

bool is_dead(const MountedHere& mounted, const std::string& path, MountClient& client) {
  if (!mounted.type.starts_with("fuse")) return false;
  Result<MountClient::Answer> answer = client.probe(path, kProbeMax);
  return answer && (answer.value().error == ENOTCONN || answer.value().error == ECONNABORTED);
}

}  // namespace

Result<std::optional<MountedHere>> mounted_on(const std::string& path) {
  std::ifstream mountinfo("/proc/self/mountinfo");
  if (!mountinfo) return Error(ErrorCode::kIo, "reading /proc/self/mountinfo");
  std::optional<MountedHere> topmost;
  std::string line;
  while (std::getline(mountinfo, line)) {
    // id parent major:minor root mount-point options… - type source options
    std::istringstream fields(line);
    std::string id, parent, device, root, at, word;
    fields >> id >> parent >> device >> root >> at;
    if (unescape(at) != path) continue;
    while (fields >> word && word != "-") {
    }
    MountedHere mounted;
    fields >> mounted.type;
    unsigned major = 0, minor = 0;
    char colon;
    std::istringstream(device) >> major >> colon >> minor;
    mounted.device = makedev(major, minor);
    // Later lines were mounted later.
    topmost = mounted;
  }
  return topmost;
}

Result<std::string> canonical_mount_point(const std::string& path) {
  std::string left = path;
  for (int links = 0; links < kLinksMax; ++links) {
    while (left.size() > 1 && left.back() == '/') left.pop_back();
    std::string parent = directory_of(left);
    std::string last = left.substr(left.rfind('/') + 1);
    if (last.empty() || last == "." || last == "..") return real_path(left);
    Result<std::string> above = real_path(parent);
    if (!above) {
      if (above.error().code() != ErrorCode::kNotFound) return above.error();
      return Error(ErrorCode::kNotFound, "the mount point " + path + " does not exist");
    }
    std::string whole = above.value() == "/" ? "/" + last : above.value() + "/" + last;
    // Not realpath for the last step: readlink puts no request to what is mounted there.
    char target[PATH_MAX];
    ssize_t n = readlink(whole.c_str(), target, sizeof target);
    if (n < 0) return whole;
    std::string link(target, static_cast<size_t>(n));
    left = link.starts_with("/") ? link : above.value() + "/" + link;
  }
  return Error(ErrorCode::kInvalid, "the mount point " + path + " is a loop of symbolic links");
}

Status prepare_mount_point(const std::string& path, MountClient& client, const Log& log) {
  for (int i = 0; i < kDeadMountsMax; ++i) {
    std::optional<MountedHere> mounted = TRY(mounted_on(path));
    if (!mounted) return check_empty_directory(path);
    if (!is_dead(*mounted, path, client)) break;
    if (umount2(path.c_str(), MNT_FORCE | MNT_DETACH) != 0) {
      return errno_error(errno, "unmounting the dead mount on " + path);
    }
    log.warning("dead mount removed").kv("path", path).kv("type", mounted->type);
  }
  return Error(ErrorCode::kExists,
               "something is mounted on " + path +
                   " already: another litefs, or a file system of somebody else");
}

Status mount_device(const MountRequest& request) {
  std::string options = "fd=" + std::to_string(request.device_fd) +
                        ",rootmode=40000,user_id=" + std::to_string(geteuid()) +
                        ",group_id=" + std::to_string(getegid()) + ",default_permissions";
  if (request.allow_other) options += ",allow_other";
  std::string type = "fuse." + request.fs_name;
  if (mount(request.fs_name.c_str(), request.path.c_str(), type.c_str(),
            MS_NOSUID | MS_NODEV | MS_NOATIME, options.c_str()) == 0) {
    return {};
  }
  switch (errno) {
    case EPERM:
    case EACCES:
      return Error(ErrorCode::kUnavailable,
                   "no permission to mount on " + request.path + ": CAP_SYS_ADMIN is needed");
    case ENODEV: return Error(ErrorCode::kUnavailable, "this kernel has no FUSE file system");
    default: return errno_error(errno, "mounting on " + request.path);
  }
}

Status end_mount(const std::string& path, dev_t device, const Log& log) {
  std::optional<MountedHere> mounted = TRY(mounted_on(path));
  if (!mounted || mounted->device != device) {
    log.warning("the mount has been unmounted by somebody else").kv("path", path);
    return {};
  }
  // MNT_FORCE ends the connection, in every mount namespace that has a copy of this mount, busy or
  // not.
  if (umount2(path.c_str(), MNT_FORCE | UMOUNT_NOFOLLOW) == 0) return {};
  if (errno != EBUSY) return errno_error(errno, "unmounting " + path);
  if (umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0) {
    return errno_error(errno, "detaching " + path);
  }
  log.warning("the mount was busy: detached; applications with open files get errors")
      .kv("path", path);
  return {};
}

}  // namespace litefs
