#include "env/dead_mounts.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <cstdio>
#include <sstream>

namespace litefs {
namespace {
constexpr size_t kFileBytesMax = 1 << 20;
// Many databases ask at once, and then the new mount is added.
constexpr int64_t kScanAgainNs = 200'000'000;

std::string device_text(uint64_t device) {
  return std::to_string(major(device)) + ":" + std::to_string(minor(device)) + "\n";
}
}  // namespace

Result<std::unique_ptr<DeadMounts>> DeadMounts::open(FileSystem& files, Clock& clock, const std::string& path) {
  auto mounts = std::unique_ptr<DeadMounts>(new DeadMounts(files, clock, path));
  if (!TRY(files.exists(path))) return mounts;
  const Bytes text = TRY(files.read_all(path, kFileBytesMax));
  MutexLock lock(mounts->mutex_);
  TRY(mounts->parse(std::string(text.begin(), text.end())));
  return mounts;
}

Status DeadMounts::parse(const std::string& text) {
  std::istringstream in(text);
  std::string boot;
  std::getline(in, boot);
  if (boot != clock_.boot_id()) return {};  // nobody lives that long
  for (std::string line; std::getline(in, line);) {
    unsigned major_number = 0, minor_number = 0;
    int used = 0;
    const int found = std::sscanf(line.c_str(), "%u:%u%n", &major_number, &minor_number, &used);
    if (found != 2 || static_cast<size_t>(used) != line.size()) {
      return Error(ErrorCode::kCorrupt, path_ + ": '" + line +
                                            "' is no device; remove the file when no application has "
                                            "files open of an earlier mount");
    }
    devices_.push_back(makedev(major_number, minor_number));
  }
  return {};
}

Status DeadMounts::add(uint64_t device) {
  MutexLock lock(mutex_);
  std::erase(devices_, device);  // the number of one that is gone
  scan_when_due();
  std::string text = clock_.boot_id() + "\n";
  for (uint64_t one : devices_) text += device_text(one);
  return files_.write_atomically(path_, as_bytes(text + device_text(device)));
}

void DeadMounts::scan_when_due() {
  const int64_t now_ns = clock_.monotonic_ns();
  if (scanned_ns_ != 0 && now_ns - scanned_ns_ <= kScanAgainNs) return;
  scanned_ns_ = now_ns;
  open_ = devices_.empty() ? std::vector<OpenFile>() : open_on_dead_devices(devices_);
  std::erase_if(devices_, [&](uint64_t device) NO_THREAD_SAFETY_ANALYSIS {
    return std::none_of(open_.begin(), open_.end(), [&](const OpenFile& file) { return file.device == device; });
  });
}

std::vector<ProcessName> DeadMounts::holders(const std::vector<std::string>& file_names) {
  MutexLock lock(mutex_);
  std::vector<ProcessName> found;
  if (devices_.empty()) return found;
  scan_when_due();
  for (const OpenFile& file : open_) {
    const bool named = std::any_of(file_names.begin(), file_names.end(),
                                   [&](const std::string& name) { return file.path.ends_with("/" + name); });
    const bool known = std::any_of(found.begin(), found.end(),
                                   [&](const ProcessName& process) { return process.pid == file.process.pid; });
    if (named && !known) found.push_back(file.process);
  }
  return found;
}

}  // namespace litefs
