#include "node/yaml_tree.h"

#include <yaml.h>

namespace litefs {
namespace {

class Event {
 public:
  Event() = default;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() {
    if (filled_) yaml_event_delete(&event_);
  }
  bool read(yaml_parser_t* parser) {
    filled_ = yaml_parser_parse(parser, &event_) == 1;
    return filled_;
  }
  const yaml_event_t& operator*() const { return event_; }
  const yaml_event_t* operator->() const { return &event_; }
  int line() const { return static_cast<int>(event_.start_mark.line) + 1; }

 private:
  yaml_event_t event_;
  bool filled_ = false;
};

class Parser {
 public:
  Parser(const std::string& text, const std::string& file_name) : file_name_(file_name) {
    CHECK_EQ(yaml_parser_initialize(&parser_), 1);
    yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char*>(text.data()), text.size());
  }
  ~Parser() { yaml_parser_delete(&parser_); }
  Parser(const Parser&) = delete;
  Parser& operator=(const Parser&) = delete;

  Result<YamlNode> document() {
    TRY(expect(YAML_STREAM_START_EVENT));
    YamlNode root;
    for (bool seen = false;; seen = true) {
      Event event;
      if (!event.read(&parser_)) return syntax_error();
      if (event->type == YAML_STREAM_END_EVENT) return root;
      if (seen) return error(event.line(), "a second document begins; a file holds one");
      Event content;
      if (!content.read(&parser_)) return syntax_error();
      root = TRY(node(content, 0));
      TRY(expect(YAML_DOCUMENT_END_EVENT));
    }
  }

 private:
  Error error(int line, const std::string& message) const {
    return Error(ErrorCode::kInvalid, file_name_ + ":" + std::to_string(line) + ": " + message);
  }

  Error syntax_error() const {
    std::string message = "not YAML: ";
    if (parser_.context) message += std::string(parser_.context) + ": ";
    message += parser_.problem ? parser_.problem : "cannot be read";
    // A reader error (bad UTF-8) has an offset and no mark.
    return error(static_cast<int>(parser_.problem_mark.line) + 1, message);
  }

  // The parser itself guarantees the shape; only a syntax error can come in between.
  Status expect(yaml_event_type_t type) {
    Event event;
    if (!event.read(&parser_)) return syntax_error();
    CHECK_EQ(static_cast<int>(event->type), static_cast<int>(type));
    return {};
  }

  Result<YamlNode> node(const Event& event, int depth) {
    if (depth > kYamlDepthMax) return error(event.line(), "nested too deeply");
    switch (event->type) {
      case YAML_SCALAR_EVENT: return scalar(event);
      case YAML_SEQUENCE_START_EVENT: return list(event, depth);
      case YAML_MAPPING_START_EVENT: return map(event, depth);
      default: return error(event.line(), "aliases (*name) are not supported");
    }
  }

  Result<YamlNode> scalar(const Event& event) {
    const auto& data = event->data.scalar;
    YamlNode result;
    result.line = event.line();
    result.text.assign(reinterpret_cast<const char*>(data.value), data.length);
    bool plain = data.style == YAML_PLAIN_SCALAR_STYLE;
    bool null = plain && (result.text.empty() || result.text == "~" || result.text == "null");
    result.kind = null ? YamlNode::Kind::kNull : YamlNode::Kind::kScalar;
    return result;
  }

  Result<YamlNode> list(const Event& start, int depth) {
    YamlNode result;
    result.kind = YamlNode::Kind::kList;
    result.line = start.line();
    for (;;) {
      Event event;
      if (!event.read(&parser_)) return syntax_error();
      if (event->type == YAML_SEQUENCE_END_EVENT) return result;
      result.items.push_back(TRY(node(event, depth + 1)));
    }
  }

  Result<YamlNode> map(const Event& start, int depth) {
    YamlNode result;
    result.kind = YamlNode::Kind::kMap;
    result.line = start.line();
    for (;;) {
      Event event;
      if (!event.read(&parser_)) return syntax_error();
      if (event->type == YAML_MAPPING_END_EVENT) return result;
      if (event->type != YAML_SCALAR_EVENT) return error(event.line(), "a key must be a word");
      YamlNode::Entry entry;
      entry.key = TRY(scalar(event)).text;
      entry.line = event.line();
      Event value;
      if (!value.read(&parser_)) return syntax_error();
      entry.value = TRY(node(value, depth + 1));
      result.entries.push_back(std::move(entry));
    }
  }

  const std::string& file_name_;
  yaml_parser_t parser_;
};

}  // namespace

Result<YamlNode> parse_yaml(const std::string& text, const std::string& file_name) {
  if (text.size() > kYamlBytesMax) {
    return Error(ErrorCode::kInvalid, file_name + ":1: longer than " + std::to_string(kYamlBytesMax) + " bytes");
  }
  return Parser(text, file_name).document();
}

}  // namespace litefs
