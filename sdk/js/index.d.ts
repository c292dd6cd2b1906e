/**
 * Write walmill plugins in JavaScript and TypeScript. A whole one, which keeps the rows of a
 * country:
 *
 * ```js
 * import { drop, pass, plugin, text } from "walmill";
 *
 * export default plugin({
 *   config: { country: text() },
 *   needs: ["country"],
 *   process: (row, config) => (row.text("country") === config.country ? pass : drop),
 * });
 * ```
 *
 * Only the columns that a plan needs enter the plugin, so need few. Nothing is made per event
 * unless a row is emitted or rejected; a text is read when it is asked for.
 */

/** What becomes of an event: {@link pass}, {@link drop}, {@link Row.emit}, {@link Event.reject}. */
export type Verdict = number & { readonly __verdict: unique symbol };
/** The event goes on as it is, or in the plan's `passShape`. */
export const pass: Verdict;
/** The event goes nowhere. */
export const drop: Verdict;

/** In place of a large value that an update left as it was, and PostgreSQL did not send. */
export const unchanged: unique symbol;
/** In place of a value outside an old row's replica identity. */
export const absent: unique symbol;

/**
 * A value. Integers are exact in all their 64 bits; timestamps and times are microseconds, dates
 * are days, since 1970-01-01 UTC. `bytea` and `uuid` are bytes; every other type is text.
 */
export type Value =
  | null
  | boolean
  | bigint
  | number
  | string
  | Uint8Array
  | typeof unchanged
  | typeof absent;

/** The types of computed columns. */
export type Type =
  | "boolean"
  | "integer"
  | "float"
  | "timestamp"
  | "date"
  | "time"
  | "text"
  | "numeric"
  | "json"
  | "bytea"
  | "uuid"
  | "array";

export type Op = "insert" | "update" | "delete" | "truncate" | "message" | "snapshot";

/** An event. It is good only while the function runs that it is handed to. */
export interface Event {
  readonly op: Op;
  /** Its table; of a message there is none. */
  readonly table: Table | undefined;
  /** Position of the commit, where the plan asked for the envelope. */
  readonly lsn: bigint | undefined;
  /** Time of the commit in microseconds since 1970-01-01 UTC, where the plan asked for it. */
  readonly time: bigint | undefined;
  /** Sends the event to another stream; say with the verdict what becomes of it. */
  to(stream: string): this;
  /** To the dead letters, with the reason. */
  reject(reason: string): Verdict;
}

/** The columns of a row that the plan needs. A value of another type than asked for is undefined. */
export interface Cells {
  has(column: string): boolean;
  text(column: string): string | null | undefined;
  int(column: string): bigint | null | undefined;
  float(column: string): number | null | undefined;
  bool(column: string): boolean | null | undefined;
  /** The value, whatever its type. */
  get(column: string): Value;
}

/** A row as it is now; of a delete the row as it was. */
export interface Row extends Event, Cells {
  /** The row as it was, where the plan asked for it and PostgreSQL sent it. */
  readonly old: Cells | null;
  /**
   * The event becomes a row of the plan's shape, with these computed cells. Called again it makes
   * another row; a stream is for this row alone.
   */
  emit(cells?: readonly (Value | number | undefined)[], shape?: number, stream?: string): Verdict;
}

export interface Column {
  readonly name: string;
  readonly typeOid: number;
  /** As in `numeric(12,2)`. */
  readonly typeName: string;
  readonly tag: number;
  readonly key: boolean;
}

/** A table, as it is announced before its first event and whenever its definition has changed. */
export interface Table {
  readonly id: number;
  readonly schema: string;
  readonly table: string;
  /** `schema.table` */
  readonly name: string;
  readonly columns: readonly Column[];
  /** Old rows are complete (`REPLICA IDENTITY FULL`), else they have the key. */
  readonly fullOldRows: boolean;
  has(column: string): boolean;
  /** A column that has to be there; the error names those that are. */
  column(name: string): Column;
  /** Every column in its place: a shape to start from. */
  row(): Map<string, Source>;
}

