#include "node/local_requests.h"

#include <algorithm>

namespace litefs {
namespace {

constexpr std::string_view kImport = "import ";
constexpr std::string_view kExport = "export ";
constexpr std::string_view kVersion = "1 ";

}  // namespace

Result<LocalRequest> parse_local_request(std::string_view line) {
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.remove_suffix(1);
  LocalRequest request;
  std::string_view verb;
  if (line.starts_with(kImport)) {
    request.kind = LocalRequest::Kind::kImport;
    verb = kImport;
  } else if (line.starts_with(kExport)) {
    request.kind = LocalRequest::Kind::kExport;
    verb = kExport;
  } else {
    request.argument = line;
    return request;
  }
  line.remove_prefix(verb.size());
  if (!line.starts_with(kVersion)) {
    return Error(ErrorCode::kUnsupported,
                 "the running node and this program are of versions that "
                 "do not go together; restart the node");
  }
  line.remove_prefix(kVersion.size());
  request.argument = line;
  return request;
}

std::string import_request(const std::string& name) {
  return std::string(kImport) + std::string(kVersion) + name + "\n";
}

std::string export_request(const std::string& name) {
  return std::string(kExport) + std::string(kVersion) + name + "\n";
}

std::string local_error(const Error& error) {
  std::string text = error.message();
  std::replace(text.begin(), text.end(), '\n', ' ');
  return kLocalError + text + "\n";
}

}  // namespace litefs
