// Write walmill plugins in AssemblyScript. A whole one, which keeps the rows of a country:
//
//     import { Config, DROP, PASS, Plan, Plugin, Row, Table, Verdict, register } from "walmill";
//
//     class Local extends Plugin {
//       country: string = "";
//       start(config: Config): void { this.country = config.text("country"); }
//       relation(table: Table): Plan { return new Plan(["country"]); }
//       process(row: Row): Verdict { return row.text("country") == this.country ? PASS : DROP; }
//     }
//
//     register(new Local());
//
// Only the columns that a plan needs enter the plugin, so need few.

export { Config } from "./config";
export { DROP, Event, PASS, Row, Tag, Verdict } from "./batch";
export { Column, Plan, Shape, Table } from "./table";
export { Outcome } from "./outcome";
export { Plugin, register } from "./plugin";
export { debug, info, now, warn } from "./host";
