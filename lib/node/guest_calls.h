// One call of a guest (guest_wire.h), answered by the node of this process. Thread rule: any thread; it may sync, and
// waits as long as the call says.
#pragma once

#include "node/guest_wire.h"
#include "node/in_process.h"

namespace litefs {

// kInvalid: the name is none of a database's file.
Result<Bytes> answer_guest(InProcessNode& node, const GuestRequest& request);

}  // namespace litefs
