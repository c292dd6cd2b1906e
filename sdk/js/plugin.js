// What stands between the world's functions and a plugin.

import { judge } from "./batch.js";
import { Outcome } from "./outcome.js";
import { readSettings } from "./settings.js";
import { Table, bind, computedTags } from "./table.js";

export function plugin(definition) {
  const tables = new Map();
  const outcome = new Outcome();
  let settings;

  function init({ config, ...setup }) {
    settings = readSettings(definition.config ?? {}, config);
    const findings = [];
    const wrong = (path, message) => findings.push({ path, message });
    try {
      definition.start?.(settings, wrong, setup);
    } catch (error) {
      wrong("", String(error));
    }
    if (findings.length > 0) throw findings;
  }

  function onRelation(relation) {
    const table = new Table(relation);
    const plan = bind(definition.relation?.(table, settings) ?? definition, table);
    const places = Object.create(null);
    plan.needs.forEach((index, place) => (places[table.columns[index].name] = place));
    tables.set(table.id, { table, places, width: plan.needs.length, shapes: computedTags(plan) });
    return { ...plan, needs: new Uint32Array(plan.needs) };
  }

  function process(batch) {
    outcome.begin(batch.count);
    judge(batch, outcome, tables, definition, settings);
    return outcome.finish();
  }

  return {
    lifecycle: {
      describe: () => ({
        name: definition.name ?? WALMILL_NAME,
        version: definition.version ?? WALMILL_VERSION,
        wants: definition.wants ?? [],
        configSchema: definition.configSchema ?? "",
      }),
      init,
    },
    transform: {
      onRelation: (relation) => inWords(() => onRelation(relation)),
      process: (batch) => inWords(() => process(batch)),
    },
  };
}

/** What was thrown as a text, which is an answer; an `Error` that got out would be a crash. */
function inWords(work) {
  try {
    return work();
  } catch (error) {
    throw String(error);
  }
}
