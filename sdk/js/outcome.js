// The answer to a batch, as it is written. Its lists are kept from batch to batch and only grow.

import * as cell from "./cell.js";
import { absent, unchanged } from "./cell.js";

const EMIT = 2;
const REJECT = 3;

const encoder = new TextEncoder();
const NOTHING = new Uint32Array(0);
const ONLY_VERDICTS = {
  eventRoutes: NOTHING,
  rowEvents: NOTHING,
  rowShapes: NOTHING,
  rowRoutes: NOTHING,
  starts: NOTHING,
  tags: new Uint8Array(0),
  data: new BigUint64Array(0),
  heap: new Uint8Array(0),
  routes: [],
  reasons: [],
};

export class Outcome {
  constructor() {
    this._grow(64);
    this.heap = new Uint8Array(1024);
    this._clear();
  }

  begin(count) {
    this.count = count;
    this.verdicts = new Uint8Array(count);
    // Most batches of a filter leave nothing but verdicts behind.
    if (this.touched) this._clear();
  }

  finish() {
    const { verdicts, cells, reasons } = this;
    if (!this.touched) return { ...ONLY_VERDICTS, verdicts };
    return {
      verdicts,
      eventRoutes: this.eventRoutes,
      rowEvents: new Uint32Array(this.rowEvents),
      rowShapes: new Uint32Array(this.rowShapes),
      rowRoutes: this.rowsRouted ? new Uint32Array(this.rowRoutes) : NOTHING,
      starts: cells > 0 ? new Uint32Array([...this.starts, cells]) : NOTHING,
      tags: this.tags.subarray(0, cells),
      data: this.data.subarray(0, cells),
      heap: this.heap.subarray(0, this.used),
      routes: this.routes,
      reasons: [...reasons].filter(([event]) => verdicts[event] === REJECT).map(([, why]) => why),
    };
  }

  _clear() {
    this.touched = false;
    this.eventRoutes = NOTHING;
    this.rowEvents = [];
    this.rowShapes = [];
    this.rowRoutes = [];
    this.rowsRouted = false;
    this.starts = [];
    this.cells = 0;
    this.used = 0;
    this.routes = [];
    this.routeNumbers = new Map();
    this.reasons = new Map();
  }

  route(event, stream) {
    if (this.eventRoutes === NOTHING) this.eventRoutes = new Uint32Array(this.count);
    this.eventRoutes[event] = this._route(stream);
    this.touched = true;
  }

  reject(event, reason) {
    this.reasons.set(event, String(reason));
    this.touched = true;
    return (this.verdicts[event] = REJECT);
  }

  emit(event, tags, cells, shape, stream) {
    if (tags === undefined) throw new Error(`the plan has no shape ${shape}`);
    if (cells.length !== tags.length) {
      throw new Error(`shape ${shape} has ${tags.length} computed columns, not ${cells.length}`);
    }
    this.rowEvents.push(event);
    this.rowShapes.push(shape);
    this.rowRoutes.push(stream === undefined ? 0 : this._route(stream));
    this.rowsRouted ||= stream !== undefined;
    this.touched = true;
    this.starts.push(this.cells);
    for (let i = 0; i < cells.length; i++) this._cell(tags[i], cells[i]);
    return (this.verdicts[event] = EMIT);
  }

  _route(stream) {
    let number = this.routeNumbers.get(stream);
    if (number === undefined) {
      number = this.routes.push(String(stream));
      this.routeNumbers.set(stream, number);
    }
    return number;
  }

  _cell(tag, value) {
    if (this.cells === this.tags.length) this._grow(2 * this.cells);
    const at = this.cells++;
    this.data[at] = 0n;
    this.tags[at] = tag;
    if (value === null || value === undefined) this.tags[at] = cell.NULL;
    else if (value === unchanged) this.tags[at] = cell.UNCHANGED;
    else if (value === absent) this.tags[at] = cell.ABSENT;
    else if (tag >= cell.TEXT) this._keep(at, tag, value);
    else if (tag === cell.FLOAT) this.floats[at] = Number(value);
    else this.ints[at] = integer(tag === cell.BOOLEAN ? Boolean(value) : value);
  }

  _keep(at, tag, value) {
    const bytes = tag === cell.BYTEA || tag === cell.UUID;
    if (bytes !== value instanceof Uint8Array) {
      throw new TypeError(`a ${bytes ? "Uint8Array" : "text"} was expected, not ${value}`);
    }
    const text = bytes ? value : String(value);
    this._room(bytes ? text.length : 3 * text.length);
    const written = bytes ? this._copy(text) : this._encode(text);
    this.halves[2 * at] = written;
    this.halves[2 * at + 1] = this.used;
    this.used += written;
  }

  _copy(bytes) {
    this.heap.set(bytes, this.used);
    return bytes.length;
  }

  _encode(text) {
    return encoder.encodeInto(text, this.heap.subarray(this.used)).written;
  }

  _room(bytes) {
    const wanted = this.used + bytes;
    if (wanted <= this.heap.length) return;
    const heap = new Uint8Array(2 * wanted);
    heap.set(this.heap);
    this.heap = heap;
  }

  _grow(cells) {
    const { tags, data } = this;
    this.tags = new Uint8Array(cells);
    this.data = new BigUint64Array(cells);
    this.ints = new BigInt64Array(this.data.buffer);
    this.floats = new Float64Array(this.data.buffer);
    this.halves = new Uint32Array(this.data.buffer);
    if (tags) this.tags.set(tags);
    if (data) this.data.set(data);
  }
}

function integer(value) {
  if (typeof value === "number" && !Number.isSafeInteger(value)) {
    throw new RangeError(`${value} is no exact integer; use a BigInt`);
  }
  const int = BigInt(value);
  if (BigInt.asIntN(64, int) !== int) throw new RangeError(`${int} has more than 64 bits`);
  return int;
}
