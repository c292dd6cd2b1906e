// Tables as they are announced, and what a plugin answers to that: its plan.

import { TAGS } from "./cell.js";
import { nearest } from "./settings.js";

export const input = (column) => ({ input: column });
export const fixed = (value) => ({ fixed: String(value) });

export function computed(type) {
  if (!Object.hasOwn(TAGS, type)) {
    const known = Object.keys(TAGS);
    throw new Error(`no type \`${type}\`${nearest(type, known)} (they are ${known.join(", ")})`);
  }
  return { computed: TAGS[type] };
}

export class Table {
  constructor(relation) {
    this.id = relation.id;
    this.schema = relation.schema;
    this.table = relation.table;
    this.name = `${relation.schema}.${relation.table}`;
    this.fullOldRows = relation.fullOldRows;
    this.columns = relation.columns;
  }

  has(column) {
    return this.columns.some(({ name }) => name === column);
  }

  column(column) {
    return this.columns[this.index(column)];
  }

  index(column) {
    const index = this.columns.findIndex(({ name }) => name === column);
    if (index >= 0) return index;
    const names = this.columns.map(({ name }) => name);
    const hint = nearest(column, names);
    throw `${this.name} has no column \`${column}\`${hint} (its columns: ${names.join(", ")})`;
  }

  row() {
    return new Map(this.columns.map(({ name }) => [name, input(name)]));
  }
}

/** A plan in the words of walmill.wit. */
export function bind(plan, table) {
  const bound = { mode: "call", needs: [], old: false, envelope: false, shapes: [] };
  if (plan === "pass" || plan === "drop") return { ...bound, mode: plan };
  bound.needs = [...new Set((plan.needs ?? []).map((column) => table.index(column)))];
  bound.old = plan.old ?? false;
  bound.envelope = plan.envelope ?? false;
  const shapes = [...(plan.shapes ?? []), ...(plan.shape ? [plan.shape] : [])];
  if (plan.passShape) bound.passShape = shapes.push(plan.passShape) - 1;
  bound.shapes = shapes.map((shape) => bindShape(shape, table));
  return bound;
}

function bindShape(shape, table) {
  // A map alone is a shape under the table's own name.
  const { table: name, columns } = shape.columns ? shape : { columns: shape };
  const entries = columns instanceof Map ? [...columns] : Object.entries(columns);
  return {
    table: name,
    columns: entries.map(([name, source]) => ({ name, source: bindSource(source, table) })),
  };
}

function bindSource(source, table) {
  if (source.input !== undefined) return { tag: "input", val: table.index(source.input) };
  if (source.fixed !== undefined) return { tag: "fixed", val: source.fixed };
  return { tag: "computed", val: source.computed };
}

/** The tags of each shape's computed columns. */
export const computedTags = ({ shapes }) =>
  shapes.map(({ columns }) =>
    columns.flatMap(({ source }) => (source.tag === "computed" ? [source.val] : [])),
  );
