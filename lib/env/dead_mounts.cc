#include "env/dead_mounts.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <sstream>

namespace litefs {
namespace {
constexpr size_t kFileBytesMax = 1 << 20;
// Many databases ask at once.
constexpr int64_t kScanAgainNs = 200'000'000;
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
  unsigned major_number = 0, minor_number = 0;
  char colon = 0;
  while (in >> major_number >> colon >> minor_number) {
    devices_.push_back(makedev(major_number, minor_number));
  }
  if (!in.eof()) return Error(ErrorCode::kCorrupt, path_ + " is not a list of devices; remove it when no application "
                                                           "has files open of an earlier mount");
  return {};
}

Status DeadMounts::add(uint64_t device) {
  MutexLock lock(mutex_);
  if (!devices_.empty()) scan();
  std::erase_if(devices_, [&](uint64_t known) NO_THREAD_SAFETY_ANALYSIS {
    return std::none_of(open_.begin(), open_.end(), [&](const OpenFile& file) { return file.device == known; });
  });
  if (std::find(devices_.begin(), devices_.end(), device) == devices_.end()) devices_.push_back(device);
  std::string text = clock_.boot_id() + "\n";
  for (uint64_t known : devices_) text += std::to_string(major(known)) + ":" + std::to_string(minor(known)) + "\n";
  return files_.write_atomically(path_, as_bytes(text));
}

void DeadMounts::scan() {
  open_ = open_on_dead_devices(devices_);
  scanned_ns_ = clock_.monotonic_ns();
}

std::vector<ProcessName> DeadMounts::holders(const std::vector<std::string>& file_names) {
  MutexLock lock(mutex_);
  std::vector<ProcessName> found;
  if (devices_.empty()) return found;
  if (scanned_ns_ == 0 || clock_.monotonic_ns() - scanned_ns_ > kScanAgainNs) scan();
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
