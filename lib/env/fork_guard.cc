#include "env/fork_guard.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "env/file.h"

namespace litefs {

Result<std::unique_ptr<ForkGuard>> ForkGuard::create() {
  const size_t size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* page = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return errno_error(errno, "map a page that a fork wipes");
  if (madvise(page, size, MADV_WIPEONFORK) != 0) {
    const int error = errno;
    munmap(page, size);
    return Error(ErrorCode::kUnavailable, "this kernel cannot tell a forked process: " + errno_text(error));
  }
  auto* byte = static_cast<volatile unsigned char*>(page);
  *byte = 1;
  return std::unique_ptr<ForkGuard>(new ForkGuard(byte));
}

ForkGuard::~ForkGuard() { munmap(const_cast<unsigned char*>(page_), static_cast<size_t>(sysconf(_SC_PAGESIZE))); }

}  // namespace litefs
