#include "fuse/hooks.h"

namespace litefs {

namespace {

class NoHooks final : public MountHooks {
 public:
  void before_open(const Opening&, std::function<void(Status)> done) override { done(Status()); }
  void opened(const FileName&, const HowOpened&) override {}
  void closed(const FileName&) override {}
  Status before_write(const FileName&, uint64_t, ByteView) override { return {}; }
  Status before_resize(const FileName&, uint64_t) override { return {}; }
  Status before_sync(const FileName&) override { return {}; }
  void after_sync(const FileName&, const Status&) override {}
  Status before_unlink(const FileName&) override { return {}; }
  void after_unlink(const FileName&) override {}
  Status may_rename(const Renaming& renaming) override {
    return renaming.exists ? Status(Error(ErrorCode::kExists, renaming.to.text() + " exists")) : Status();
  }
  Status before_rename(const Renaming&) override { return {}; }
  void after_rename(const Renaming&) override {}
  Status before_mkdir(const std::string&) override { return {}; }
  Status before_rmdir(const std::string&) override { return {}; }
  bool is_virtual_name(const std::string&) override { return false; }
  Result<std::optional<std::string>> virtual_file(const std::string&) override { return std::optional<std::string>(); }
  std::vector<std::string> virtual_names() override { return {}; }
  bool is_visible(const FileName&) override { return true; }
  bool is_settled(const FileName&) override { return true; }
  bool may_pass_through(const FileName&) override { return true; }
};

}  // namespace

std::unique_ptr<MountHooks> no_hooks() { return std::make_unique<NoHooks>(); }

}  // namespace litefs
