#include "db/reserve.h"

namespace litefs {
namespace {
constexpr uint64_t kReserveBytes = 256u << 10;
}

void Reserve::fill() {
  Result<std::unique_ptr<File>> file = files_.open(path_, OpenMode::kCreate);
  if (file.ok()) static_cast<void>(file.value()->allocate(0, kReserveBytes).ok());
}

Status Reserve::lend(const std::function<Status()>& write) {
  Status written = write();
  if (written.ok() || written.error().code() != ErrorCode::kNoSpace) return written;
  std::unique_ptr<File> file = TRY(files_.open_if_there(path_, OpenMode::kReadWrite));
  if (!file) return written;
  TRY(file->truncate(0));
  return write();
}

}  // namespace litefs
