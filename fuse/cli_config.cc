#include "fuse/cli_config.h"

#include <pwd.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "env/file.h"
#include "env/process.h"
#include "node/yaml_tree.h"

namespace litefs {
namespace {

namespace fs = std::filesystem;

std::string home_directory() {
  if (const char* home = std::getenv("HOME")) return home;
  struct passwd entry;
  struct passwd* found = nullptr;
  char buffer[4096];
  if (getpwuid_r(getuid(), &entry, buffer, sizeof buffer, &found) != 0 || !found) return "";
  return found->pw_dir;
}

OptionsContext process_context(const ConfigSource& source) {
  OptionsContext context;
  context.needs_mount = source.needs_mount;
  context.hostname = machine_hostname();
  context.working_directory = absolute_path(".");
  if (source.expand_variables) {
    context.variable = [](const std::string& name) -> std::optional<std::string> {
      const char* value = std::getenv(name.c_str());
      if (!value) return std::nullopt;
      return value;
    };
  }
  return context;
}

Result<std::string> choose_path(FileSystem& files, const std::string& named) {
  if (!named.empty()) return named;
  std::string looked;
  for (const std::string& path : config_search_paths()) {
    if (TRY(files.exists(path))) return path;
    looked += (looked.empty() ? "" : ", ") + path;
  }
  return Error(ErrorCode::kNotFound, "no configuration file; looked for " + looked + " (-config FILE names another)");
}

// Follows symbolic links of everything but the last name: a mount point itself is not touched, since behind it
// there may be a mount whose process does not answer.
std::string resolved(const std::string& path) {
  std::error_code error;
  fs::path parent = fs::weakly_canonical(fs::path(path).parent_path(), error);
  return error ? path : (parent / fs::path(path).filename()).string();
}

}  // namespace

std::vector<std::string> config_search_paths() {
  std::vector<std::string> paths = {"litefs.yml"};
  std::string home = home_directory();
  if (!home.empty()) paths.push_back(home + "/litefs.yml");
  paths.push_back("/etc/litefs.yml");
  return paths;
}

std::string absolute_path(const std::string& path) {
  std::error_code error;
  fs::path absolute = fs::absolute(path, error);
  std::string text = (error ? fs::path(path) : absolute.lexically_normal()).string();
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

Result<LoadedConfig> load_config(const ConfigSource& source) {
  std::unique_ptr<FileSystem> files = posix_file_system();
  LoadedConfig config;
  config.path = TRY(choose_path(*files, source.path));
  Bytes bytes = TRY(files->read_all(config.path, kYamlBytesMax));
  std::string text(bytes.begin(), bytes.end());
  config.options = TRY(parse_options(text, config.path, process_context(source)));
  if (config.options.fuse_dir.empty()) return config;
  std::string data = resolved(config.options.data_dir), mount = resolved(config.options.fuse_dir);
  if (is_inside(data, mount) || is_inside(mount, data)) {
    return Error(ErrorCode::kInvalid,
                 config.path + ": data.dir (" + data + ") and fuse.dir (" + mount + ") must be directories apart");
  }
  return config;
}

}  // namespace litefs
