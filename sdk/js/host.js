// What walmill offers to plugins.

import * as hostClock from "walmill:plugin/clock@0.1.0";
import * as hostKv from "walmill:plugin/kv@0.1.0";
import * as hostLog from "walmill:plugin/log@0.1.0";
import * as hostMetrics from "walmill:plugin/metrics@0.1.0";

const line = (level) => (message) => {
  if (typeof message !== "function") return hostLog.log(level, String(message));
  if (hostLog.enabled(level)) hostLog.log(level, String(message()));
};

export const log = {
  trace: line("trace"),
  debug: line("debug"),
  info: line("info"),
  warn: line("warn"),
  error: line("error"),
};

export const clock = { now: () => hostClock.now() };

export function counter(name, help = "") {
  const id = hostMetrics.counter(name, help);
  return { add: (delta = 1n) => hostMetrics.add(id, BigInt(delta)) };
}

export function gauge(name, help = "") {
  const id = hostMetrics.gauge(name, help);
  return { set: (value) => hostMetrics.set(id, value) };
}

const [encoder, decoder] = [new TextEncoder(), new TextDecoder("utf-8", { ignoreBOM: true })];

/** An error of the store as one that says what it was. */
function told(work) {
  try {
    return work();
  } catch (error) {
    const { tag, val } = error?.payload ?? {};
    throw tag === undefined ? error : new Error(`kv: ${val ?? tag}`);
  }
}

export const kv = {
  get: (key) => told(() => hostKv.get(key)),
  getMany: (keys) => told(() => hostKv.getMany(keys)),
  set: (key, value) =>
    told(() => hostKv.set(key, typeof value === "string" ? encoder.encode(value) : value)),
  delete: (key) => told(() => hostKv.delete(key)),
  getText(key) {
    const value = kv.get(key);
    return value && decoder.decode(value);
  },
};
