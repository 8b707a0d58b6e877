#include "fuse/mount_point.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <utility>
#include <vector>

#include "env/file.h"

namespace litefs {

namespace {

constexpr std::chrono::milliseconds kProbeMax{2000};
constexpr int kDeadMountsMax = 16;  // stacked on one directory
constexpr int kLinksMax = 16;
constexpr size_t kNamesShownMax = 3;
constexpr unsigned kMoveMountBeneath = 0x200;  // Linux 6.5; glibc's header has no name for it

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
  std::vector<std::string> names;
  while (const dirent* entry = readdir(directory.get())) {
    std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  if (names.empty()) return {};
  std::sort(names.begin(), names.end());
  std::string some;
  for (size_t i = 0; i < names.size() && i < kNamesShownMax; ++i) {
    some += (i == 0 ? "" : ", ") + names[i];
  }
  if (names.size() > kNamesShownMax) some += ", ...";
  return Error(ErrorCode::kInvalid, "the mount point " + path + " is not empty, and what it holds would be hidden: " +
                                        some + " (made while no node ran? move it away, then start again)");
}

// One line of mountinfo, as far as it matters here.
struct MountLine {
  uint64_t id = 0;
  uint64_t parent = 0;
  MountedHere mounted;
};

// All that is mounted on `path`, from the lowest to the topmost: each is its successor's parent.
// (The order of the lines is that of the ids, and a mount may have been put beneath an older one.)
Result<std::vector<MountLine>> mounts_on(const std::string& path) {
  std::ifstream mountinfo("/proc/self/mountinfo");
  if (!mountinfo) return errno_error(errno, "reading /proc/self/mountinfo");
  std::vector<MountLine> found;
  std::string line;
  while (std::getline(mountinfo, line)) {
    // id parent major:minor root mount-point options… - type source options
    std::istringstream fields(line);
    MountLine mount;
    std::string device, root, at, word;
    fields >> mount.id >> mount.parent >> device >> root >> at;
    if (unescape(at) != path) continue;
    while (fields >> word && word != "-") {
    }
    fields >> mount.mounted.type;
    unsigned major = 0, minor = 0;
    char colon;
    std::istringstream(device) >> major >> colon >> minor;
    mount.mounted.device = makedev(major, minor);
    found.push_back(mount);
  }
  auto is_upper = [&](const MountLine& mount) {
    return std::any_of(found.begin(), found.end(), [&](const MountLine& other) { return other.id == mount.parent; });
  };
  // Where a directory above was mounted over, there are several lowest: the last one is reached.
  auto lowest = std::find_if_not(found.rbegin(), found.rend(), is_upper);
  std::vector<MountLine> stack;
  if (lowest == found.rend()) return stack;
  stack.push_back(*lowest);
  for (;;) {
    auto next = std::find_if(found.begin(), found.end(),
                             [&](const MountLine& mount) { return mount.parent == stack.back().id; });
    if (next == found.end() || stack.size() >= found.size()) return stack;
    stack.push_back(*next);
  }
}

bool is_fuse(const MountedHere& mounted) { return mounted.type.starts_with("fuse"); }

bool is_dead(const MountedHere& mounted, const std::string& path, MountClient& client) {
  if (!is_fuse(mounted)) return false;
  Result<MountClient::Answer> answer = client.probe(path, kProbeMax);
  return answer && (answer.value().error == ENOTCONN || answer.value().error == ECONNABORTED);
}

// The topmost mount, which is known to be dead.
Status remove_dead_mount(const std::string& path, const Log& log) {
  if (umount2(path.c_str(), MNT_FORCE | MNT_DETACH) != 0) {
    return errno_error(errno, "unmounting the dead mount on " + path);
  }
  log.warning("dead mount removed").kv("path", path);
  return {};
}

Error mount_error(int error) {
  switch (error) {
    case EPERM:
    case EACCES: return Error(ErrorCode::kUnavailable, "no permission to mount: CAP_SYS_ADMIN is needed");
    case ENODEV: return Error(ErrorCode::kUnavailable, "this kernel has no FUSE file system");
    default: return errno_error(error, "making a FUSE mount");
  }
}

}  // namespace

Result<std::optional<MountedHere>> mounted_on(const std::string& path) {
  std::vector<MountLine> stack = TRY(mounts_on(path));
  return stack.empty() ? std::optional<MountedHere>() : std::move(stack.back().mounted);
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

Result<MountPointState> check_mount_point(const std::string& path, MountClient& client, const Log& log) {
  for (int i = 0; i < kDeadMountsMax; ++i) {
    std::vector<MountLine> stack = TRY(mounts_on(path));
    if (stack.empty()) {
      TRY(check_empty_directory(path));
      return MountPointState::kEmpty;
    }
    if (!is_dead(stack.back().mounted, path, client)) break;
    if (stack.size() == 1) return MountPointState::kDeadMount;
    // Something else beneath it would be ours to hide no more than when it lies on top.
    if (!is_fuse(stack[stack.size() - 2].mounted)) break;
    TRY(remove_dead_mount(path, log));
  }
  return Error(ErrorCode::kExists,
               "something is mounted on " + path + " already: another litefs, or a file system of somebody else");
}

Result<Descriptor> make_mount(const MountRequest& request) {
  Descriptor context(fsopen("fuse", FSOPEN_CLOEXEC));
  if (!context.valid()) return mount_error(errno);
  const std::pair<const char*, std::string> settings[] = {
      {"source", request.fs_name}, {"subtype", request.fs_name},           {"fd", std::to_string(request.device_fd)},
      {"rootmode", "40000"},       {"user_id", std::to_string(geteuid())}, {"group_id", std::to_string(getegid())},
  };
  for (const auto& [key, value] : settings) {
    if (fsconfig(context.get(), FSCONFIG_SET_STRING, key, value.c_str(), 0) != 0) {
      return mount_error(errno);
    }
  }
  for (const char* flag : {"default_permissions", "allow_other"}) {
    if (flag == std::string("allow_other") && !request.allow_other) continue;
    if (fsconfig(context.get(), FSCONFIG_SET_FLAG, flag, nullptr, 0) != 0) {
      return mount_error(errno);
    }
  }
  if (fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return mount_error(errno);
  }
  Descriptor mount(fsmount(context.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME));
  if (!mount.valid()) return mount_error(errno);
  return mount;
}

Status attach_mount(const Descriptor& mount, const std::string& path, MountPointState on_it, const Log& log) {
  const bool beneath = on_it == MountPointState::kDeadMount;
  unsigned flags = MOVE_MOUNT_F_EMPTY_PATH | (beneath ? kMoveMountBeneath : 0);
  if (move_mount(mount.get(), "", AT_FDCWD, path.c_str(), flags) != 0) {
    return errno_error(errno, beneath ? "mounting beneath the dead mount on " + path : "mounting on " + path);
  }
  return beneath ? remove_dead_mount(path, log) : Status();
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
  log.warning("the mount was busy: detached; applications with open files get errors").kv("path", path);
  return {};
}

}  // namespace litefs
