#include "node/open_options.h"

#include <cstddef>
#include <cstdlib>
#include <filesystem>

#include "env/file.h"
#include "env/process.h"
#include "litefs/litefs.h"
#include "node/values.h"
#include "node/yaml_tree.h"

namespace litefs {
namespace {

class FunctionLogSink final : public LogSink {
 public:
  FunctionLogSink(litefs_log_function log, void* context) : log_(log), context_(context) {}
  void write(LogLevel level, std::string_view line) override {
    log_(context_, LITEFS_LOG_DEBUG + static_cast<int>(level), std::string(line).c_str());
  }

 private:
  const litefs_log_function log_;
  void* const context_;
};

Error invalid(const std::string& why) { return Error(ErrorCode::kInvalid, why); }

Result<Options> from_file(const litefs_options& given) {
  if (given.data_dir || given.listen || given.hostname || given.primary_url || given.candidate != 0 ||
      given.retention_ms != 0 || given.retention_bytes != 0) {
    return invalid("with config_path the options from data_dir to retention_bytes must be 0");
  }
  OptionsContext context;
  context.variable = [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    return value ? std::optional<std::string>(value) : std::nullopt;
  };
  context.hostname = machine_hostname();
  context.working_directory = std::filesystem::current_path().string();
  context.needs_mount = false;
  const Bytes text = TRY(posix_file_system()->read_all(given.config_path, kYamlBytesMax));
  Options options = TRY(parse_options(std::string(text.begin(), text.end()), given.config_path, context));
  options.fuse_dir.clear();
  return options;
}

// The member's own parser, whose error is about the value.
template <class T>
Result<T> parsed(const char* member, const char* value, Result<T> (*parse)(const std::string&)) {
  Result<T> result = parse(value);
  return result.ok() ? std::move(result) : Result<T>(result.error().with_context(member));
}

Result<Options> from_members(const litefs_options& given) {
  Options options;
  if (!given.data_dir || !*given.data_dir) return invalid("data_dir is missing; it names the directory for the data");
  options.data_dir = std::filesystem::absolute(given.data_dir).lexically_normal().string();
  while (options.data_dir.size() > 1 && options.data_dir.back() == '/') options.data_dir.pop_back();
  if (given.listen) options.listen = TRY(parsed("listen", given.listen, parse_listen_address));
  options.hostname = given.hostname ? given.hostname : machine_hostname();
  for (char c : options.hostname) {
    if (c <= ' ' || c == 127) return invalid("hostname has a space or a control character");
  }
  if (options.hostname.empty() || options.hostname.size() > 255) return invalid("hostname has not 1 to 255 characters");
  options.candidate = given.candidate != 0;
  if (given.primary_url) {
    options.primary = TRY(parsed("primary_url", given.primary_url, parse_http_url));
  } else if (options.candidate) {
    options.primary = {options.hostname, options.listen.port};
  } else {
    return invalid("primary_url is missing; a replica finds the primary by it, as http://host:20202");
  }
  if (given.retention_ms > static_cast<litefs_uint64>(kDurationMsMax)) return invalid("retention_ms is too large");
  if (given.retention_ms != 0) options.retention_ms = static_cast<int64_t>(given.retention_ms);
  if (given.retention_bytes != 0) options.retention_bytes = given.retention_bytes;
  return options;
}

}  // namespace

Result<OpenOptions> read_open_options(const litefs_options& given) {
  // Grows with the versions: what an older caller does not have is 0.
  constexpr size_t kSizeMin = offsetof(litefs_options, log_level) + sizeof(int);
  if (given.size < kSizeMin) return invalid("options.size is " + std::to_string(given.size) + "; LITEFS_OPTIONS_INIT");
  Options options = given.config_path ? TRY(from_file(given)) : TRY(from_members(given));
  if (given.log_level < 0 || given.log_level > LITEFS_LOG_ERROR) return invalid("log_level is none of LITEFS_LOG_…");
  if (given.log_level != 0) options.log_level = static_cast<LogLevel>(given.log_level - LITEFS_LOG_DEBUG);
  std::shared_ptr<LogSink> sink =
      given.log ? std::make_shared<FunctionLogSink>(given.log, given.log_context) : null_log_sink();
  Log log(std::move(sink), options.log_level);
  return OpenOptions{std::move(options), log};
}

}  // namespace litefs
