// A batch, row by row. One `Row` is handed to the plugin again and again; it reads the batch's flat
// lists where walmill has put them.

import { decode } from "./memory";
import { Outcome } from "./outcome";
import { Table } from "./table";

/** What becomes of an event: PASS, DROP, `row.emit(…)` or `event.reject(…)`. */
export type Verdict = u8;
/** The event goes on as it is, or in the plan's pass shape. */
export const PASS: Verdict = 0;
/** The event goes nowhere. */
export const DROP: Verdict = 1;
export const EMIT: Verdict = 2;
export const REJECT: Verdict = 3;

/** The types of values. */
export enum Tag {
  Null = 0,
  Boolean = 1,
  Integer = 2,
  Float = 3,
  Timestamp = 4,
  Date = 5,
  Time = 6,
  Text = 16,
  Numeric = 17,
  Json = 18,
  Bytea = 19,
  Uuid = 20,
  Array = 21,
  /** A large value that an update left as it was, and PostgreSQL did not send. */
  Unchanged = 32,
  /** A column outside an old row's replica identity. */
  Absent = 33,
}

/** What the plan for a table says about the cells that come with its events. */
export class Announced {
  places: Map<string, i32> = new Map();
  constructor(
    public table: Table,
    public width: i32,
  ) {}
}

/** The batch's lists. */
export class Batch {
  constructor(public at: usize) {}
  get count(): u32 {
    return load<u32>(this.at);
  }
  op(event: u32): u8 {
    return load<u8>(load<usize>(this.at, 4) + event);
  }
  relation(event: u32): u32 {
    return load<u32>(load<usize>(this.at, 12) + 4 * <usize>event);
  }
  lsn(event: u32): u64 {
    return event < load<u32>(this.at, 24) ? load<u64>(load<usize>(this.at, 20) + 8 * <usize>event) : 0;
  }
  time(event: u32): i64 {
    return event < load<u32>(this.at, 32) ? load<i64>(load<usize>(this.at, 28) + 8 * <usize>event) : 0;
  }
  start(event: u32): u32 {
    return load<u32>(load<usize>(this.at, 36) + 4 * <usize>event);
  }
  get tags(): usize {
    return load<usize>(this.at, 44);
  }
  get data(): usize {
    return load<usize>(this.at, 52);
  }
  get heap(): usize {
    return load<usize>(this.at, 60);
  }
}

/** What every event has. It is good only while the function runs that it is handed to. */
export class Event {
  event: u32 = 0;
  known: Announced | null = null;
  protected start: u32 = 0;
  protected end: u32 = 0;

  constructor(
    protected batch: Batch,
    protected outcome: Outcome,
  ) {}

  /** 0 insert, 1 update, 2 delete, 3 truncate, 4 message, 5 snapshot. */
  get op(): u8 {
    return this.batch.op(this.event);
  }

  /** Its table; of a message there is none. */
  get table(): Table | null {
    const known = this.known;
    return known ? known.table : null;
  }

  /** Position of the commit, where the plan asked for the envelope. */
  get lsn(): u64 {
    return this.batch.lsn(this.event);
  }

  /** Time of the commit in microseconds since 1970-01-01 UTC, where the plan asked for it. */
  get time(): i64 {
    return this.batch.time(this.event);
  }

  /** Sends the event to another stream; say with the verdict what becomes of it. */
  to(stream: string): void {
    this.outcome.route(this.event, stream);
  }

  /** To the dead letters, with the reason. */
  reject(reason: string): Verdict {
    return this.outcome.reject(this.event, reason);
  }

  move(event: u32): void {
    this.event = event;
    this.start = this.batch.start(event);
    this.end = this.batch.start(event + 1);
  }
}

/** A row as it is now; of a delete the row as it was. */
export class Row extends Event {
  /** The tag of a column's value. */
  tag(column: string): Tag {
    return this.tagAt(this.at(column));
  }

  /** The text in a column; null where there is none. */
  text(column: string): string | null {
    const at = this.at(column);
    const tag = this.tagAt(at);
    if (tag < Tag.Text || tag > Tag.Array || tag == Tag.Bytea || tag == Tag.Uuid) return null;
    const data = this.dataAt(at);
    return decode(this.batch.heap + <usize>(data >> 32), <u32>data);
  }

  /** The bytes in a column; null where there are none. */
  bytes(column: string): Uint8Array | null {
    const at = this.at(column);
    const tag = this.tagAt(at);
    if (tag < Tag.Text || tag > Tag.Array) return null;
    const data = this.dataAt(at);
    const bytes = new Uint8Array(<i32>data);
    memory.copy(bytes.dataStart, this.batch.heap + <usize>(data >> 32), <u32>data);
    return bytes;
  }

  /** The integer, point in time or date in a column; 0 where there is none: see `tag`. */
  integer(column: string): i64 {
    return <i64>this.dataAt(this.at(column));
  }

  /** The floating-point number in a column; 0 where there is none. */
  number(column: string): f64 {
    return reinterpret<f64>(this.dataAt(this.at(column)));
  }

  /** The boolean in a column; false where there is none. */
  boolean(column: string): bool {
    return this.dataAt(this.at(column)) != 0;
  }

  /** The event becomes a row of the plan's shape. Write its computed cells: `emit().text(…)`. */
  emit(shape: u32 = 0, stream: string = ""): Outcome {
    return this.outcome.emit(this.event, shape, stream);
  }

  /** Where a value lies: of one that an update left as it was in the old row, if there. */
  private at(column: string): u32 {
    const known = this.known!;
    if (!known.places.has(column)) return this.end;
    const at = this.start + known.places.get(column);
    const before = at + known.width;
    if (this.tagAt(at) != Tag.Unchanged || before >= this.end) return at;
    return this.tagAt(before) == Tag.Absent ? at : before;
  }

  private tagAt(at: u32): Tag {
    return at < this.end ? load<u8>(this.batch.tags + at) : Tag.Absent;
  }

  private dataAt(at: u32): u64 {
    return at < this.end ? load<u64>(this.batch.data + 8 * <usize>at) : 0;
  }
}
