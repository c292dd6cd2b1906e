// What a plugin is.

import { Event, PASS, Row, Verdict } from "./batch";
import { Config } from "./config";
import { Plan, Table } from "./table";

/** A plugin: derive a class from this one, and `register` one of it. */
export abstract class Plugin {
  /** Why a table was refused. */
  refusal: string = "";

  /** Called once. A key that is not read is an error of the configuration. */
  start(config: Config): void {}

  /** The plan for a table. */
  abstract relation(table: Table): Plan;

  /** Judges a row as it is now: of an insert, an update or a snapshot. */
  abstract process(row: Row): Verdict;

  /** Judges a row that was deleted. */
  deleted(row: Row): Verdict {
    return PASS;
  }

  /** Judges what is no row: truncates and messages. */
  other(event: Event): Verdict {
    return PASS;
  }

  /** Refuses a table, with the reason: `return this.refuse("…")`. */
  refuse(reason: string): Plan {
    this.refusal = reason;
    return new Plan([]);
  }
}

export let registered: Plugin | null = null;

/** Makes this the module's plugin. */
export function register(plugin: Plugin): void {
  registered = plugin;
}
