#include "db/control.h"

#include "changelog/page_codec.h"

namespace litefs {
namespace {

constexpr size_t kControlBytes = 4096;
constexpr size_t kSlotBytes = 2048;
constexpr uint64_t kMagic = 0x336c7274636c666cull;  // "lflctrl3"

void put_point(ByteWriter& w, const ControlPoint& point) {
  w.le64(point.position.epoch.value);
  w.le64(point.position.txid.value);
  w.le64(point.position.checksum.value);
  w.le32(point.size_pages);
  uint8_t anchor[WalAnchor::kBytes];
  point.anchor.store(anchor);
  w.bytes(anchor);
}

Result<ControlPoint> get_point(ByteReader& r) {
  ControlPoint point;
  point.position.epoch.value = TRY(r.le64());
  point.position.txid.value = TRY(r.le64());
  point.position.checksum.value = TRY(r.le64());
  point.size_pages = TRY(r.le32());
  point.anchor = WalAnchor::load(TRY(r.bytes(WalAnchor::kBytes)).data());
  return point;
}

Bytes encode(const ControlState& s, uint64_t sequence) {
  Bytes out;
  out.reserve(512);
  ByteWriter w(out);
  w.le64(kMagic);
  w.le64(sequence);
  w.le64(s.id.value);
  w.le32(s.page_size);
  put_point(w, s.current);
  w.le32(static_cast<uint32_t>(s.planned_kind));
  put_point(w, s.planned);
  w.le64(s.planned_id.value);
  w.le32(s.planned_page_size);
  w.le64(s.log_end.segment_epoch.value);
  w.le64(s.log_end.segment_txid.value);
  w.le64(s.log_end.offset_bytes);
  w.le64(s.log_end.last_entry_bytes);
  w.le64(s.boot);
  w.le32(s.applied_last);
  w.le64(s.clean_size_bytes);
  w.le64(static_cast<uint64_t>(s.clean_mtime_ns));
  w.le32(s.change_counter);
  w.le32(s.change_counter_before);
  w.le64(s.journal_stamp);
  w.le64(page_hash(0, out).value);
  return out;
}

struct Slot {
  ControlState state;
  uint64_t sequence = 0;
};

Result<Slot> decode(ByteView slot) {
  ByteReader r(slot, "control");
  Slot out;
  ControlState& s = out.state;
  if (TRY(r.le64()) != kMagic) return Error(ErrorCode::kCorrupt, "control: no magic");
  out.sequence = TRY(r.le64());
  s.id.value = TRY(r.le64());
  s.page_size = TRY(r.le32());
  s.current = TRY(get_point(r));
  s.planned_kind = static_cast<PlannedKind>(TRY(r.le32()));
  s.planned = TRY(get_point(r));
  s.planned_id.value = TRY(r.le64());
  s.planned_page_size = TRY(r.le32());
  s.log_end.segment_epoch.value = TRY(r.le64());
  s.log_end.segment_txid.value = TRY(r.le64());
  s.log_end.offset_bytes = TRY(r.le64());
  s.log_end.last_entry_bytes = TRY(r.le64());
  s.boot = TRY(r.le64());
  s.applied_last = TRY(r.le32());
  s.clean_size_bytes = TRY(r.le64());
  s.clean_mtime_ns = static_cast<int64_t>(TRY(r.le64()));
  s.change_counter = TRY(r.le32());
  s.change_counter_before = TRY(r.le32());
  s.journal_stamp = TRY(r.le64());
  uint64_t hash = page_hash(0, slot.first(r.offset())).value;
  if (TRY(r.le64()) != hash) return Error(ErrorCode::kCorrupt, "control: wrong hash");
  return out;
}

}  // namespace

Result<std::unique_ptr<Control>> Control::open(FileSystem& files, const std::string& path) {
  auto control = std::unique_ptr<Control>(new Control());
  std::unique_ptr<File> file = TRY(files.open(path, OpenMode::kCreate));
  TRY(file->allocate(0, kControlBytes));
  control->mapping_ = TRY(file->map(0, kControlBytes, true));
  for (size_t i = 0; i < 2; ++i) {
    Result<Slot> slot = decode(ByteView(control->mapping_->data() + i * kSlotBytes, kSlotBytes));
    if (!slot.ok() || slot.value().sequence < control->sequence_) continue;
    control->state_ = slot.value().state;
    control->sequence_ = slot.value().sequence;
    control->existed_ = true;
  }
  return control;
}

void Control::store(const ControlState& state) {
  state_ = state;
  Bytes slot = encode(state, ++sequence_);
  CHECK_LE(slot.size(), kSlotBytes);
  std::memcpy(mapping_->data() + (sequence_ % 2) * kSlotBytes, slot.data(), slot.size());
}

}  // namespace litefs
