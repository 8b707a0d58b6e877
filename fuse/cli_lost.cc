#include "fuse/cli_lost.h"

#include <ctime>

#include "node/json_writer.h"
#include "node/status.h"

namespace litefs {
namespace {

std::string utc(int64_t wall_ms) {
  const time_t seconds = static_cast<time_t>(wall_ms / 1000);
  struct tm parts {};
  char text[32] = "?";
  if (gmtime_r(&seconds, &parts)) strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

std::string transactions_text(const LostState& state) {
  if (!state.transactions) return "how many transactions is not known";
  return std::to_string(*state.transactions) + (*state.transactions == 1 ? " transaction" : " transactions");
}

}  // namespace

std::string lost_as_text(const LostStates& lost) {
  if (lost.entries.empty()) return "nothing is lost: no state was overwritten that only this node had\n";
  std::string out;
  for (const LostStates::Entry& entry : lost.entries) {
    const LostState& s = entry.state;
    if (!out.empty()) out += "\n";
    out += s.database + "  " + s.id() + "\n";
    out += "  kept          " + utc(s.kept_wall_ms) + ", because " + s.why + "\n";
    out += "  position      " + position_text(s.position) + ", epoch " + std::to_string(s.position.epoch.value) + "\n";
    out += "  diverged at   " +
           (s.diverged_at ? position_text(*s.diverged_at) + ", epoch " + std::to_string(s.diverged_at->epoch.value)
                          : std::string("not known")) +
           "; " + transactions_text(s) + "\n";
    out += "  size          " + size_text(s.size_bytes()) + "\n";
  }
  return out;
}

std::string lost_as_json(const LostStates& lost) {
  JsonWriter json;
  json.begin_object().key("lost").begin_array();
  for (const LostStates::Entry& entry : lost.entries) {
    const LostState& s = entry.state;
    json.begin_object();
    json.key("database").value(s.database);
    json.key("database_id").value(hex16(s.database_id.value));
    json.key("id").value(s.id());
    json.key("kept_at_ms").value(s.kept_wall_ms);
    json.key("why").value(s.why);
    json.key("position").value(position_text(s.position));
    json.key("epoch").value(s.position.epoch.value);
    json.key("diverged_at");
    s.diverged_at ? json.value(position_text(*s.diverged_at)) : json.null();
    json.key("diverged_epoch");
    s.diverged_at ? json.value(s.diverged_at->epoch.value) : json.null();
    json.key("transactions");
    s.transactions ? json.value(*s.transactions) : json.null();
    json.key("page_size").value(s.page_size);
    json.key("pages").value(s.size_pages);
    json.key("bytes").value(s.size_bytes());
    json.key("image").value(entry.image_path);
    json.end_object();
  }
  return json.end_array().end_object().take();
}

}  // namespace litefs
