// Tables as they are announced, and what a plugin answers to that: its plan.

import { Tag } from "./batch";
import { readText, room, writeArray, writeList, writeText } from "./memory";

export class Column {
  constructor(
    public name: string,
    public typeOid: u32,
    /** As in `numeric(12,2)`. */
    public typeName: string,
    public tag: u8,
    public key: bool,
  ) {}
}

/** A table, announced before its first event and whenever its definition has changed. */
export class Table {
  constructor(
    public id: u32,
    public schema: string,
    public table: string,
    public columns: Column[],
    /** Old rows are complete (`REPLICA IDENTITY FULL`), else they have the key. */
    public fullOldRows: bool,
  ) {}

  static read(id: u32, schema: string, table: string, list: usize, length: u32, full: bool): Table {
    const columns: Column[] = [];
    for (let i: u32 = 0; i < length; i++) {
      const at = list + 24 * <usize>i;
      columns.push(new Column(readText(at), load<u32>(at, 8), readText(at + 12), load<u8>(at, 20), load<bool>(at, 21)));
    }
    return new Table(id, schema, table, columns, full);
  }

  /** `schema.table` */
  get name(): string {
    return `${this.schema}.${this.table}`;
  }

  has(column: string): bool {
    return this.index(column) >= 0;
  }

  index(column: string): i32 {
    for (let i = 0; i < this.columns.length; i++) {
      if (this.columns[i].name == column) return i;
    }
    return -1;
  }
}

/** Where a column of a shape comes from. */
class Source {
  constructor(
    public kind: u8,
    public number: u32,
    public text: string,
  ) {}
}

/** The columns of an emitted row in their order. A column that is set again keeps its place. */
export class Shape {
  names: string[] = [];
  sources: Source[] = [];

  /** Under the table's own name or another. */
  constructor(public table: string = "") {}

  /** Every column of a table in its place: a shape to start from. */
  static of(table: Table): Shape {
    const shape = new Shape();
    for (let i = 0; i < table.columns.length; i++) shape.input(table.columns[i].name, i);
    return shape;
  }

  /** An input column, by its index in the table. Its values never enter the plugin. */
  input(name: string, index: i32): Shape {
    return this.set(name, new Source(0, index, ""));
  }

  /** The next of the cells that are written for a row. */
  computed(name: string, tag: Tag): Shape {
    return this.set(name, new Source(1, tag, ""));
  }

  /** The same text in every row. */
  fixed(name: string, text: string): Shape {
    return this.set(name, new Source(2, 0, text));
  }

  remove(name: string): Shape {
    const index = this.names.indexOf(name);
    if (index >= 0) {
      this.names.splice(index, 1);
      this.sources.splice(index, 1);
    }
    return this;
  }

  private set(name: string, source: Source): Shape {
    const index = this.names.indexOf(name);
    if (index >= 0) {
      this.sources[index] = source;
    } else {
      this.names.push(name);
      this.sources.push(source);
    }
    return this;
  }

  write(at: usize): void {
    store<u8>(at, this.table != "" ? 1 : 0);
    writeText(at + 4, this.table);
    const list = room(20 * <usize>this.names.length);
    for (let i = 0; i < this.names.length; i++) {
      const column = list + 20 * <usize>i;
      const source = this.sources[i];
      writeText(column, this.names[i]);
      store<u8>(column, source.kind, 8);
      if (source.kind == 2) writeText(column + 12, source.text);
      else store<u32>(column, source.number, 12);
    }
    writeList(at + 12, list, this.names.length);
  }
}

/** What a plugin needs of a table, and may emit for it. */
export class Plan {
  /** The same columns of the old row, too. */
  old: bool = false;
  /** Positions and times of commits, too. */
  envelope: bool = false;
  /** 0: the plugin is called; 1: every event passes without a call; 2: every event is dropped. */
  mode: u8 = 0;
  shapes: Shape[] = [];
  /** Given to every event that passes: its index among the shapes. */
  passShape: i32 = -1;

  constructor(public needs: string[]) {}

  shape(shape: Shape): Plan {
    this.shapes.push(shape);
    return this;
  }

  write(at: usize, table: Table): void {
    const needs: u32[] = [];
    for (let i = 0; i < this.needs.length; i++) needs.push(table.index(this.needs[i]));
    store<u8>(at, this.mode);
    writeArray<u32>(at + 4, needs);
    store<bool>(at, this.old, 12);
    store<bool>(at, this.envelope, 13);
    const list = room(20 * <usize>this.shapes.length);
    for (let i = 0; i < this.shapes.length; i++) this.shapes[i].write(list + 20 * <usize>i);
    writeList(at + 16, list, this.shapes.length);
    store<u8>(at, this.passShape >= 0 ? 1 : 0, 24);
    store<i32>(at, this.passShape, 28);
  }
}
