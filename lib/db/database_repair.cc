// Database at start, where the node's own files (control, change log) are lost or damaged. What they told is taken from
// what is left: the log's last record says which database this is and how far it was, its content says where the files
// are (recover_by_content). A log that is of no more use is put aside under lost/, never removed.
//
// A history that begins anew cannot be taken for the old one: a position's checksum is that of its content, and a
// database whose log and control are both gone gets another id.
#include "db/database.h"

namespace litefs {

Status Database::open_log(std::optional<LogEnd> known_end) {
  ChangeLogOptions options;
  options.segment_bytes = env_.segment_bytes;
  Result<std::unique_ptr<ChangeLog>> opened =
      ChangeLog::open(env_.files, paths_.log(), options, known_end, env_.log);
  if (opened.ok()) {
    log_ = std::move(opened).value();
    return {};
  }
  if (opened.error().code() != ErrorCode::kCorrupt) return opened.error();
  return put_log_aside(opened.error().message());
}

Status Database::put_log_aside(const std::string& why) {
  apply_cursor_.reset();
  log_.reset();
  TRY(env_.files.make_directories(paths_.lost()));
  const std::string aside = paths_.lost() + "/log-" + hex16(env_.random.nonzero_u64());
  TRY(env_.files.rename(paths_.log(), aside));
  TRY(env_.files.sync_directory(paths_.lost()));
  TRY(env_.files.sync_directory(paths_.meta()));
  env_.log.error("change log put aside, a new one begins").kv("database", name()).kv("why", why).kv("directory", aside);
  ChangeLogOptions options;
  options.segment_bytes = env_.segment_bytes;
  log_ = TRY(ChangeLog::open(env_.files, paths_.log(), options, std::nullopt, env_.log));
  return {};
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
  const Position before{last.before_epoch, TxId{last.txid_first.value - 1}, last.before};
  std::unique_ptr<LogCursor> cursor = TRY(log_->read_after(before));
  if (!TRY(cursor->next())) return Error(ErrorCode::kCorrupt, "its last record is missing");
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

}  // namespace litefs
