// Finding and reading the configuration file, with what the process knows: environment, host name, working
// directory. Thread rule: the main thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "node/options.h"

namespace litefs {

struct ConfigSource {
  std::string path;  // empty: the first of config_search_paths() that exists
  bool expand_variables = true;
  bool needs_mount = false;  // else fuse.dir may be missing: the node may run in an application
};

struct LoadedConfig {
  std::string path;
  Options options;
};

// litefs.yml in the working directory, in the home directory, in /etc; as LiteFS.
std::vector<std::string> config_search_paths();

// Besides what parse_options checks: that data.dir and fuse.dir are apart also when symbolic links are followed.
Result<LoadedConfig> load_config(const ConfigSource& source);

// The absolute form of a path from the command line.
std::string absolute_path(const std::string& path);

}  // namespace litefs
