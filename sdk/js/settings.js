// A plugin's configuration: which keys there may be, and what is in them.

const setting = (what, accepts) => (fallback) => ({
  fallback,
  read(value, path, findings) {
    if (accepts(value)) return value;
    findings.push({ path, message: `must be ${what}` });
  },
});

const isText = (value) => typeof value === "string";

export const text = setting("a text", isText);
export const boolean = setting("true or false", (value) => typeof value === "boolean");
export const number = setting("a number", (value) => typeof value === "number");
export const integer = setting("a whole number", Number.isSafeInteger);
export const anything = setting("anything", () => true);

export const texts = (fallback) => ({
  fallback,
  read(value, path, findings) {
    if (!Array.isArray(value)) {
      findings.push({ path, message: "must be a list of texts" });
      return;
    }
    value.forEach((element, index) => text().read(element, `${path}[${index}]`, findings));
    return value;
  },
});

/** The settings that a plugin declares, from its `config` table; throws what is wrong with it. */
export function readSettings(declared, json) {
  const config = json === "" ? {} : JSON.parse(json);
  const [settings, findings] = [{}, []];
  for (const [key, setting] of Object.entries(declared)) {
    if (Object.hasOwn(config, key)) settings[key] = setting.read(config[key], key, findings);
    else if (setting.fallback !== undefined) settings[key] = setting.fallback;
    else findings.push({ path: key, message: "missing" });
  }
  for (const key of Object.keys(config)) {
    if (!Object.hasOwn(declared, key)) findings.push({ path: key, message: "unknown key" });
  }
  if (findings.length > 0) throw findings;
  return settings;
}

/** `; did you mean …?` when one of the names is close to the wrong one, else nothing. */
export function nearest(wrong, names) {
  const close = names
    .map((name) => [distance(wrong.toLowerCase(), name.toLowerCase()), name])
    .filter(([far]) => far <= Math.ceil(wrong.length / 3))
    .sort(([a], [b]) => a - b);
  return close.length > 0 ? `; did you mean \`${close[0][1]}\`?` : "";
}

/** How many letters to insert, remove or replace (Levenshtein). */
function distance(wrong, name) {
  let row = Array.from({ length: wrong.length + 1 }, (_, x) => x);
  for (let y = 1; y <= name.length; y++) {
    const next = [y];
    for (let x = 1; x <= wrong.length; x++) {
      const replaced = row[x - 1] + (wrong[x - 1] === name[y - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[x] + 1, next[x - 1] + 1));
    }
    row = next;
  }
  return row[wrong.length];
}
