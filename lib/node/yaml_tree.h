// A YAML document as a tree, with the line of each node, for messages that point at it.
//
// Only what a configuration file needs: mappings, lists and scalars. Anchors and aliases, several documents in
// one file, nesting over kYamlDepthMax and text over kYamlBytesMax are errors. Scalars are kept as text; what
// they mean is the reader's business. Thread rule: values, any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

namespace litefs {

inline constexpr size_t kYamlBytesMax = 1 << 20;
inline constexpr int kYamlDepthMax = 16;

struct YamlNode {
  enum class Kind { kNull, kScalar, kList, kMap };
  struct Entry;

  Kind kind = Kind::kNull;
  int line = 1;      // from 1
  std::string text;  // a scalar's
  std::vector<YamlNode> items;
  std::vector<Entry> entries;  // in the file's order, duplicates included
};

struct YamlNode::Entry {
  std::string key;
  int line = 1;
  YamlNode value;
};

// An empty document is kNull. Errors are kInvalid and begin with "FILE:LINE: ".
Result<YamlNode> parse_yaml(const std::string& text, const std::string& file_name);

}  // namespace litefs
