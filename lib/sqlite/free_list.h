// The free list: pages of a database that hold nothing.
//
// Format (file format document, section 1.5): page 1 has at offset 32 the first trunk page and at 36 the number of free
// pages; a trunk holds, big-endian, the next trunk (0: none), the number of its leaves, and their page numbers. A
// leaf's content means nothing, and SQLite writes a leaf without journaling it when it takes it into use
// (PAGER_GET_NOCONTENT in pager.c). Thread rule: plain functions.
#pragma once

#include <functional>

#include "base/bytes.h"
#include "base/result.h"
#include "base/types.h"

namespace litefs {

// Visits the leaves, in the list's order. `read` reads a page. What is damaged ends the list: no error.
Status visit_free_leaves(uint32_t page_size, Pgno size_pages,
                         const std::function<Status(Pgno pgno, MutableByteView page)>& read,
                         const std::function<void(Pgno pgno)>& visit);

}  // namespace litefs
