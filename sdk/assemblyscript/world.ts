// The world's functions, by the canonical ABI. `build.mjs` gives them their full names.

import { Announced, Batch, DROP, Row, Verdict } from "./batch";
import { Config } from "./config";
import { decode, room, writeList, writeText } from "./memory";
import { Outcome } from "./outcome";
import { Plugin, registered } from "./plugin";
import { Table } from "./table";

const DELETE: u8 = 2;
const SNAPSHOT: u8 = 5;

const tables: Map<u32, Announced> = new Map();

// Answers lie here: the largest is that of `process`.
const answer = memory.data(96, 8);

let name = "";
let version = "";

/** What the plugin is called: those of package.json. */
export function named(itsName: string, itsVersion: string): void {
  name = itsName;
  version = itsVersion;
}

function plugin(): Plugin {
  return registered!;
}

export function lifecycle_describe(): usize {
  writeText(answer, name);
  writeText(answer + 8, version);
  writeList(answer + 16, 0, 0);
  writeText(answer + 24, "");
  return answer;
}

export function lifecycle_init(
  config: usize, length: u32, worker: u32, workers: u32, dryRun: u32,
): usize {
  const read = new Config(decode(config, length));
  plugin().start(read);
  read.finish();
  const findings = read.findings;
  store<u8>(answer, findings.length > 0 ? 1 : 0);
  const list = room(16 * <usize>findings.length);
  for (let i = 0; i < findings.length; i++) {
    writeText(list + 16 * <usize>i, findings[i].path);
    writeText(list + 16 * <usize>i + 8, findings[i].message);
  }
  writeList(answer + 4, list, findings.length);
  return answer;
}

export function transform_on_relation(
  id: u32, schema: usize, schemaLength: u32, called: usize, calledLength: u32,
  columns: usize, length: u32, fullOldRows: u32,
): usize {
  const table = Table.read(
    id, decode(schema, schemaLength), decode(called, calledLength), columns, length, fullOldRows != 0,
  );
  plugin().refusal = "";
  const plan = plugin().relation(table);
  for (let i = 0; i < plan.needs.length; i++) {
    if (plugin().refusal == "" && !table.has(plan.needs[i])) {
      plugin().refusal = missing(table, plan.needs[i]);
    }
  }
  store<u8>(answer, plugin().refusal != "" ? 1 : 0);
  if (plugin().refusal != "") {
    writeText(answer + 4, plugin().refusal);
    return answer;
  }
  const known = new Announced(table, plan.needs.length);
  for (let i = 0; i < plan.needs.length; i++) known.places.set(plan.needs[i], i);
  tables.set(id, known);
  plan.write(answer + 4, table);
  return answer;
}

/** What a table lacks, and what it has. */
function missing(table: Table, column: string): string {
  const names = table.columns.map<string>((column) => column.name).join(", ");
  return `${table.name} has no column \`${column}\` (its columns: ${names})`;
}

export function transform_process(at: usize): usize {
  const batch = new Batch(at);
  const outcome = new Outcome(batch.count);
  const row = new Row(batch, outcome);
  let relation: u32 = 0;
  for (let event: u32 = 0; event < batch.count; event++) {
    const id = batch.relation(event);
    if (event == 0 || id != relation) {
      relation = id;
      row.known = tables.has(id) ? tables.get(id) : null;
    }
    row.move(event);
    if (judge(row) == DROP) outcome.verdicts[event] = DROP;
  }
  store<u8>(answer, 0);
  outcome.write(answer + 4);
  return answer;
}

function judge(row: Row): Verdict {
  const op = row.op;
  if (op < DELETE || op == SNAPSHOT) return plugin().process(row);
  return op == DELETE ? plugin().deleted(row) : plugin().other(row);
}

/** Room for what walmill hands over. */
export function cabi_realloc(old: usize, oldSize: usize, align: usize, size: usize): usize {
  if (old != 0) return __renew(old, size);
  return size == 0 ? align : room(size);
}

/** The call is over: nothing of it is needed any more. */
export function post(_: usize): void {
  __collect();
}
