// The answer to a batch, as it is written.

import { EMIT, REJECT, Tag, Verdict } from "./batch";
import { room, writeArray, writeList, writeTexts } from "./memory";

export class Outcome {
  verdicts: Uint8Array;
  private eventRoutes: u32[] = [];
  private rowEvents: u32[] = [];
  private rowShapes: u32[] = [];
  private rowRoutes: u32[] = [];
  private starts: u32[] = [];
  private tags: u8[] = [];
  private data: u64[] = [];
  private heap: ArrayBuffer[] = [];
  private heapSize: u32 = 0;
  private routes: string[] = [];
  private reasons: string[] = [];
  private reasonEvents: u32[] = [];

  constructor(count: u32) {
    this.verdicts = new Uint8Array(count);
  }

  route(event: u32, stream: string): void {
    if (this.eventRoutes.length == 0) {
      this.eventRoutes = new Array<u32>(this.verdicts.length);
    }
    this.eventRoutes[event] = this.streamNumber(stream);
  }

  reject(event: u32, reason: string): Verdict {
    this.reasons.push(reason);
    this.reasonEvents.push(event);
    this.verdicts[event] = REJECT;
    return REJECT;
  }

  emit(event: u32, shape: u32, stream: string): Outcome {
    this.verdicts[event] = EMIT;
    this.rowEvents.push(event);
    this.rowShapes.push(shape);
    this.rowRoutes.push(stream == "" ? 0 : this.streamNumber(stream));
    this.starts.push(this.tags.length);
    return this;
  }

  /** The next computed cell: of a text column a text. */
  text(text: string, tag: Tag = Tag.Text): Outcome {
    return this.keep(tag, String.UTF8.encode(text));
  }

  bytes(bytes: Uint8Array, tag: Tag = Tag.Bytea): Outcome {
    return this.keep(tag, bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  }

  integer(value: i64, tag: Tag = Tag.Integer): Outcome {
    return this.cell(tag, value);
  }

  number(value: f64): Outcome {
    return this.cell(Tag.Float, reinterpret<u64>(value));
  }

  boolean(value: bool): Outcome {
    return this.cell(Tag.Boolean, value ? 1 : 0);
  }

  /** A cell without a value: `Tag.Null`, `Tag.Unchanged` or `Tag.Absent`. */
  nothing(tag: Tag = Tag.Null): Outcome {
    return this.cell(tag, 0);
  }

  /** The verdict that goes with the row. */
  done(): Verdict {
    return EMIT;
  }

  write(at: usize): void {
    const cells = this.tags.length > 0;
    if (cells) this.starts.push(this.tags.length);
    writeList(at, this.verdicts.dataStart, this.verdicts.length);
    writeArray<u32>(at + 8, this.eventRoutes);
    writeArray<u32>(at + 16, this.rowEvents);
    writeArray<u32>(at + 24, this.rowShapes);
    writeArray<u32>(at + 32, this.rowRoutes);
    writeArray<u32>(at + 40, cells ? this.starts : []);
    writeArray<u8>(at + 48, this.tags);
    writeArray<u64>(at + 56, this.data);
    this.writeHeap(at + 64);
    writeTexts(at + 72, this.routes);
    writeTexts(at + 80, this.rejected());
  }

  private writeHeap(at: usize): void {
    const heap = room(this.heapSize);
    let used: usize = 0;
    for (let i = 0; i < this.heap.length; i++) {
      const bytes = unchecked(this.heap[i]);
      memory.copy(heap + used, changetype<usize>(bytes), bytes.byteLength);
      used += bytes.byteLength;
    }
    writeList(at, heap, this.heapSize);
  }

  /** The reasons of what was rejected in the end. */
  private rejected(): string[] {
    const reasons: string[] = [];
    for (let i = 0; i < this.reasons.length; i++) {
      if (this.verdicts[this.reasonEvents[i]] == REJECT) reasons.push(this.reasons[i]);
    }
    return reasons;
  }

  private keep(tag: Tag, bytes: ArrayBuffer): Outcome {
    const start = this.heapSize;
    this.heap.push(bytes);
    this.heapSize += bytes.byteLength;
    return this.cell(tag, (<u64>start << 32) | <u64>bytes.byteLength);
  }

  private cell(tag: Tag, data: u64): Outcome {
    this.tags.push(<u8>tag);
    this.data.push(data);
    return this;
  }

  private streamNumber(stream: string): u32 {
    const index = this.routes.indexOf(stream);
    return index >= 0 ? index + 1 : this.routes.push(stream);
  }
}
