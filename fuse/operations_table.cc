// From libfuse's table of C functions to Operations.

#include <fuse_lowlevel.h>

#include <cerrno>

#include "fuse/operations.h"

namespace litefs {

// Named by Operations as a friend; holds nothing.
struct OperationsTable {
  static Operations& self(fuse_req_t request) {
    return *static_cast<Operations*>(static_cast<Device*>(fuse_req_userdata(request))->user());
  }

  static void names(fuse_lowlevel_ops& ops) {
    ops.init = Operations::init;
    ops.lookup = [](fuse_req_t r, fuse_ino_t parent, const char* name) { self(r).lookup(r, parent, name); };
    ops.forget = [](fuse_req_t r, fuse_ino_t id, uint64_t lookups) {
      self(r).forget(id, lookups);
      fuse_reply_none(r);
    };
    ops.forget_multi = [](fuse_req_t r, size_t count, fuse_forget_data* forgets) {
      for (size_t i = 0; i < count; ++i) self(r).forget(forgets[i].ino, forgets[i].nlookup);
      fuse_reply_none(r);
    };
    ops.getattr = [](fuse_req_t r, fuse_ino_t id, fuse_file_info*) { self(r).getattr(r, id); };
    ops.setattr = [](fuse_req_t r, fuse_ino_t id, struct stat* wanted, int which, fuse_file_info*) {
      self(r).setattr(r, id, *wanted, which);
    };
    ops.unlink = [](fuse_req_t r, fuse_ino_t parent, const char* name) { self(r).unlink(r, parent, name); };
    ops.rename = [](fuse_req_t r, fuse_ino_t parent, const char* name, fuse_ino_t new_parent, const char* new_name,
                    unsigned flags) {
      self(r).rename(r, {parent, name, new_parent, new_name, flags});
    };
    ops.statfs = [](fuse_req_t r, fuse_ino_t) { self(r).statfs(r); };
    ops.opendir = [](fuse_req_t r, fuse_ino_t id, fuse_file_info* info) { self(r).opendir(r, id, info); };
    ops.readdir = [](fuse_req_t r, fuse_ino_t, size_t size, off_t offset, fuse_file_info* info) {
      self(r).readdir(r, size, offset, info->fh);
    };
    ops.releasedir = [](fuse_req_t r, fuse_ino_t, fuse_file_info* info) { self(r).releasedir(r, info->fh); };
    ops.fsyncdir = [](fuse_req_t r, fuse_ino_t id, int, fuse_file_info*) { self(r).fsyncdir(r, id); };
    ops.mkdir = [](fuse_req_t r, fuse_ino_t parent, const char* name, mode_t mode) {
      self(r).mkdir(r, parent, name, mode);
    };
    ops.rmdir = [](fuse_req_t r, fuse_ino_t parent, const char* name) { self(r).rmdir(r, parent, name); };
  }

  static void files(fuse_lowlevel_ops& ops) {
    ops.open = [](fuse_req_t r, fuse_ino_t id, fuse_file_info* info) { self(r).open(r, id, info->flags); };
    ops.create = [](fuse_req_t r, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* info) {
      self(r).create(r, parent, name, mode, info->flags);
    };
    ops.release = [](fuse_req_t r, fuse_ino_t id, fuse_file_info*) { self(r).release(r, id); };
    ops.read = [](fuse_req_t r, fuse_ino_t id, size_t size, off_t offset, fuse_file_info*) {
      self(r).read(r, id, size, offset);
    };
    ops.write = [](fuse_req_t r, fuse_ino_t id, const char* data, size_t size, off_t offset, fuse_file_info*) {
      self(r).write(r, id, ByteView(reinterpret_cast<const uint8_t*>(data), size), offset);
    };
    ops.fsync = [](fuse_req_t r, fuse_ino_t id, int data_only, fuse_file_info*) {
      self(r).fsync(r, id, data_only != 0);
    };
  }

  // What a directory of databases does not have.
  static void refusals(fuse_lowlevel_ops& ops) {
    ops.mknod = [](fuse_req_t r, fuse_ino_t, const char*, mode_t, dev_t) { fuse_reply_err(r, EPERM); };
    ops.symlink = [](fuse_req_t r, const char*, fuse_ino_t, const char*) { fuse_reply_err(r, EPERM); };
    ops.link = [](fuse_req_t r, fuse_ino_t, fuse_ino_t, const char*) { fuse_reply_err(r, EPERM); };
  }
};

const fuse_lowlevel_ops& Operations::table() {
  static const fuse_lowlevel_ops ops = [] {
    fuse_lowlevel_ops made = {};
    OperationsTable::names(made);
    OperationsTable::files(made);
    OperationsTable::refusals(made);
    return made;
  }();
  return ops;
}

}  // namespace litefs
