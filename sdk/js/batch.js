// A batch, row by row. What is at hand lies in variables of this module and not in objects: an
// interpreter inside WebAssembly reads them in a third of the time, and an event costs no object.

import * as cell from "./cell.js";
import { absent, unchanged } from "./cell.js";

const DELETE = 2;
const OPS = ["insert", "update", "delete", "truncate", "message", "snapshot"];

const { fromCharCode } = String;
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

// The batch's flat lists, as walmill.wit has them; of each cell's data the two halves: of a text
// its length, then where it starts.
let batch, starts, tags, halves, heap;
// The event, where its cells start, and of its table the columns' places among them.
let event, start, table, places, width, shapes;
let outcome;

const NO_TABLE = { table: undefined, places: Object.create(null), width: 0, shapes: [] };

/**
 * Asks for a verdict on each event: `process` about rows as they are now, `deleted` about rows that
 * are gone, `other` about what is no row. Those that are missing let pass.
 */
export function judge(whole, out, tables, { process, deleted, other }, settings) {
  begin(whole, out);
  const { count, ops, relations, starts } = whole;
  const { verdicts } = out;
  const view = row;
  let relation;
  for (let i = 0; i < count; i++) {
    if (relations[i] !== relation) {
      relation = relations[i];
      ({ table, places, width, shapes } = tables.get(relation) ?? NO_TABLE);
    }
    event = i;
    start = starts[i];
    const op = ops[i];
    let verdict;
    if (op < DELETE || op === 5) verdict = process(view, settings);
    else if (op === DELETE) verdict = deleted?.(view, settings);
    else verdict = other?.(bare, settings);
    if (verdict === 0) continue;
    if (verdict === 1) verdicts[i] = 1;
    else if (verdict !== undefined) check(verdict, verdicts[i]);
  }
}

function begin(whole, out) {
  batch = whole;
  outcome = out;
  ({ starts, tags, heap } = whole);
  const { buffer, byteOffset, length } = whole.data;
  halves = new Uint32Array(buffer, byteOffset, 2 * length);
}

/** `emit` and `reject` have written their verdicts themselves. */
function check(verdict, written) {
  if (verdict === written) return;
  throw new TypeError(
    `the answer was ${String(verdict)}: return pass, drop, row.emit(…) or row.reject(…)`,
  );
}

/** What every event has. */
class Event {
  get op() {
    return OPS[batch.ops[event]];
  }

  get table() {
    return table;
  }

  get lsn() {
    return batch.lsns[event];
  }

  get time() {
    return batch.times[event];
  }

  to(stream) {
    outcome.route(event, stream);
    return this;
  }

  reject(reason) {
    return outcome.reject(event, reason);
  }
}

class Row extends Event {
  get old() {
    return starts[event + 1] - start > width ? old : null;
  }

  has(column) {
    return places[column] !== undefined;
  }

  text(column) {
    // Of a column that was not asked for, the place is no number, and neither is what follows.
    const at = start + places[column];
    if (tags[at] !== 16) return valueOf(column, at, cell.TEXT);
    // Most are short: their letters one by one are quicker than a call of the decoder.
    const from = halves[2 * at + 1];
    switch (halves[2 * at]) {
      case 1: {
        const a = heap[from];
        if (a < 128) return fromCharCode(a);
        break;
      }
      case 2: {
        const a = heap[from];
        const b = heap[from + 1];
        if ((a | b) < 128) return fromCharCode(a, b);
        break;
      }
      case 3: {
        const a = heap[from];
        const b = heap[from + 1];
        const c = heap[from + 2];
        if ((a | b | c) < 128) return fromCharCode(a, b, c);
        break;
      }
      case 4: {
        const a = heap[from];
        const b = heap[from + 1];
        const c = heap[from + 2];
        const d = heap[from + 3];
        if ((a | b | c | d) < 128) return fromCharCode(a, b, c, d);
        break;
      }
    }
    return text(at);
  }

  int(column) {
    return valueOf(column, start + places[column], cell.INTEGER);
  }

  float(column) {
    return valueOf(column, start + places[column], cell.FLOAT);
  }

  bool(column) {
    return valueOf(column, start + places[column], cell.BOOLEAN);
  }

  get(column) {
    return value(present(column, start + places[column]));
  }

  emit(cells = [], shape = 0, stream = undefined) {
    return outcome.emit(event, shapes[shape], cells, shape, stream);
  }
}

/** The row as it was: its cells lie behind those of the row as it is. */
class OldRow {
  has(column) {
    return places[column] !== undefined;
  }

  text(column) {
    return valueOf(column, start + width + places[column], cell.TEXT);
  }

  int(column) {
    return valueOf(column, start + width + places[column], cell.INTEGER);
  }

  float(column) {
    return valueOf(column, start + width + places[column], cell.FLOAT);
  }

  bool(column) {
    return valueOf(column, start + width + places[column], cell.BOOLEAN);
  }

  get(column) {
    return value(present(column, start + width + places[column]));
  }
}

const bare = new Event();
const row = new Row();
const old = new OldRow();

/** A cell's value if it has the tag; null if it is null; else there is none. */
function valueOf(column, at, tag) {
  const place = present(column, at);
  if (tags[place] === tag) return value(place);
  return tags[place] === cell.NULL ? null : undefined;
}

/** Where a value lies: of one that an update left as it was in the old row, if that has it. */
function present(column, at) {
  const tag = tags[at];
  if (tag === undefined || places[column] === undefined) {
    throw new Error(`\`${column}\` is not among the columns that the plan needs`);
  }
  const before = at + width;
  if (tag !== cell.UNCHANGED || before >= starts[event + 1]) return at;
  return tags[before] === cell.ABSENT ? at : before;
}

function value(at) {
  switch (tags[at]) {
    case cell.NULL:
      return null;
    case cell.BOOLEAN:
      return halves[2 * at] !== 0;
    case cell.INTEGER:
    case cell.TIMESTAMP:
    case cell.DATE:
    case cell.TIME:
      return integer(at);
    case cell.FLOAT:
      return float(at);
    case cell.TEXT:
    case cell.NUMERIC:
    case cell.JSON:
    case cell.ARRAY:
      return text(at);
    case cell.BYTEA:
    case cell.UUID:
      return bytes(at).slice();
    case cell.UNCHANGED:
      return unchanged;
    default:
      return absent;
  }
}

function integer(at) {
  // Most are small, and need no reading of 64 bits.
  if (halves[2 * at + 1] === 0) return BigInt(halves[2 * at]);
  return BigInt.asIntN(64, batch.data[at]);
}

function float(at) {
  const { buffer, byteOffset } = batch.data;
  return new DataView(buffer, byteOffset).getFloat64(8 * at, true);
}

function bytes(at) {
  const from = halves[2 * at + 1];
  return heap.subarray(from, from + halves[2 * at]);
}

const text = (at) => decoder.decode(bytes(at));
