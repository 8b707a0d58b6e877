// Database at start, where the node's own files (control, change log) are lost or damaged. What they told is taken from
// what is left: the log's last record says which database this is and how far it was, its content says where the files
// are (recover_by_content). A log that is of no more use is put aside under lost/, never removed.
//
// A history that begins anew cannot be taken for the old one: a position's checksum is that of its content, and a
// database whose log and control are both gone gets another id.
#include <algorithm>

#include "db/database.h"

namespace litefs {

Status Database::open_log(std::optional<LogEnd> known_end) {
  ChangeLogOptions options;
  options.segment_bytes = env_.segment_bytes;
  Result<std::unique_ptr<ChangeLog>> opened = ChangeLog::open(env_.files, paths_.log(), options, known_end, env_.log);
  if (opened.ok()) {
    take_log(std::move(opened).value());
    return {};
  }
  if (opened.error().code() != ErrorCode::kCorrupt) return opened.error();
  return put_log_aside(opened.error().message());
}

Status Database::put_log_aside(const std::string& why) {
  apply_cursor_.reset();
  take_log(nullptr);
  TRY(env_.files.make_directories(paths_.lost()));
  const std::string aside = paths_.lost() + "/log-" + hex16(env_.random.nonzero_u64());
  TRY(env_.files.rename(paths_.log(), aside));
  TRY(env_.files.sync_directory(paths_.lost()));
  TRY(env_.files.sync_directory(paths_.meta()));
  env_.log.error("change log put aside, a new one begins").kv("database", name()).kv("why", why).kv("directory", aside);
  ChangeLogOptions options;
  options.segment_bytes = env_.segment_bytes;
  take_log(TRY(ChangeLog::open(env_.files, paths_.log(), options, std::nullopt, env_.log)));
  return {};
}

void Database::take_log(std::unique_ptr<ChangeLog> log) {
  log_ = std::move(log);
  MutexLock lock(status_mutex_);
  log_to_read_ = log_;
}

// Where control is lost: as it would have been after the log's last record. No boot is noted, so that the content
// decides where the files are.
Status Database::rebuild_control() {
  if (control_->existed() || !log_->last()) return {};
  Status rebuilt = control_from_log();
  if (rebuilt.ok() || rebuilt.error().code() == ErrorCode::kUnsupported) return rebuilt;
  return put_log_aside("the control file is lost, and the log does not tell: " + rebuilt.error().message());
}

Status Database::control_from_log() {
  const LogEntryInfo last = *log_->last();
  std::unique_ptr<LogCursor> cursor = TRY(last_entry());
  RecordReader reader = TRY(RecordReader::open(cursor->record()));
  ControlState state;
  state.id = reader.header().database;
  state.page_size = reader.header().page_size;
  state.current = ControlPoint{last.position, reader.header().size_after, WalAnchor::load(last.note.data())};
  state.log_end = log_->end();
  control_->store(state);
  control_rebuilt_ = true;
  env_.log.error("the control file was lost or damaged; taken from the change log")
      .kv("database", name())
      .kv("file", paths_.control())
      .kv("position", last.position);
  return {};
}

// A power cut can leave control as it was before the database had its id.
Status Database::take_id_from_log() {
  const std::optional<LogEntryInfo> last = log_->last();
  if (!last || !control_->state().current.position.before(last->position)) return {};
  std::unique_ptr<LogCursor> cursor = TRY(last_entry());
  ControlState state = control_->state();
  state.id = TRY(RecordReader::open(cursor->record())).header().database;
  if (state.id != control_->state().id) control_->store(state);
  return {};
}

// After recovery: a log that neither ends at the position of the files nor leads on from it is another history's, or
// lacks its end. Nothing could be appended to it.
Status Database::log_meets_files() {
  const Position current = control_->state().current.position;
  if (!log_->last() || log_->last()->position == current) return {};
  Result<std::unique_ptr<LogCursor>> cursor = log_->read_after(current);
  if (cursor.ok()) return {};  // the rest is brought into the files
  if (cursor.error().code() != ErrorCode::kNotFound) return cursor.error();
  return put_log_aside("it ends at " + position_text(log_->last()->position) + ", and the files are at " +
                       position_text(current) + ", which is not in it");
}

// On a replica, where the files are gone or are no database: what there is goes to lost/ as it is, and the database
// begins with nothing, so that the primary sends a copy.
Status Database::salvage(const std::string& why) {
  const std::string aside = paths_.lost() + "/files-" + hex16(env_.random.nonzero_u64());
  const std::string file = paths_.database().substr(paths_.database().rfind('/') + 1);
  TRY(env_.files.make_directories(aside));
  for (const char* suffix : {"", "-wal", "-journal"}) {
    Status moved = env_.files.rename(paths_.database() + suffix, aside + "/" + file + suffix);
    if (!moved.ok() && moved.error().code() != ErrorCode::kNotFound) return moved;
  }
  TRY(env_.files.rename(paths_.log(), aside + "/log"));
  for (const std::string& directory : {aside, paths_.lost(), paths_.meta(), directory_of(paths_.database())}) {
    TRY(env_.files.sync_directory(directory));
  }
  env_.log.error("the database cannot be opened; its files are put aside, and a copy will come from the primary")
      .kv("database", name())
      .kv("why", why)
      .kv("directory", aside);
  apply_cursor_.reset();
  file_.reset();
  tail_->forget();
  TRY(open_log(std::nullopt));
  sums_->shrink(0);
  advance(ControlPoint());
  return {};
}

Status Database::drop_stopped() {
  MutexLock lock(mutex_);
  if (!control_ || !sums_ || !log_ || start_epoch_.value == 0) {
    return Error(ErrorCode::kIo, "'" + name() + "' cannot be deleted here: stop the node, and remove " + paths_.meta() +
                                     " and " + paths_.database());
  }
  // What stopped it may have left the log refusing to write.
  TRY(open_log(std::nullopt));
  const Position position = log_->last() ? log_->last()->position : control_->state().current.position;
  if (position.txid.value != 0) TRY(record_drop(position));
  TRY(remove_companion_files());
  tail_->forget();
  tail_->set_anchor(WalAnchor());
  tail_->set_index_in_use(false);
  file_.reset();
  epoch_ = start_epoch_;
  started_ = true;
  {
    MutexLock status(status_mutex_);
    info_.state = DatabaseState::kReady;
    info_.detail = "";
  }
  env_.observer.changed(name());
  env_.log.warning("stopped database deleted")
      .kv("database", name())
      .kv("txid", control_->state().current.position.txid);
  return {};
}

Status Database::record_drop(const Position& position) {
  ControlState state = control_->state();
  state.current = ControlPoint{position, std::max<Pgno>(1, state.current.size_pages), WalAnchor()};
  control_->store(state);
  begin_batch();
  RecordHeader header;
  header.flags = RecordHeader::kDrop;
  header.database = state.id;
  header.epoch = start_epoch_;
  header.txid_first = header.txid_last = TxId{position.txid.value + 1};
  header.wall_ms = env_.clock.wall_ms();
  header.before = position.checksum;
  header.origin = env_.node;
  RecordEncoder encoder(codec_, header);
  encoder.finish(Checksum{});
  TRY(commit_record(encoder, header, Checksum{}, {}, WalAnchor(), false));
  TRY(flush_batch());
  TRY(log_->sync());
  state = control_->state();
  state.planned_kind = PlannedKind::kRemove;
  state.planned = state.current;
  control_->store(state);
  return {};
}

}  // namespace litefs