/** Where a column of a shape comes from. */
export type Source = { input: string } | { computed: number } | { fixed: string };
/** An input column. Its values never enter the plugin. */
export function input(column: string): Source;
/** The next of the cells that `emit` is called with. */
export function computed(type: Type): Source;
/** The same text in every row. */
export function fixed(text: string): Source;

/** The columns of an emitted row in their order, under the table's own name or another. */
export type Shape =
  | Map<string, Source>
  | { table?: string; columns: Map<string, Source> | Record<string, Source> };

export interface Plan {
  /** The columns that enter the plugin. */
  needs?: readonly string[];
  /** The same columns of the old row, too. */
  old?: boolean;
  /** Positions and times of commits, too. */
  envelope?: boolean;
  /** What may be emitted. */
  shape?: Shape;
  /** The same, of several shapes; `emit` says which by its index. */
  shapes?: readonly Shape[];
  /** Given to every event that passes; it has no computed columns. */
  passShape?: Shape;
}

/** A key of the configuration. */
export interface Setting<T> {
  readonly __type?: T;
}
export function text(fallback?: string): Setting<string>;
export function texts(fallback?: readonly string[]): Setting<readonly string[]>;
export function integer(fallback?: number): Setting<number>;
export function number(fallback?: number): Setting<number>;
export function boolean(fallback?: boolean): Setting<boolean>;
export function anything(fallback?: unknown): Setting<unknown>;

/** Settings as they are read. */
export type Settings<C> = { readonly [K in keyof C]: C[K] extends Setting<infer T> ? T : never };

export interface Setup {
  /** Which of the instances this is. */
  readonly worker: number;
  readonly workers: number;
  /** What comes out is compared, not delivered. */
  readonly dryRun: boolean;
}

export interface Definition<C extends Record<string, Setting<unknown>>> extends Plan {
  /** Those of package.json when left out. */
  name?: string;
  version?: string;
  /** What of walmill's offers it means to use, as in `["kv"]`. */
  wants?: readonly string[];
  /** The keys of its configuration; any other key is an error. One without a fallback must be there. */
  config?: C;
  /** JSON Schema of the configuration. */
  configSchema?: string;
  /** Called once. `wrong` tells what is wrong with the configuration, by key. */
  start?(
    config: Settings<C>,
    wrong: (path: string, message: string) => void,
    setup: Setup,
  ): void;
  /** The plan for a table, where it depends on the table. What is thrown refuses the table. */
  relation?(table: Table, config: Settings<C>): Plan | "pass" | "drop";
  /** Judges a row as it is now: of an insert, an update or a snapshot. No answer is `pass`. */
  process(row: Row, config: Settings<C>): Verdict | void;
  /** Judges a row that was deleted; without it deletes pass. */
  deleted?(row: Row, config: Settings<C>): Verdict | void;
  /** Judges what is no row: truncates and messages; without it they pass. */
  other?(event: Event, config: Settings<C>): Verdict | void;
}

/** A plugin. Make it the module's default export. */
export function plugin<C extends Record<string, Setting<unknown>> = {}>(
  definition: Definition<C>,
): unknown;

/** Lines in walmill's log. A function is called only when somebody looks. */
export const log: Record<
  "trace" | "debug" | "info" | "warn" | "error",
  (message: string | (() => string)) => void
>;

/** The commit time of what is being processed, in microseconds: the same in every replay. */
export const clock: { now(): bigint };

/** A counter among walmill's metrics. Make it once, in `start`. */
export function counter(name: string, help?: string): { add(delta?: number | bigint): void };
/** A figure that goes up and down, among walmill's metrics. Make it once, in `start`. */
export function gauge(name: string, help?: string): { set(value: number): void };

/** The plugin's own state, which is kept with the batch; `allow.kv` in the configuration grants it. */
export const kv: {
  get(key: string): Uint8Array | undefined;
  getText(key: string): string | undefined;
  getMany(keys: readonly string[]): (Uint8Array | undefined)[];
  set(key: string, value: Uint8Array | string): void;
  delete(key: string): void;
};
