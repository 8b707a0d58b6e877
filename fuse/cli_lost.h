// What `litefs lost` prints: the states that a node kept before they were overwritten (db/lost_state.h).
// Thread rule: pure functions.
#pragma once

#include <string>

#include "db/lost_state.h"

namespace litefs {

// A paragraph for each state, in the order given; says so when there is none.
std::string lost_as_text(const LostStates& lost);
// {"lost": [{database, database_id, id, kept_at_ms, why, position, epoch, diverged_at, diverged_epoch, transactions,
// page_size, pages, bytes, image}]}; null for what is not known.
std::string lost_as_json(const LostStates& lost);

}  // namespace litefs
