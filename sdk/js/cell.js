// What a cell may be: the codes of walmill.wit.

export const unchanged = Symbol("unchanged");
export const absent = Symbol("absent");

export const NULL = 0;
export const BOOLEAN = 1;
export const INTEGER = 2;
export const FLOAT = 3;
export const TIMESTAMP = 4;
export const DATE = 5;
export const TIME = 6;
export const TEXT = 16;
export const NUMERIC = 17;
export const JSON = 18;
export const BYTEA = 19;
export const UUID = 20;
export const ARRAY = 21;
export const UNCHANGED = 32;
export const ABSENT = 33;

/** The tags by the names that plugins use. */
export const TAGS = {
  boolean: BOOLEAN,
  integer: INTEGER,
  float: FLOAT,
  timestamp: TIMESTAMP,
  date: DATE,
  time: TIME,
  text: TEXT,
  numeric: NUMERIC,
  json: JSON,
  bytea: BYTEA,
  uuid: UUID,
  array: ARRAY,
};
